//! Certificates by ACME, against a real CA on loopback: Debian's `pebble`, strict, with names that all lead to us.

#[path = "acme/front.rs"]
mod front;
#[path = "acme/pebble.rs"]
mod pebble;
#[path = "acme/visitor.rs"]
mod visitor;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use self::front::{Fault, Front, Lie};
use self::pebble::{Options, Pebble};
use self::visitor::Visitor;
use super::harness::{FakeBackend, Gateway, PATIENCE, Tenant, until};

/// How one certificate stands.
async fn status(gateway: &Gateway, name: &str) -> Option<Value> {
    let (_, text) = gateway.admin("/api/certs").await;
    let statuses: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    statuses.into_iter().find(|status| status["name"] == name)
}

async fn until_trouble(gateway: &Gateway, name: &str, words: &str) -> Value {
    until(&format!("{name} is in trouble: {words}"), async || {
        status(gateway, name)
            .await
            .filter(|status| status["trouble"].as_str().is_some_and(|it| it.contains(words)))
    })
    .await
}

async fn post(gateway: &Gateway, path: &str) -> (u16, String) {
    let url = format!("http://{}{path}", gateway.admin_address());
    let answer = reqwest::Client::new().post(url).send().await.expect("the admin listener answers");
    (answer.status().as_u16(), answer.text().await.expect("a text"))
}

async fn renew(gateway: &Gateway, name: &str) {
    let (status, text) = post(gateway, &format!("/-/renew/{name}")).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn a_host_an_address_and_a_tenants_own_host_are_certified() {
    let pebble = Pebble::start(Options::default()).await;
    let backend = FakeBackend::start().await;
    let setup = pebble.setup("").flag("--host", "mcp.test").flag("--host", "127.0.0.1");
    let gateway = setup.start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("the host is certified", async || visitor.serial("mcp.test").await).await;
    until("the address is certified", async || visitor.serial("127.0.0.1").await).await;
    assert_eq!(visitor.serial("acme.test").await, None, "nobody wants that name");

    let tenant = Tenant::new("a", &backend).with("hosts: [acme.test]");
    gateway.put("a.yaml", tenant.yaml());
    until("the tenant's host is certified", async || visitor.serial("acme.test").await).await;
    assert_eq!(status(&gateway, "acme.test").await.expect("a status")["challenge"], "tls-alpn-01");

    gateway.remove("a.yaml");
    until("it is no longer wanted", async || status(&gateway, "acme.test").await.is_none().then_some(()))
        .await;
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(metrics.contains(r#"tenantd_certificate_orders_total{outcome="ok"} 3"#), "{metrics}");
    assert!(!metrics.contains("acme.test"), "its series stay");
}

#[tokio::test]
async fn a_restart_and_a_second_gateway_order_nothing() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let serial = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let certs = gateway.path().join("certs");
    for path in [certs.clone(), certs.join("sets"), certs.join("accounts")] {
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }

    // The folder is one gateway's.
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_tenantd"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--tls",
            "acme",
            "--accept-tos",
            "--host",
            "mcp.test",
        ])
        .args(["--listen-http", "off", "--state", "another-state", "--certs"])
        .arg(&certs)
        .current_dir(gateway.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another gateway"), "{said}");

    let orders = pebble.orders();
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(visitor.serial("mcp.test").await, Some(serial), "it was served from the folder");
    until("the gateway has looked", async || {
        status(&gateway, "mcp.test").await.filter(|it| it["state"] == "valid")
    })
    .await;
    assert_eq!(pebble.orders(), orders);
}

#[tokio::test]
async fn http_01_takes_over_where_the_ca_does_not_get_through_to_tls() {
    let options = Options { wrong_tls_port: true, ..Options::default() };
    let pebble = Pebble::start(options).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, gateway_port(&gateway));
    until("it is certified all the same", async || visitor.serial("mcp.test").await).await;
    let found = status(&gateway, "mcp.test").await.expect("a status");
    assert_eq!(found["challenge"], "http-01");
    // The winner is remembered.
    let orders = pebble.orders();
    renew(&gateway, "mcp.test").await;
    assert_eq!(pebble.orders(), orders + 1);

    // Port 80 is for challenges and redirects, and for names of ours only.
    let plain = |host: &'static str, path: &str| {
        let client =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        client.get(format!("http://127.0.0.1:{}{path}", pebble.http_port)).header("host", host).send()
    };
    let answer = plain("mcp.test", "/a/mcp?x=1").await.expect("an answer");
    assert_eq!(answer.status(), 308);
    let location = answer.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(location, format!("https://mcp.test:{}/a/mcp?x=1", gateway_port(&gateway)));
    assert_eq!(plain("evil.test", "/").await.expect("an answer").status(), 421);
    assert_eq!(
        plain("mcp.test", "//evil.test/").await.expect("an answer").headers()["location"]
            .to_str()
            .expect("text")
            .split('/')
            .nth(2),
        Some(format!("mcp.test:{}", gateway_port(&gateway)).as_str())
    );
    let unknown = plain("mcp.test", "/.well-known/acme-challenge/unknown").await.expect("an answer");
    assert_eq!(unknown.status(), 404);
}

