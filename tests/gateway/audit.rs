//! The audit, as operators read it: `GET /api/audit` and `tenantd audit`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

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

/// Starts `tenantd audit --follow`. Returns it with the lines that it prints.
fn follow(gateway: &Gateway, args: &[&str]) -> (Child, UnboundedReceiver<String>) {
    let mut child = audit(gateway, &[args, &["--follow", "--format", "json"]].concat())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (sender, told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    (child, told)
}

/// Returns the ids in all audit files, oldest first, and how many files there are.
fn written_ids(gateway: &Gateway) -> (Vec<String>, usize) {
    let name = |number: usize| match number {
        0 => "state/audit.jsonl".to_owned(),
        _ => format!("state/audit.jsonl.{number}"),
    };
    let read = |number| std::fs::read_to_string(gateway.path().join(name(number))).ok();
    let mut texts: Vec<String> = (0..).map_while(read).collect();
    texts.reverse();
    let id =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().map(str::to_owned);
    let whole = texts.iter().flat_map(|text| text[..text.rfind('\n').unwrap_or(0)].lines());
    let mut ids: Vec<String> = whole.map(|line| id(line).expect("an id")).collect();
    // A file that was renamed meanwhile was read twice.
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    (ids, texts.len())
}

#[tokio::test]
async fn a_follower_prints_every_line_once_while_the_gateway_rotates_its_file() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().variable("TENANTD_AUDIT", "64KB");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let client = gateway.client();
    client.search(Era::Modern, "/a", "q").await.data();
    until("the first line is written", async || (written_ids(&gateway).0.len() == 1).then_some(())).await;
    let (mut child, mut told) = follow(&gateway, &["--limit", "1000"]);
    let mut printed = Vec::new();
    let mut next = async || {
        let line = tokio::time::timeout(crate::harness::PATIENCE, told.recv()).await;
        let line: Value = serde_json::from_str(&line.expect("in time").expect("it goes on")).expect("JSON");
        line["id"].as_str().expect("an id").to_owned()
    };
    printed.push(next().await);
    // It prints between the rotations, too.
    while written_ids(&gateway).1 < 3 {
        for _ in 0..40 {
            client.search(Era::Modern, "/a", "q").await.data();
        }
        let (written, _) = written_ids(&gateway);
        while printed.len() < written.len() {
            printed.push(next().await);
        }
    }
    let (written, _) = written_ids(&gateway);
    while printed.len() < written.len() {
        printed.push(next().await);
    }
    assert_eq!(printed[..written.len()], written);
    child.kill().expect("it runs");
    child.wait().expect("ended");
}

#[tokio::test]
async fn a_follower_prints_what_comes() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let (mut child, mut told) = follow(&gateway, &["--event", "order"]);
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
