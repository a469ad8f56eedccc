//! The audit, as operators read it: `GET /api/audit` and `tenantd audit`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::gateway::BINARY;
use crate::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};

async fn orders(gateway: &Gateway, query: &str) -> Vec<String> {
    let (status, text) = gateway.admin(&format!("/api/audit?event=order{query}")).await;
    assert_eq!(status, 200, "{text}");
    let page: Value = serde_json::from_str(&text).expect("JSON");
    let lines = page["lines"].as_array().expect("a list").iter();
    lines.map(|line| line["order"].as_str().expect("an order").to_owned()).collect()
}

fn audit(gateway: &Gateway, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("audit").args(args).arg("--admin").arg(gateway.admin_address().to_string());
    command.env_clear().current_dir(gateway.path());
    command
}

#[tokio::test]
async fn the_audit_is_read_newest_first_with_filters() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.client().search(Era::Modern, "/a", "q").await.data();
    for order in ["pause", "resume"] {
        let output = super::state::tenants(&gateway, &[order, "a"]);
        assert_eq!(output.status.code(), Some(0), "{order}");
    }
    until("both are written", async || (orders(&gateway, "").await.len() == 2).then_some(())).await;
    assert_eq!(orders(&gateway, "").await, ["resume", "pause"]);
    assert_eq!(orders(&gateway, "&limit=1").await, ["resume"]);
    assert_eq!(orders(&gateway, "&tenant=other").await, [] as [String; 0]);
    assert_eq!(gateway.admin("/api/audit?since=soon").await.0, 400);
    let output = audit(&gateway, &["--tool", "search", "--format", "json"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let line: Value = serde_json::from_str(text.trim()).expect("one line");
    assert_eq!((&line["event"], &line["outcome"]), (&"call".into(), &"ok".into()), "{line}");
    assert_eq!((&line["client"], &line["client_addr"]), (&"test".into(), &"127.0.0.1".into()), "{line}");
    assert_eq!(line["at"].as_str().map(str::len), Some("2026-11-25T09:00:00.000Z".len()), "{line}");
    let output = audit(&gateway, &["--event", "order", "--since", "1h"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (first, last) = (text.lines().next().expect("a line"), text.lines().last().expect("a line"));
    assert!(first.contains("pause") && last.contains("resume"), "{text}");
}

#[tokio::test]
async fn a_follower_prints_what_comes() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let mut child = audit(&gateway, &["--event", "order", "--follow", "--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut expected = Vec::new();
    for round in 0..6 {
        for order in ["pause", "resume"] {
            let output = super::state::tenants(&gateway, &[order, "a"]);
            assert_eq!(output.status.code(), Some(0), "{order} {round}");
            expected.push(order);
        }
    }
    let mut found = Vec::new();
    while found.len() < expected.len() {
        let line = tokio::time::timeout(crate::harness::PATIENCE, told.recv()).await;
        let line = line.expect("in time").expect("it goes on");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        found.push(line["order"].as_str().expect("an order").to_owned());
    }
    assert_eq!(found, expected);
    child.kill().expect("it runs");
    child.wait().expect("ended");
}