fn gateway_port(gateway: &Gateway) -> u16 {
    gateway.address().port()
}

#[tokio::test]
async fn an_external_account_is_bound_and_a_wrong_one_is_explained() {
    let pebble = Pebble::start(Options { eab: true, ..Options::default() }).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("eab.key");
    let with_key = format!("acme_eab_kid: {}\nacme_eab_key_file: {}\n", pebble::KID, key.display());
    let roots = pebble.roots().await;

    let without = pebble.setup("").flag("--host", "mcp.test").start().await;
    until_trouble(&without, "mcp.test", "acme_eab_kid").await;
    drop(without);

    fs::write(&key, "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXktd3Jvbmc").expect("written");
    let wrong = pebble.setup(&with_key).flag("--host", "mcp.test").start().await;
    let found = until_trouble(&wrong, "mcp.test", "acme_eab_key_file").await;
    assert_eq!(found["state"], "refused");
    drop(wrong);

    // With padding, as some CAs show it.
    fs::write(&key, format!("{}=\n", pebble::EAB_KEY)).expect("written");
    let _right = pebble.setup(&with_key).flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&roots, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
}

#[tokio::test]
async fn a_ca_that_is_dead_at_start_delays_nothing_and_is_asked_again() {
    let mut pebble = Pebble::start(Options::default()).await;
    pebble.kill();
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let strange = Visitor::trusting_nobody(pebble.tls_port);
    assert!(strange.is_served("mcp.test").await, "nothing is served without the CA");
    let found = until_trouble(&gateway, "mcp.test", "refused").await;
    assert_eq!(found["state"], "backoff");
    let (ready, detail) = gateway.admin("/readyz").await;
    assert!(ready == 200 && detail.contains("mcp.test"), "{detail}");
    pebble.start_again().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    // The CA has lost its memory once more, and with it our account.
    pebble.kill();
    pebble.start_again().await;
    renew(&gateway, "mcp.test").await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    assert!(visitor.serial("mcp.test").await.is_some(), "the new certificate is not served");
}

#[tokio::test]
async fn nonces_refused_cost_neither_orders_nor_patience() {
    let pebble = Pebble::start(Options { bad_nonces: 30, ..Options::default() }).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    for _ in 0..5 {
        renew(&gateway, "mcp.test").await;
    }
}

#[tokio::test]
async fn a_name_the_ca_refuses_is_said_and_leaves_the_others_alone() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "blocked.test").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("the other is certified", async || visitor.serial("mcp.test").await).await;
    let found = until_trouble(&gateway, "blocked.test", "rejectedIdentifier").await;
    assert_eq!(found["state"], "refused");
    assert_eq!(visitor.serial("blocked.test").await, None);
}

#[tokio::test]
async fn thirty_renewals_under_load_lose_no_handshake_and_no_connection() {
    let pebble = Pebble::start(Options { validity_seconds: 600, ..Options::default() }).await;
    let backend = FakeBackend::start().await;
    let setup = pebble.setup("").flag("--host", "mcp.test").file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    gateway.until_state("a", "serving").await;

    let mut kept = visitor.keep_alive("mcp.test").await;
    let mut stream = visitor.listen_stream("mcp.test", "/a/mcp").await;
    let hammering: Vec<_> = (0..4).map(|_| visitor.hammer("mcp.test")).collect();
    for _ in 0..30 {
        renew(&gateway, "mcp.test").await;
        assert_eq!(kept.get("/a/mcp/").await, kept.first(), "the kept connection answers otherwise");
    }
    let mut serials = std::collections::BTreeSet::new();
    let mut handshakes = 0;
    for hammer in hammering {
        let seen = hammer.stop().await;
        assert_eq!(seen.failed, Vec::<String>::new());
        handshakes += seen.handshakes;
        serials.extend(seen.serials);
    }
    assert!(serials.len() >= 30, "only {} certificates were seen in {handshakes} handshakes", serials.len());
    assert!(stream.is_open().await, "the stream ended");
    println!("{handshakes} handshakes, {} certificates, none failed", serials.len());
}

