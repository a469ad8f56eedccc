//! `testssl` against the gateway: protocols, cipher suites, known attacks and the certificate.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{Gateway, Setup};

/// It makes hundreds of connections, with pauses.
const PATIENCE: Duration = Duration::from_secs(400);
/// The severities of findings that are no problem.
const FINE: [&str; 2] = ["OK", "INFO"];
/// Findings that say nothing about the gateway, each by its id and the beginning of its text.
const NOT_OURS: [(&str, &str); 2] = [
    // A local CA publishes no revocations; operators can replace it.
    ("cert_revocation", ""),
    // The scanner closes its first TLS 1.3 connection at once. If the ticket comes later than that, it
    // offers an empty session. Unit tests of `server::tls` resume sessions.
    ("sessionresumption_ticket", "check failed because of connect problem"),
];

#[tokio::test]
async fn a_scanner_has_nothing_to_say_against_our_tls() {
    let gateway = Setup::new().variable("TENANTD_HSTS", "365d").start().await;
    let findings = scan(&gateway).await;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let grade = |id: &str| findings.iter().find(|it| it["id"] == id).map(|it| text(it, "severity"));
    assert_eq!(grade("TLS1_3").as_deref(), Some("OK"), "it has looked: {findings:#?}");
    let complaints: Vec<_> = findings
        .iter()
        .filter(|it| !FINE.contains(&text(it, "severity").as_str()))
        .filter(|it| {
            let is_it = |(id, begins): &(&str, &str)| {
                text(it, "id") == *id && text(it, "finding").starts_with(begins)
            };
            !NOT_OURS.iter().any(is_it)
        })
        .map(|it| format!("{} {}: {}", text(it, "severity"), text(it, "id"), text(it, "finding")))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Returns its findings, good and bad.
async fn scan(gateway: &Gateway) -> Vec<Value> {
    let report = gateway.path().join("scan.json");
    let ca = gateway.ca().expect("a local CA");
    let run = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--nodns=none", "--ip", "127.0.0.1"])
        .arg(format!("--add-ca={}", ca.display()))
        .arg(format!("--jsonfile={}", report.display()))
        .arg(gateway.base())
        .current_dir(gateway.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("it ends in time");
    let output = output.expect("testssl is installed (Debian: testssl.sh); scripts/test.sh installs it");
    let text = fs::read_to_string(&report);
    let text = text.unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stdout)));
    serde_json::from_str(&text).expect("a list of findings")
}
