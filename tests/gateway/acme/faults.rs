//! CAs that are dead, hang, lie or limit rates, and a gateway that crashes.

use std::fs;

use super::front::{Fault, Front, Lie};
use super::pebble::{Options, Pebble};
use super::visitor::Visitor;
use super::{post, renew, status, until_trouble};
use crate::harness::{FakeBackend, PATIENCE, Tenant, until, until_within};

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
    // The CA loses its memory again, and with it our account.
    pebble.kill();
    pebble.start_again().await;
    renew(&gateway, "mcp.test").await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    assert!(visitor.serial("mcp.test").await.is_some(), "the new certificate is not served");
}

#[tokio::test]
async fn browsers_are_told_to_stay_only_where_somebody_vouches_for_the_certificate() {
    let mut pebble = Pebble::start(Options::default()).await;
    pebble.kill();
    let gateway = pebble.setup("hsts: 1d\n").flag("--host", "mcp.test").start().await;
    let told = async || {
        let client = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .resolve("mcp.test", gateway.address())
            .build()
            .expect("a client");
        let url = format!("https://mcp.test:{}/nothing", gateway.address().port());
        let answer = client.get(url).send().await.expect("an answer");
        answer.headers().contains_key("strict-transport-security")
    };
    assert!(!told().await, "the certificate is nobody's");
    pebble.start_again().await;
    until("it is certified, and browsers are told", async || told().await.then_some(())).await;
}

#[tokio::test]
async fn nonces_refused_cost_neither_orders_nor_patience() {
    for bad_nonces in [5, 30, 60] {
        let pebble = Pebble::start(Options { bad_nonces, ..Options::default() }).await;
        let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
        let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
        until("it is certified", async || visitor.serial("mcp.test").await).await;
        for _ in 0..5 {
            renew(&gateway, "mcp.test").await;
        }
        assert_eq!(pebble.orders(), 6, "{bad_nonces} % cost orders");
    }
}

#[tokio::test]
async fn a_ca_that_dies_in_the_middle_of_an_order_is_asked_again_when_it_is_back() {
    let mut pebble = Pebble::start(Options { slow_validation: true, ..Options::default() }).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    until("an order is under way", async || (pebble.orders() == 1).then_some(())).await;
    pebble.kill();
    until_trouble(&gateway, "mcp.test", "cannot be reached").await;
    assert!(Visitor::trusting_nobody(pebble.tls_port).is_served("mcp.test").await);
    // The CA restarts without memory of the order or our account, and validates fast now.
    pebble.options.slow_validation = false;
    pebble.start_again().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("it is certified", async || visitor.serial("mcp.test").await).await;
    assert_eq!(pebble.orders(), 2, "more than one order was lost");
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_set_aside_and_orders_nothing() {
    let pebble = Pebble::start(Options::default()).await;
    let mut gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let serial = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let sets = fs::read_dir(gateway.path().join("certs/sets")).expect("a folder");
    let state = sets.flatten().next().expect("a set").path().join("state.json");
    let huge = vec![b'['; 2 << 20];
    for garbage in [&b"{\"renew_at\": \"20"[..], b"\x00\xff", b"{\"failures\": {}}", b"", &huge] {
        gateway = gateway.killed();
        fs::write(&state, garbage).expect("written");
        gateway = gateway.start_again().await;
        assert_eq!(visitor.serial("mcp.test").await.as_ref(), Some(&serial), "it is not served");
    }
    until("the gateway has looked", async || {
        status(&gateway, "mcp.test").await.filter(|it| it["state"] == "valid")
    })
    .await;
    assert_eq!(pebble.orders(), 1);
    assert!(gateway.output().contains("state.json.bad-"));
}

#[tokio::test]
async fn html_and_resets_are_waited_out_and_a_pause_is_kept() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    front.fail(&[Fault::Html, Fault::Reset, Fault::RateLimited(7200)]);
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    until_trouble(&gateway, "mcp.test", "502").await;
    let found = until_trouble(&gateway, "mcp.test", "rateLimited").await;
    let next: jiff::Timestamp = found["next_attempt"].as_str().expect("a time").parse().expect("a time");
    let pause = next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((7100..=7920).contains(&pause), "{pause} s");
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
    // Another name is not delayed.
    let backend = FakeBackend::start().await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with("hosts: [acme.test]").yaml());
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    until("the other name is certified", async || visitor.serial("acme.test").await).await;
    // The hanging exchange times out, and the next one succeeds.
    let what = "the order that hung is tried again";
    until_within(PATIENCE * 3, what, async || visitor.serial("slow.test").await).await;
}

#[tokio::test]
async fn a_chain_that_is_a_lie_is_not_served() {
    let pebble = Pebble::start(Options::default()).await;
    let front = Front::before(&pebble).await;
    let gateway = pebble.setup_asking(&front.directory(), "").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let good = until("it is certified", async || visitor.serial("mcp.test").await).await;
    for (lie, words) in
        [(Lie::Stale, "does not belong to the certificate"), (Lie::Truncated, "chain is not valid")]
    {
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

#[tokio::test]
async fn a_crash_loop_places_no_more_orders_than_the_cap() {
    // Validations are slow enough to kill the gateway during one.
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
async fn a_name_that_leads_elsewhere_is_proved_at_staging_before_the_next_order() {
    let pebble = Pebble::start(Options::default()).await;
    let (production, staging) = (Front::before(&pebble).await, Front::before(&pebble).await);
    let lines = format!("acme_staging: {}\n", staging.directory());
    pebble.lead("mcp.test", "127.0.0.9").await;
    let setup = pebble.setup_asking(&production.directory(), &lines).flag("--host", "mcp.test");
    let gateway = setup.start().await;
    until_trouble(&gateway, "mcp.test", "could not validate mcp.test").await;
    assert_eq!((production.orders().len(), staging.orders().len()), (2, 0), "one order for each way");

    // From now on the order is tried at staging first, also on an operator's request and after a
    // restart.
    let (_, said) = post(&gateway, "/-/renew/mcp.test").await;
    assert!(said.contains("staging could not validate") && said.contains("nothing is ordered"), "{said}");
    let gateway = gateway.kill_and_restart().await;
    post(&gateway, "/-/renew/mcp.test").await;
    assert_eq!((production.orders().len(), staging.orders().len()), (2, 4));

    // A certificate from staging is not served; the production certificate ordered next is.
    pebble.lead_back("mcp.test").await;
    renew(&gateway, "mcp.test").await;
    assert_eq!((production.orders().len(), staging.orders().len()), (3, 5));
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    assert_eq!(visitor.serial("mcp.test").await, production.serial(), "what is served is not production's");
    renew(&gateway, "mcp.test").await;
    assert_eq!((production.orders().len(), staging.orders().len()), (4, 5), "it is proved already");
}

#[tokio::test]
async fn staging_that_is_out_of_order_keeps_nobody_from_a_certificate() {
    let pebble = Pebble::start(Options::default()).await;
    let staging = Front::before(&pebble).await;
    let lines = format!("acme_staging: {}\n", staging.directory());
    pebble.lead("mcp.test", "127.0.0.9").await;
    let gateway = pebble.setup(&lines).flag("--host", "mcp.test").start().await;
    until_trouble(&gateway, "mcp.test", "could not validate mcp.test").await;
    pebble.lead_back("mcp.test").await;
    staging.fail(&[Fault::Html]);
    renew(&gateway, "mcp.test").await;
    assert!(staging.has_failed() && gateway.output().contains("staging gives no result"));
}
