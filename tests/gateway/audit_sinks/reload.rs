//! Sinks that change at SIGHUP.

use std::fs;

use super::super::harness::{Gateway, Reply, Setup, Tenant};
use super::*;

fn sink(name: &str, receiver: &FakeBackend) -> String {
    format!("  - {{name: {name}, http: '{}'}}\n", receiver.url("/audit"))
}

fn sinks(all: &[String]) -> String {
    format!("audit_sinks:\n{}", all.concat())
}

fn change(gateway: &Gateway, settings: &str) {
    fs::write(gateway.path().join("tenantd.yaml"), settings).expect("written");
    gateway.signal("HUP");
}

/// Waits until the log says so many times that changed settings are in force.
async fn until_in_force(gateway: &Gateway, times: usize) {
    let is_said = async || {
        let said = gateway.output().matches("changed settings are in force").count();
        (said >= times).then_some(())
    };
    until("the settings are in force", is_said).await;
}

/// Waits until a receiver has lines, and returns their ids in the order in which they came.
async fn until_received(receiver: &FakeBackend, count: usize) -> Vec<String> {
    let received = async || {
        let lines = posted_lines(receiver, 0);
        (lines.len() >= count).then(|| lines.iter().map(|line| line["id"].to_string()).collect())
    };
    until_within(PATIENCE, "lines arrive", received).await
}

async fn receiver() -> FakeBackend {
    let receiver = FakeBackend::start().await;
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    receiver
}

/// The ids in the audit file.
fn written(gateway: &Gateway) -> Vec<String> {
    written_lines(gateway).iter().map(|line| line["id"].to_string()).collect()
}

#[tokio::test]
async fn another_receiver_gets_what_the_one_before_did_not_take_and_nothing_else() {
    let backend = FakeBackend::start().await;
    let (first, second, third) = (receiver().await, receiver().await, receiver().await);
    let setup = Setup::new().settings(&sinks(&[sink("lake", &first)]));
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    pause_and_resume(&gateway);
    let taken = until_received(&first, 2).await;
    first.answer("/audit", Reply::HangInHeaders);
    pause_and_resume(&gateway);
    let hangs = async || (first.requests().len() > 1).then_some(());
    until_within(PATIENCE, "the first receiver hangs", hangs).await;
    pause_and_resume(&gateway);

    change(&gateway, &sinks(&[sink("lake", &second)]));
    let by_second = until_received(&second, 4).await;
    assert_eq!([taken.as_slice(), &by_second].concat(), written(&gateway), "all lines, and none twice");
    // One that takes everything is replaced while lines are on their way.
    pause_and_resume(&gateway);
    change(&gateway, &sinks(&[sink("lake", &third)]));
    until_in_force(&gateway, 2).await;
    pause_and_resume(&gateway);
    let arrive = async || {
        let all = [&first, &second, &third].map(|receiver| posted_lines(receiver, 0));
        let third_has_the_last = all[2].iter().any(|line| Some(line) == written_lines(&gateway).last());
        third_has_the_last.then_some(())
    };
    until_within(PATIENCE, "the last line arrives", arrive).await;
    let (by_second, by_third) = (until_received(&second, 4).await, until_received(&third, 2).await);
    assert_eq!([taken, by_second, by_third].concat(), written(&gateway), "all lines, and none twice");
    assert!(!gateway.output().contains("wait for a restart"), "{}", gateway.output());
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(metrics.contains(r#"tenantd_audit_sink_failing{sink="lake"} 0"#), "{metrics}");
}

#[tokio::test]
async fn sinks_come_and_go_without_a_restart() {
    let backend = FakeBackend::start().await;
    let (first, second) = (receiver().await, receiver().await);
    // No line is written anywhere at first.
    let setup = Setup::new().settings("audit: off\n");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    pause_and_resume(&gateway);
    let both = sinks(&[sink("lake", &first), sink("siem", &second)]);
    change(&gateway, &format!("audit: off\n{both}"));
    until_in_force(&gateway, 1).await;
    pause_and_resume(&gateway);
    assert_eq!(until_received(&first, 2).await, until_received(&second, 2).await);

    pause_and_resume(&gateway);
    change(&gateway, &format!("audit: off\n{}", sinks(&[sink("lake", &first)])));
    until("the second is gone", async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        (!metrics.contains(r#"sink="siem""#)).then_some(())
    })
    .await;
    pause_and_resume(&gateway);
    let all = until_received(&first, 6).await;
    assert_eq!(until_received(&second, 4).await, all[..4], "what was written before it was removed");

    // What a removed sink's receiver does not take waits until the sink is there again.
    first.answer("/audit", Reply::Status(500, Value::Null));
    pause_and_resume(&gateway);
    until_within(PATIENCE, "it takes nothing", async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        metrics.contains(r#"tenantd_audit_sink_failing{sink="lake"} 1"#).then_some(())
    })
    .await;
    change(&gateway, "audit: off\n");
    until("it is said", async || gateway.output().contains("has not taken every line").then_some(())).await;
    pause_and_resume(&gateway);
    change(&gateway, &format!("audit: off\n{}", sinks(&[sink("lake", &second)])));
    until_in_force(&gateway, 4).await;
    let kept = &until_received(&second, 6).await[4..];
    assert!(kept.iter().all(|id| !all.contains(id)), "{kept:?} {all:?}");
    pause_and_resume(&gateway);
    assert_eq!(until_received(&second, 8).await.len(), 8, "no line from while there was no sink");
}
