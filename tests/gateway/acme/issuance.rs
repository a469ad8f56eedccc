//! Issuance: names and addresses, both challenge types, and various CA policies.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tenantd::base::clock::{Clock, SystemClock};

use super::front::Front;
use super::pebble::{self, Options, Pebble};
use super::visitor::Visitor;
use super::{renew, status, until_trouble};
use crate::harness::{FakeBackend, Gateway, Tenant, until};

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
async fn http_01_takes_over_where_the_ca_does_not_get_through_to_tls() {
    let options = Options { wrong_tls_port: true, ..Options::default() };
    let pebble = Pebble::start(options).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, gateway_port(&gateway));
    until("it is certified all the same", async || visitor.serial("mcp.test").await).await;
    let found = status(&gateway, "mcp.test").await.expect("a status");
    assert_eq!(found["challenge"], "http-01");
    // The challenge type that succeeded is remembered.
    let orders = pebble.orders();
    renew(&gateway, "mcp.test").await;
    assert_eq!(pebble.orders(), orders + 1);

    // Port 80 serves challenges and redirects only, and only for the gateway's hosts.
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

    // With base64 padding, as some CAs show the key.
    fs::write(&key, format!("{}=\n", pebble::EAB_KEY)).expect("written");
    let _right = pebble.setup(&with_key).flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&roots, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
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

    // The certs folder belongs to one gateway.
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
async fn addresses_of_both_families_are_certified_in_both_ways() {
    for wrong_tls_port in [false, true] {
        let pebble = Pebble::start(Options { wrong_tls_port, ..Options::default() }).await;
        let lines = format!("listen_http: ['127.0.0.1:{0}', '[::1]:{0}']\n", pebble.http_port);
        let setup = pebble.setup_without_plain(&lines).flag("--host", "127.0.0.1").flag("--host", "[::1]");
        let port = if wrong_tls_port { 0 } else { pebble.tls_port };
        let gateway = setup.flag("--listen", &format!("[::1]:{port}")).start().await;
        for name in ["127.0.0.1", "::1"] {
            let found = until(&format!("{name} is certified"), async || {
                status(&gateway, name).await.filter(|status| status["state"] == "valid")
            })
            .await;
            let way = if wrong_tls_port { "http-01" } else { "tls-alpn-01" };
            assert_eq!(found["challenge"], way, "{name}");
        }
        // A client that connects to an address sends no SNI, and gets that address's certificate.
        let roots = pebble.roots().await;
        for (at, address) in gateway.addresses().into_iter().enumerate() {
            let visitor = Visitor::trusting(&roots, address.port());
            assert!(visitor.serial_at(address.ip()).await.is_some(), "listener {at}");
        }
    }
}

#[tokio::test]
async fn a_tenants_host_that_is_gone_is_renewed_no_more() {
    let pebble = Pebble::start(Options { validity_seconds: 12, ..Options::default() }).await;
    let backend = FakeBackend::start().await;
    let gateway = pebble.setup("").flag("--host", "steady.test").start().await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with("hosts: [acme.test]").yaml());
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let dropped = SystemClock.monotonic();
    until("its host is certified", async || visitor.serial("acme.test").await).await;
    assert!(dropped.elapsed().as_secs() < 10, "it took {:?}", dropped.elapsed());
    renewed(&visitor, "acme.test").await;
    gateway.remove("a.yaml");
    until("it is no longer wanted", async || status(&gateway, "acme.test").await.is_none().then_some(()))
        .await;
    // An order in progress may finish before the other name is renewed. Afterwards only that name is
    // ordered, each time that the host that is gone would be due as well.
    renewed(&visitor, "steady.test").await;
    let orders = pebble.orders();
    for renewals in 1..=2 {
        renewed(&visitor, "steady.test").await;
        assert_eq!(pebble.orders(), orders + renewals);
    }
}

/// Waits until another certificate is served for a name.
async fn renewed(visitor: &Visitor, name: &str) {
    let before = until(&format!("{name} is certified"), async || visitor.serial(name).await).await;
    let another = async || visitor.serial(name).await.filter(|serial| *serial != before);
    until(&format!("{name} is renewed"), another).await;
}

#[tokio::test]
async fn names_that_are_wanted_at_once_share_one_account() {
    let pebble = Pebble::start(Options::default()).await;
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    let setup = names.iter().fold(pebble.setup(""), |setup, name| setup.flag("--host", name));
    let _gateway = setup.start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    for name in names {
        until(&format!("{name} is certified"), async || visitor.serial(name).await).await;
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (6, 1));
}

fn gateway_port(gateway: &Gateway) -> u16 {
    gateway.address().port()
}
