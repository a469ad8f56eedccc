//! The admin listener: health, metrics, tenants, and who may reach it.

use reqwest::Method;

use super::command_line::printed;
use super::harness::gateway::BINARY;
use super::harness::{Era, FakeBackend, Reply, Setup, Tenant};

#[tokio::test]
async fn it_tells_health_tenants_and_counts() {
    let backend = FakeBackend::start().await;
    let setup =
        Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).file("bad.yaml", "search_url: [");
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    gateway.client().search(Era::Modern, "/a", "q").await.data();
    assert_eq!(gateway.admin("/healthz").await.0, 200);
    assert_eq!(gateway.admin("/readyz").await.0, 200);
    let (_, metrics) = gateway.admin("/metrics").await;
    for line in [
        "tenantd_tenants{state=\"serving\"} 1",
        "tenantd_tenants{state=\"rejected\"} 1",
        "tenantd_tool_calls_total{tenant=\"a\",outcome=\"ok\"} 1",
    ] {
        assert!(metrics.contains(line), "/metrics lacks {line}:\n{metrics}");
    }
    let (_, listed) = gateway.admin("/api/tenants").await;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(listed[0]["connector_url"], format!("{}/a/mcp", gateway.base()));
    let (_, page) = gateway.admin("/").await;
    assert!(page.contains("bad") && page.contains("rejected"), "{page}");
    assert_eq!(gateway.admin("/api/tenants/nobody").await.0, 404);
}

#[tokio::test]
async fn orders_of_operators_are_in_the_audit_with_who_gave_them() {
    let backend = FakeBackend::start().await;
    let mut gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    for (order, code) in
        [(&["pause", "a"][..], 0), (&["resume", "a"], 0), (&["accept", "a"], 1), (&["pause", "nobody"], 1)]
    {
        let output = super::state::tenants(&gateway, order);
        assert_eq!(output.status.code(), Some(code), "{order:?}: {}", printed(&output));
    }
    gateway.signal("TERM");
    gateway.until_ended().await;
    let audit = std::fs::read_to_string(gateway.path().join("state/audit.jsonl")).expect("an audit");
    let lines = audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let orders: Vec<_> = lines.filter(|line| line["event"] == "order").collect();
    let told: Vec<_> = orders
        .iter()
        .map(|line| ["tenant", "order", "outcome"].map(|field| line[field].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        told,
        [
            ["a", "pause", "ok"],
            ["a", "resume", "ok"],
            ["a", "accept", "refused"],
            ["nobody", "pause", "not_found"]
        ]
    );
    let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("this process"));
    assert!(orders.iter().all(|line| line["uid"] == own), "{orders:?}");
}

#[tokio::test]
async fn a_tenant_in_trouble_is_counted_as_it_is_listed_and_since_its_trouble_began() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let loaded = gateway.until_state("a", "serving").await;
    let fail = async || {
        backend.answer("/nlp-search", Reply::Status(500, serde_json::json!({})));
        gateway.client().search(Era::Modern, "/a", "q").await.tool_error();
        gateway.until_state("a", "degraded").await
    };
    let first = fail().await;
    let since = |status: &serde_json::Value| status["since"].as_str().map(str::to_owned);
    assert!(since(&first) > since(&loaded), "{loaded} {first}");
    assert_eq!(since(&fail().await), since(&first), "it is the same trouble");
    let (_, metrics) = gateway.admin("/metrics").await;
    for line in ["tenantd_tenants{state=\"degraded\"} 1", "tenantd_tenants{state=\"serving\"} 0"] {
        assert!(metrics.contains(line), "/metrics lacks {line}:\n{metrics}");
    }
    backend.answer("/nlp-search", Reply::Rows);
    gateway.client().search(Era::Modern, "/a", "q").await.data();
    let well = gateway.until_state("a", "serving").await;
    assert_eq!(since(&well), since(&loaded));
    assert!(gateway.admin("/metrics").await.1.contains("tenantd_tenants{state=\"serving\"} 1"));
}

#[tokio::test]
async fn a_copy_of_the_store_is_asked_of_the_gateway_that_is_named() {
    let gateway = Setup::new().start().await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let admin = gateway.admin_address().to_string();
    let mut command = std::process::Command::new(BINARY);
    command.args(["store", "backup", "copy.db", "--admin", &admin]).env_clear().current_dir(elsewhere.path());
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert!(elsewhere.path().join("copy.db").is_file());
    assert!(!elsewhere.path().join("state").exists());
}

#[tokio::test]
async fn a_removed_tenant_leaves_no_series_behind() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.client().search(Era::Modern, "/a", "q").await.data();
    gateway.remove("a.yaml");
    gateway.until_gone("a").await;
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(!metrics.contains("tenant=\"a\""), "{metrics}");
}

#[tokio::test]
async fn it_is_not_reached_from_the_public_side_or_by_web_pages() {
    let gateway = Setup::new().start().await;
    for path in ["/metrics", "/api/tenants", "/healthz", "/readyz"] {
        assert_eq!(gateway.client().get(path).await.status, 404, "{path}");
    }
    let base = format!("http://{}", gateway.admin_address());
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let rebound = http.get(format!("{base}/api/tenants")).header("host", "evil.example").send().await;
    assert_eq!(rebound.expect("an answer").status(), 421);
    let page = http.post(format!("{base}/-/reload")).header("origin", "https://evil.example").send().await;
    assert_eq!(page.expect("an answer").status(), 403);
    let odd = http.request(Method::PATCH, format!("{base}/api/tenants/a")).send().await;
    assert_eq!(odd.expect("an answer").status(), 405);
}

#[tokio::test]
async fn changes_are_taken_from_this_machine_only() {
    let backend = FakeBackend::start().await;
    let setup =
        Setup::new().instead("--admin", "0.0.0.0:0").file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    // Connecting a UDP socket sends nothing: it only selects the local address.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let outside = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Some(ip) = outside.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback()) else {
        return eprintln!("skipped: this machine has no other address than loopback");
    };
    let port = gateway.admin_address().port();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    for (method, path) in [
        (Method::POST, "/api/tenants/a/pause"),
        (Method::POST, "/-/reload"),
        (Method::DELETE, "/api/tenants/a"),
    ] {
        let far = http.request(method.clone(), format!("http://{ip}:{port}{path}")).send().await;
        assert_eq!(far.expect("an answer").status(), 403, "{method} {path}");
    }
    assert_eq!(gateway.status("a").await.expect("there")["state"], "serving");
    let near = http.post(format!("http://127.0.0.1:{port}/api/tenants/a/pause")).send().await;
    assert_eq!(near.expect("an answer").status(), 200);
    let page = http
        .post(format!("http://127.0.0.1:{port}/api/tenants/a/resume"))
        .header("origin", "https://evil.example");
    assert_eq!(page.send().await.expect("an answer").status(), 403);
}
