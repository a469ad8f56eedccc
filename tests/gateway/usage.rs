//! How much tenants are used: traffic.

use serde_json::Value;

use super::harness::{Era, FakeBackend, Reply, Setup, Tenant};

async fn traffic(gateway: &super::harness::Gateway, path: &str) -> Value {
    let (status, report) = gateway.admin(path).await;
    assert_eq!(status, 200, "{report}");
    serde_json::from_str(&report).expect("JSON")
}

/// Returns the sum of a figure over all hours.
fn total(report: &Value, figure: &str) -> u64 {
    let hours = report["hours"].as_array().expect("hours");
    assert_eq!(hours.len(), 24, "{report}");
    hours.iter().map(|hour| hour[figure].as_u64().expect("a number")).sum()
}

#[tokio::test]
async fn the_traffic_of_a_day_is_told_for_each_tenant_and_for_the_gateway() {
    let backend = FakeBackend::start().await;
    let tenant = Tenant::new("a", &backend).with("limits:\n  requests_per_minute: 4");
    let setup = Setup::new().file("a.yaml", tenant.yaml());
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    let client = gateway.client();
    client.search(Era::Modern, "/a", "q").await.data();
    client.search(Era::Modern, "/a", "q").await.data();
    client.search(Era::Modern, "/b", "q").await.data();
    backend.answer("/nlp-search", Reply::Status(500, serde_json::json!({})));
    client.search(Era::Modern, "/a", "q").await.tool_error();
    while client.search(Era::Modern, "/a", "q").await.status != 429 {}
    let (a, all) =
        (traffic(&gateway, "/api/tenants/a/traffic").await, traffic(&gateway, "/api/traffic").await);
    assert!(total(&a, "calls") >= 3 && total(&a, "errors") >= 1, "{a}");
    assert_eq!((total(&a, "refused"), total(&all, "refused")), (1, 1));
    assert_eq!(total(&all, "calls"), total(&a, "calls") + 1, "b's call is among all");
    assert!(total(&a, "bytes") > 0 && a["in_flight"] == 0, "{a}");
    let hours = a["hours"].as_array().expect("hours");
    let busy = hours.iter().rfind(|hour| hour["calls"] != 0).expect("an hour with calls");
    assert!(busy["p95_ms"].as_u64() >= busy["p50_ms"].as_u64() && busy["p50_ms"] != Value::Null, "{busy}");
    assert_eq!(gateway.admin("/api/tenants/nobody/traffic").await.0, 404);
}