#[tokio::test]
async fn short_lived_certificates_renew_by_themselves() {
    let pebble = Pebble::start(Options { validity_seconds: 12, ..Options::default() }).await;
    let _gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    until("it is renewed", async || visitor.serial("mcp.test").await.filter(|serial| *serial != first)).await;
}

#[tokio::test]
async fn a_crash_loop_places_no_more_orders_than_the_cap() {
    // Validations take long enough to die in.
    let pebble = Pebble::start(Options { slow_validation: true, ..Options::default() }).await;
    let mut gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let mut seen = 0;
    for _ in 0..8 {
        until("an order is placed, or held back for long", async || {
            let status = status(&gateway, "mcp.test").await?;
            let next = status["next_attempt"].as_str().and_then(|next| next.parse::<jiff::Timestamp>().ok());
            let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1);
            (pebble.orders() > seen || next.is_some_and(|next| next > soon)).then_some(())
        })
        .await;
        seen = pebble.orders();
        gateway = gateway.kill_and_restart().await;
    }
    assert!((3..=5).contains(&seen), "{seen} orders");
}

#[tokio::test]
async fn a_key_others_could_read_is_closed_and_replaced() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let sets = fs::read_dir(gateway.path().join("certs/sets")).expect("a folder");
    let bundle = sets.flatten().next().expect("a set").path().join("bundle.pem");
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o644)).expect("changed");
    let gateway = gateway.kill_and_restart().await;
    until("another key is served", async || {
        visitor.serial("mcp.test").await.filter(|serial| *serial != first)
    })
    .await;
    assert_eq!(fs::metadata(&bundle).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(gateway.output().contains("could read the key"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_said_and_something_is_served() {
    let pebble = Pebble::start(Options::default()).await;
    let setup = pebble.setup("").flag("--host", "mcp.test");
    fs::write(setup.path().join("certs"), "not a folder").expect("written");
    let gateway = setup.start().await;
    until_trouble(&gateway, "mcp.test", "--certs").await;
    assert!(Visitor::trusting_nobody(pebble.tls_port).is_served("mcp.test").await);
    assert_eq!(pebble.orders(), 0);
    // Mended, it is taken up without a restart.
    fs::remove_file(gateway.path().join("certs")).expect("removed");
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let soon = tokio::time::timeout(PATIENCE * 2, async {
        while visitor.serial("mcp.test").await.is_none() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    soon.await.expect("it is certified once the folder is mended");
}

#[tokio::test]
async fn the_command_line_lists_renews_and_explains() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let admin = gateway.admin_address().to_string();
    let certs = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tenantd"))
            .arg("certs")
            .args(arguments)
            .args(["--admin", &admin])
            .current_dir(gateway.path())
            .output()
            .expect("it runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = certs(&["list"]);
    assert!(code == Some(0) && text.contains("mcp.test") && text.contains("valid"), "{text}");
    let (code, text) = certs(&["test", "mcp.test"]);
    assert!(code == Some(0) && text.contains("can be obtained"), "{text}");
    assert_eq!(visitor.serial("mcp.test").await, Some(first.clone()), "a rehearsal changed what is served");
    let (code, text) = certs(&["renew", "mcp.test"]);
    assert!(code == Some(0), "{text}");
    assert!(visitor.serial("mcp.test").await.is_some_and(|serial| serial != first));
    let (code, text) = certs(&["renew", "other.test"]);
    assert!(code == Some(1) && text.contains("certs list"), "{text}");
    let (code, text) = certs(&["show", "mcp.test"]);
    assert!(code == Some(0) && text.contains("tls-alpn-01"), "{text}");
    // mcp.test is known to the CA's name service only, and the ports are not those of the internet.
    let config = gateway.path().join("tenantd.yaml").display().to_string();
    let (code, text) = certs(&["doctor", "--config", &config, "--host", "mcp.test"]);
    assert!(
        code == Some(1) && text.contains("ok  https://localhost") && text.contains("!!  mcp.test"),
        "{text}"
    );
}

#[tokio::test]
async fn html_and_resets_are_waited_out_and_a_pause_is_kept() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.fail(&[Fault::Html, Fault::Reset, Fault::RateLimited(3600)]);
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    until_trouble(&gateway, "mcp.test", "502").await;
    let found = until_trouble(&gateway, "mcp.test", "rateLimited").await;
    let next: jiff::Timestamp = found["next_attempt"].as_str().expect("a time").parse().expect("a time");
    let pause = next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3500..=3960).contains(&pause), "{pause} s");
    // The pause outlives the process.
    let gateway = gateway.kill_and_restart().await;
    let again = until_trouble(&gateway, "mcp.test", "rateLimited").await;
    assert_eq!(again["next_attempt"], found["next_attempt"]);
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test]
async fn the_next_authority_is_asked_where_the_first_wants_a_pause() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.fail(&[Fault::RateLimited(3600)]);
    let both = format!("[{}, {}]", front.directory(), pebble.directory());
    let _gateway = pebble.setup_asking(&both, "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified by the second", async || visitor.serial("mcp.test").await).await;
    assert!(front.has_failed());
}

#[tokio::test]
async fn a_ca_that_hangs_keeps_nobody_from_being_served() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.fail(&[Fault::Hang]);
    let setup = pebble.setup_asking(&front.directory(), "").flag("--host", "slow.test");
    let gateway = setup.start().await;
    let strange = Visitor::trusting_nobody(pebble.tls_port);
    assert!(strange.is_served("slow.test").await);
    until("the order hangs", async || front.has_failed().then_some(())).await;
    // Another name is not kept waiting.
    let backend = FakeBackend::start().await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with("hosts: [acme.test]").yaml());
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("the other name is certified", async || visitor.serial("acme.test").await).await;
    // The hanging exchange is given up, and the next one succeeds.
    let late = tokio::time::timeout(PATIENCE * 3, async {
        while visitor.serial("slow.test").await.is_none() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    late.await.expect("the order that hung is tried again");
}

#[tokio::test]
async fn renewals_say_what_they_replace_and_go_by_the_cas_window() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.suggest(-60, 3000);
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    // Ours would be the half of an hour with a twentieth; the CA's ends later.
    until("the CA's window is known", async || {
        let file =
            fs::read_dir(gateway.path().join("certs/sets")).ok()?.flatten().next()?.path().join("state.json");
        let state: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (!state["window"].is_null()).then_some(())
    })
    .await;
    renew(&gateway, "mcp.test").await;
    let orders = front.orders();
    assert_eq!(orders.len(), 2);
    assert!(orders[0].get("replaces").is_none() && orders[1]["replaces"].is_string(), "{orders:?}");
}

