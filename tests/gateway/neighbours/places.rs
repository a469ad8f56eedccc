//! `backend_only`: no tenant's backend is outside of what the operator's settings list.

use serde_json::json;

use crate::harness::portal::Proxy;
use crate::harness::{Beside, Era, FakeBackend, Setup, Tenant};

#[tokio::test]
async fn a_zip_leads_nowhere_that_the_settings_do_not_list() {
    let backend = FakeBackend::start().await;
    let inner = FakeBackend::start_at("127.0.0.2:0".parse().expect("an address")).await;
    let gateway = Setup::new()
        .flag("--backend-only", "127.0.0.1")
        .file("b.zip", Tenant::new("b", &backend).zip())
        .file("named.zip", Tenant::at("named", &backend.url("").replace("127.0.0.1", "localhost")).zip())
        .file("z.zip", Tenant::new("z", &inner).zip())
        .start()
        .await;
    let client = gateway.client();
    let beside = Beside::watch(client.clone(), "/b");
    let found = gateway.until_state("z", "rejected").await["findings"].to_string();
    for wanted in ["backend-unlisted", "127.0.0.2", "backend_only"] {
        assert!(found.contains(wanted), "no {wanted}: {found}");
    }
    assert_eq!(client.search(Era::Modern, "/z", "q").await.status, 404);
    let data = client.search(Era::Modern, "/named", "q").await.data();
    assert_eq!(data["row_count"], 2, "a name that leads into a listed network");
    beside.finish().await.assert_unharmed("b beside a zip that points elsewhere");
    assert_eq!(inner.counts().connections, 0);
}

#[tokio::test]
async fn a_name_is_judged_by_where_it_leads_and_no_proxy_is_asked_for_one_that_is_not_listed() {
    let (inner, portal) = (FakeBackend::start().await, FakeBackend::start().await);
    let proxy = Proxy::start(portal.address()).await;
    let local = inner.url("").replace("127.0.0.1", "localhost");
    let gateway = Setup::new()
        .settings("backend_only: [192.0.2.0/24, portal.test]\n")
        .file("local.yaml", Tenant::at("local", &local).yaml())
        .file("listed.yaml", Tenant::at("listed", "http://portal.test").yaml())
        .file("other.yaml", Tenant::at("other", "http://other.test").yaml())
        .variable("HTTP_PROXY", &format!("http://{}", proxy.address()))
        .start()
        .await;
    let client = gateway.client();
    assert_eq!(client.search(Era::Modern, "/listed", "q").await.data()["row_count"], json!(2));
    for prefix in ["/local", "/other"] {
        let sentence = client.search(Era::Modern, prefix, "q").await.tool_error();
        assert!(sentence.contains("address is not allowed here"), "{prefix}: {sentence}");
        assert!(sentence.contains("--backend-only"), "{prefix}: {sentence}");
    }
    assert_eq!(inner.counts().connections, 0);
    assert!(!proxy.asked().iter().any(|line| line.contains("other.test")), "{:?}", proxy.asked());
}
