//! Files are added, changed and deleted while the gateway serves.

use std::fs;

use super::harness::{Era, FakeBackend, PATIENCE, Reply, Setup, Tenant, until, until_within};

#[tokio::test]
async fn a_dropped_file_is_served_and_a_deleted_one_is_not() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let client = gateway.client();
    assert_eq!(client.get("/acme/").await.status, 404);
    gateway.put("acme.zip", Tenant::new("acme", &backend).zip());
    gateway.until_state("acme", "serving").await;
    assert_eq!(client.search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    gateway.remove("acme.zip");
    gateway.until_gone("acme").await;
    let answer = client.search(Era::Modern, "/acme", "q").await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.json()["error"]["message"].to_string().contains("nothing is served"), "{answer:?}");
    until("the receipt is gone", async || (!gateway.tenant_file("acme.status.json").exists()).then_some(()))
        .await;
}

#[tokio::test]
async fn a_slowly_written_zip_is_served_once_it_is_whole() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let bytes = Tenant::new("acme", &backend).zip();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    fs::write(gateway.tenant_file("acme.zip"), first).expect("written");
    // A pause in the writing is long enough that the half counts as settled.
    gateway.until_state("acme", "rejected").await;
    fs::write(gateway.tenant_file("acme.zip"), [first, rest].concat()).expect("written");
    gateway.until_state("acme", "serving").await;
}

#[tokio::test]
async fn a_change_is_taken_over_and_a_bad_one_leaves_the_last_good_revision() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.yaml", Tenant::new("acme", &backend).yaml()).start().await;
    let client = gateway.client();
    let page = async || client.get("/acme/").await.text;
    gateway.put("acme.yaml", Tenant::new("acme", &backend).with("description: Second edition").yaml());
    until("the page shows the change", async || page().await.contains("Second edition").then_some(())).await;
    gateway.put("acme.yaml", Tenant::new("acme", &backend).with("path_prefix: ../etc").yaml());
    let status = gateway.until_state("acme", "stale").await;
    assert!(status["findings"].to_string().contains("path_prefix"), "{status}");
    assert_eq!(client.search(Era::Legacy, "/acme", "q").await.data()["row_count"], 2);
    assert!(page().await.contains("Second edition"));
}

#[tokio::test]
async fn a_receipt_lies_beside_the_file() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("bad.zip", b"not a zip").start().await;
    gateway.put("acme.zip", Tenant::new("acme", &backend).zip());
    gateway.until_state("acme", "serving").await;
    let receipt = |name: &str| {
        let text = fs::read(gateway.tenant_file(&format!("{name}.status.json"))).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    };
    let good =
        until("acme has a receipt", async || receipt("acme").filter(|it| it["state"] == "serving")).await;
    assert_eq!(good["connector_url"], format!("{}/acme/mcp", gateway.base()));
    let bad = until("bad has a receipt", async || receipt("bad")).await;
    assert_eq!(bad["state"], "rejected");
    assert!(bad["findings"][0]["help"].is_string(), "{bad}");
}

#[tokio::test]
async fn polling_sees_what_events_do_not() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().flag("--watch", "poll").start().await;
    gateway.put("acme.zip", Tenant::new("acme", &backend).zip());
    gateway.until_state("acme", "serving").await;
    gateway.remove("acme.zip");
    gateway.until_gone("acme").await;
}

#[tokio::test]
async fn a_reload_by_request_or_signal_has_looked_at_everything() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().flag("--watch", "poll").start().await;
    gateway.put("acme.zip", Tenant::new("acme", &backend).zip());
    let url = format!("http://{}/-/reload", gateway.admin_address());
    let answer = reqwest::Client::new().post(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(gateway.status("acme").await.is_some());
    gateway.put("beta.zip", Tenant::new("beta", &backend).zip());
    gateway.signal("HUP");
    gateway.until_state("beta", "serving").await;
}

#[tokio::test]
async fn ten_thousand_tenants_are_dropped_at_once() {
    const MANY: usize = 10_000;
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    for number in 0..MANY {
        let name = format!("t{number}");
        fs::write(gateway.tenant_file(&format!("{name}.yaml")), Tenant::new(&name, &backend).yaml())
            .expect("written");
    }
    let line = format!("tenantd_tenants{{state=\"serving\"}} {MANY}");
    let all_serve = async || gateway.admin("/metrics").await.1.contains(&line).then_some(());
    until_within(4 * PATIENCE, "all serve", all_serve).await;
    for name in ["t0", "t5000", "t9999"] {
        assert_eq!(
            gateway.client().search(Era::Modern, &format!("/{name}"), "q").await.data()["row_count"],
            2
        );
    }
}

#[tokio::test]
async fn a_call_under_way_outlives_its_tenants_file() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).start().await;
    gateway.until_state("acme", "serving").await;
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = gateway.client();
    let call = async { client.search(Era::Modern, "/acme", "q").await.data() };
    let meanwhile = async {
        backend.until(|counts| counts.in_flight == 1).await;
        gateway.remove("acme.zip");
        gateway.until_gone("acme").await;
        backend.release();
    };
    let (data, ()) = tokio::join!(call, meanwhile);
    assert_eq!(data["row_count"], 2);
}