#[tokio::test]
async fn addresses_get_the_profile_that_is_for_them() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.offer(&["classic", "shortlived"]);
    let setup = pebble.setup_asking(&front.directory(), "acme_profile: unknown\n").flag("--host", "mcp.test");
    let _gateway = setup.flag("--host", "127.0.0.1").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("the address is certified", async || visitor.serial("127.0.0.1").await).await;
    until("the name is certified", async || visitor.serial("mcp.test").await).await;
    let of = |kind: &str| front.orders().into_iter().find(|order| order["identifiers"][0]["type"] == kind);
    assert_eq!(of("ip").expect("ordered")["profile"], "shortlived");
    assert_eq!(of("dns").expect("ordered").get("profile"), None, "a profile that the CA doesn't have");
}

#[tokio::test]
async fn a_chain_that_is_a_lie_is_not_served() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let good = until("it is certified", async || visitor.serial("mcp.test").await).await;
    for (lie, words) in [(Lie::Stale, "not the certificate's"), (Lie::Truncated, "chain does not hold")] {
        front.lie(Some(lie));
        let (status, text) = post(&gateway, "/-/renew/mcp.test").await;
        assert!(status == 409 && text.contains(words), "{lie:?}: {text}");
        assert_eq!(visitor.serial("mcp.test").await, Some(good.clone()), "{lie:?} was served");
    }
    front.lie(None);
    renew(&gateway, "mcp.test").await;
}

#[tokio::test]
async fn an_account_that_the_ca_has_lost_is_opened_again() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.fail(&[Fault::NoAccount]);
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    let accounts =
        fs::read_dir(gateway.path().join("certs/accounts")).expect("a folder").flatten().next().expect("one");
    let aside = fs::read_dir(accounts.path()).expect("a folder").flatten();
    assert_eq!(aside.filter(|it| it.file_name().to_string_lossy().contains(".bad-")).count(), 1);
}
