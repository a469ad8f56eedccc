//! SIGHUP: settings that change while the gateway runs, and those that wait for a restart.

mod connections;
mod every_setting;
mod memory;
mod rates;

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::service_manager::ServiceManager;
use super::harness::{FakeBackend, Gateway, Setup, Tenant, until};

/// Writes the settings anew and sends SIGHUP.
fn change(gateway: &Gateway, settings: &str) {
    fs::write(gateway.path().join("tenantd.yaml"), settings).expect("written");
    gateway.signal("HUP");
}

async fn readiness(gateway: &Gateway) -> (u16, Value) {
    let (status, text) = gateway.admin("/readyz").await;
    (status, serde_json::from_str(&text).expect("JSON"))
}

async fn serving(settings: &str) -> Gateway {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().without("--host").settings(settings);
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    gateway
}

/// Returns the status of the tenant's page under a Host and with a header.
async fn page(gateway: &Gateway, host: &str, forwarded_for: Option<&str>) -> u16 {
    let client = gateway.client_with(|builder| builder.http1_only());
    let request = client.request(reqwest::Method::GET, "/a/").header("host", host);
    let request =
        forwarded_for.into_iter().fold(request, |request, it| request.header("x-forwarded-for", it));
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn hosts_and_trusted_proxies_change_without_a_restart() {
    let gateway = serving("host: [localhost]\n").await;
    let port = gateway.address().port();
    let other = format!("other.test:{port}");
    assert_eq!(page(&gateway, &other, None).await, 421);
    change(&gateway, "host: [localhost, other.test]\n");
    until("the new host is served", async || (page(&gateway, &other, None).await == 200).then_some(())).await;
    until("it has a certificate", async || {
        gateway.admin("/api/certs").await.1.contains("other.test").then_some(())
    })
    .await;
    assert!(gateway.admin("/api/gateway").await.1.contains("other.test"));
    let extra = format!("extra.test:{port}");
    assert_eq!(page(&gateway, &extra, None).await, 421);
    change(&gateway, "host: [localhost, other.test]\nextra_host: [extra.test]\n");
    until("the further host is answered", async || (page(&gateway, &extra, None).await == 200).then_some(()))
        .await;

    let (own, stranger) = (format!("localhost:{port}"), Some("198.51.100.7"));
    assert_eq!(page(&gateway, &own, stranger).await, 200, "nobody's word counts, so the peer calls");
    let path = Some("198.51.100.7, 10.0.0.1");
    change(&gateway, "host: [localhost]\ntrusted_proxies: [127.0.0.0/8]\ntrusted_proxy_hops: 2\n");
    until("two proxies are counted", async || (page(&gateway, &own, path).await == 403).then_some(())).await;
    change(&gateway, "host: [localhost]\ntrusted_proxies: [127.0.0.0/8]\ntrusted_proxy_hops: 1\n");
    until("one proxy is counted", async || (page(&gateway, &own, path).await == 200).then_some(())).await;
    change(&gateway, "host: [localhost]\n");
    until("nobody's word counts again", async || (page(&gateway, &own, stranger).await == 200).then_some(()))
        .await;
    let before = gateway.client_with(|builder| builder.http1_only());
    assert_eq!(before.get("/a/").await.status, 200);
    change(&gateway, "host: [localhost]\ntrusted_proxies: [127.0.0.0/8]\ntrusted_proxy_hops: 1\n");
    until("the proxy's word counts", async || (page(&gateway, &own, stranger).await == 403).then_some(()))
        .await;
    assert_eq!(page(&gateway, &other, None).await, 421, "the host is gone again");
    let relayed = before.with("x-forwarded-for", "198.51.100.7");
    until("an earlier connection has ended", async || (relayed.get("/a/").await.status == 403).then_some(()))
        .await;
    change(&gateway, "host: [localhost]\n");
    until("the proxy's word no longer counts", async || {
        (relayed.get("/a/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn limits_and_the_log_filter_change_without_a_restart() {
    let gateway = serving("log_filter: info\n").await;
    assert_eq!(gateway.client().get("/a/").await.status, 200);
    assert!(gateway.steps("a").is_empty(), "requests are not logged yet");
    change(&gateway, "log_filter: [info, 'tenantd::server=debug']\nlimits:\n  connections_per_ip: 2\n");
    until("requests are logged", async || {
        gateway.client().get("/a/").await;
        (!gateway.steps("a").is_empty()).then_some(())
    })
    .await;
    let mut held = Vec::new();
    until("a connection too many is closed", async || {
        let connection = TcpStream::connect(gateway.address()).expect("connected");
        connection.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let read = std::io::Read::read(&mut &connection, &mut [0; 1]);
        held.push(connection);
        matches!(read, Ok(0)).then_some(())
    })
    .await;
    assert!(held.len() <= 3, "{} connections", held.len());
    drop(held);
    change(&gateway, "log_filter: warn\n");
    until("more connections are served again", async || {
        let connections: Vec<_> =
            (0..4).map(|_| TcpStream::connect(gateway.address()).expect("connected")).collect();
        let are_open = connections.iter().all(|connection| {
            connection.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
            std::io::Read::read(&mut &*connection, &mut [0; 1]).is_err()
        });
        are_open.then_some(())
    })
    .await;
}

#[tokio::test]
async fn settings_with_errors_change_nothing_and_others_wait_for_a_restart() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().settings("extra_host: [first.test]\n");
    let manager = ServiceManager::start(setup.path());
    let setup = setup.variable("NOTIFY_SOCKET", &manager.socket());
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    manager.has_heard("STATUS=1 tenant served").await;
    let first = format!("first.test:{}", gateway.address().port());

    change(&gateway, "extra_host: [second.test]\nextra_hots: [third.test]\n");
    manager.until_told("STATUS=1 tenant served; changed settings have errors and are not in force").await;
    let (status, detail) = readiness(&gateway).await;
    assert_eq!(status, 200, "those in force are good");
    let refusal = detail["settings"]["refusal"].as_str().expect("a text");
    assert!(refusal.contains("extra_hots") && refusal.contains("tenantd.yaml:2"), "{refusal}");
    assert!(gateway.output().contains("those in force stay"));
    assert_eq!(page(&gateway, &first, None).await, 200);

    let ready = manager.count("READY=1");
    change(&gateway, "extra_host: [first.test]\naudit_files: 3\nhsts: 1d\n");
    let waiting = "STATUS=1 tenant served; audit_files, hsts wait for a restart";
    manager.until_told(waiting).await;
    let settings = readiness(&gateway).await.1["settings"].clone();
    assert_eq!(settings, json!({ "waiting": ["audit_files", "hsts"], "refusal": null }));
    assert!(gateway.output().contains("changed settings wait for a restart"));
    let shown: Value = serde_json::from_str(&gateway.admin("/api/settings").await.1).expect("JSON");
    assert_eq!(shown["waiting"], json!(["audit_files", "hsts"]), "{shown}");
    let is_live = |name: &str| shown["live"].as_array().is_some_and(|live| live.contains(&json!(name)));
    assert!(is_live("extra_host") && is_live("audit_sinks") && shown["refusal"].is_null(), "{shown}");
    until("reloading has ended", async || (manager.count("READY=1") > ready).then_some(())).await;
    let told = manager.told();
    assert!(told.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{told:?}");
    assert!(manager.count("RELOADING=1") == 2, "{told:?}");

    change(&gateway, "extra_host: [first.test]\n");
    manager.until_told("STATUS=1 tenant served").await;
}
