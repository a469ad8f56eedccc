//! Whom the gateway tells of trouble: the setting `notify`.

mod kinds;
mod reload;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::harness::backend::Recorded;
use super::harness::gateway::BINARY;
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until, until_within};

/// Longer than the first pauses between attempts together.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Settings with one webhook and no hold, whose key is in `signing.key`.
fn settings(receiver: &FakeBackend) -> String {
    format!(
        "limits: {{notify_hold_seconds: 0}}\nnotify:\n  - name: pager\n    webhook: {}\n    secret_file: signing.key\n",
        receiver.url("/hook")
    )
}

/// A gateway with these settings, and the key that signs its events.
fn setup(settings: &str) -> Setup {
    let setup = Setup::new().settings(settings);
    fs::write(setup.path().join("signing.key"), secret("signing")).expect("written");
    setup
}

/// Returns the events that a receiver got so far, each attempt, without tests.
fn events(receiver: &FakeBackend) -> Vec<Value> {
    let all = receiver.requests();
    all.iter().map(Recorded::json).filter(|event| event["kind"] != "test").collect()
}

/// Returns kind and state of an event.
fn news(event: &Value) -> (String, String) {
    let text = |name: &str| event[name].as_str().expect("a text").to_owned();
    (text("kind"), text("state"))
}

/// Waits until a receiver got an event of this kind and state.
async fn until_told(receiver: &FakeBackend, kind: &str, state: &str) -> Value {
    until_within(PATIENCE, &format!("{kind} is {state}"), async || {
        events(receiver).into_iter().find(|event| event["kind"] == kind && event["state"] == state)
    })
    .await
}

/// Runs `tenantd notify`, while the receivers of this test answer. Returns exit code and output.
async fn notify(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let admin = gateway.admin_address().to_string();
    let arguments = [&["notify"], arguments, &["--admin", &admin]].concat();
    let output = tokio::process::Command::new(BINARY).args(arguments).env_clear().output().await;
    let Output { status, stdout, stderr } = output.expect("the binary runs");
    let printed = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    super::harness::secret::assert_none("a verb's output", &printed);
    (status.code(), printed)
}

/// The code block of docs/notifications.md that verifies a signature.
fn documented_verification() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/notifications.md"));
    let page = page.expect("the page is there");
    let code = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    code.expect("the page has an example").to_owned()
}

#[tokio::test]
async fn a_bad_file_and_its_repair_are_told_once_each_and_signed_as_documented() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let gateway = setup(&settings(&receiver)).file("acme.zip", "no zip").start().await;
    let raised = until_told(&receiver, "tenant-rejected", "raised").await;
    assert_eq!((&raised["schema"], &raised["subject"]["name"]), (&1.into(), &"acme".into()), "{raised}");
    assert_eq!(raised["gateway"], gateway.base());
    assert!(
        raised["code"].is_string() && raised["action"].as_str().is_some_and(|it| it.contains("acme")),
        "{raised}"
    );
    gateway.put("acme.zip", Tenant::new("acme", &backend).zip());
    until_told(&receiver, "tenant-rejected", "resolved").await;
    // What serves and what fails to is no news again.
    gateway.reload().await;
    gateway.put("acme.yaml", "search_url: [");
    until_told(&receiver, "tenant-stale", "raised").await;
    let told: Vec<_> = events(&receiver).iter().map(news).collect();
    let expected =
        [("tenant-rejected", "raised"), ("tenant-rejected", "resolved"), ("tenant-stale", "raised")];
    assert_eq!(told, expected.map(|(kind, state)| (kind.to_owned(), state.to_owned())));

    let request = &receiver.requests()[0];
    let header = |name: &str| request.header(name).expect("a header");
    let script = gateway.path().join("verify.py");
    fs::write(&script, documented_verification()).expect("written");
    let verify = |body: &[u8]| {
        let file = gateway.path().join("body");
        fs::write(&file, body).expect("written");
        let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(header);
        let key = gateway.path().join("signing.key");
        let status = Command::new("python3").arg(&script).arg(key).args(headers).arg(&file).status();
        status.expect("python3 runs").success()
    };
    assert!(verify(&request.body));
    assert!(!verify(&[&request.body[..], b" "].concat()));
}

#[tokio::test]
async fn a_restart_tells_nobody_again_and_what_ended_meanwhile_is_told() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let setup = setup(&settings(&receiver)).file("acme.zip", "no zip").file("beta.zip", "no zip");
    let gateway = setup.start().await;
    let all_told = async || (events(&receiver).len() == 2).then_some(());
    until("both are told", all_told).await;
    let kept = gateway.path().join("state/notify/pager.json");
    let knows_both = async || fs::read_to_string(&kept).is_ok_and(|text| text.contains("beta")).then_some(());
    until("it is kept", knows_both).await;
    let gateway = gateway.killed();
    fs::write(gateway.tenant_file("acme.zip"), Tenant::new("acme", &backend).zip()).expect("written");
    let _gateway = gateway.start_again().await;
    let over = until_told(&receiver, "tenant-rejected", "resolved").await;
    assert_eq!(over["subject"]["name"], "acme");
    assert_eq!(events(&receiver).len(), 3);
}

#[tokio::test]
async fn a_receiver_that_hangs_lies_or_fails_holds_up_nobody_and_is_told_in_the_end() {
    let (backend, bad, good) =
        (FakeBackend::start().await, FakeBackend::start().await, FakeBackend::start().await);
    let second =
        format!("  - name: good\n    webhook: {}\n    secret_file: signing.key\n", good.url("/hook"));
    let setup = setup(&(settings(&bad) + &second)).file("acme.zip", Tenant::new("acme", &backend).zip());
    bad.answer("/hook", Reply::Hang);
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    gateway.put("bad.zip", "no zip");
    until_told(&bad, "tenant-rejected", "raised").await;
    // While it hangs, others are told, and callers are answered.
    until_told(&good, "tenant-rejected", "raised").await;
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    assert_eq!(bad.counts().in_flight, 1, "it hangs still");

    let elsewhere = FakeBackend::start().await;
    for (reply, said) in [
        (Reply::Status(500, Value::Null), "500"),
        (Reply::Redirect(302, elsewhere.url("/hook")), "redirects are not followed"),
        (Reply::Garbage, ""),
    ] {
        bad.answer("/hook", reply);
        let so_far = bad.counts().requests;
        let is_asked = async || (bad.counts().requests > so_far).then_some(());
        until_within(PATIENCE, "it is told again", is_asked).await;
        until("the failure is shown", async || {
            let (_, shown) = notify(&gateway, &["show"]).await;
            shown.contains(said).then_some(())
        })
        .await;
    }
    // Garbage with a status of success is success.
    until("it has arrived", async || {
        let (_, text) = gateway.admin("/api/notify").await;
        let status: Value = serde_json::from_str(&text).expect("JSON");
        (status["targets"][0]["waiting"] == 0 && status["targets"][0]["failures"] == 0).then_some(())
    })
    .await;
    let attempts = events(&bad);
    assert!(attempts.len() >= 4, "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt["id"] == attempts[0]["id"]), "{attempts:?}");
    assert_eq!((events(&good).len(), elsewhere.counts().requests), (1, 0));
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(metrics.contains(r#"tenantd_notifications_total{target="pager",outcome="ok"} 1"#), "{metrics}");
    assert!(
        metrics.contains(r#"tenantd_notifications_total{target="pager",outcome="failed"} "#),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read() {
    let receiver = FakeBackend::start().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    receiver.answer("/hook", Reply::Endless(head, "0123456789abcdef"));
    let gateway = setup(&settings(&receiver)).file("acme.zip", "no zip").start().await;
    until("it has arrived", async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        metrics.contains(r#"{target="pager",outcome="ok"} 1"#).then_some(())
    })
    .await;
    assert_eq!(events(&receiver).len(), 1);
}

#[tokio::test]
async fn what_came_and_went_while_a_receiver_was_down_is_counted() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/hook", Reply::Status(503, Value::Null));
    let gateway = setup(&settings(&receiver)).file("acme.zip", "no zip").start().await;
    until_told(&receiver, "tenant-rejected", "raised").await;
    let waits = async |count: u64| {
        until("as many wait", async || {
            let (_, text) = gateway.admin("/api/notify").await;
            let status: Value = serde_json::from_str(&text).expect("JSON");
            (status["targets"][0]["waiting"] == count).then_some(())
        })
        .await;
    };
    gateway.put("beta.zip", "no zip");
    waits(2).await;
    gateway.put("beta.zip", Tenant::new("beta", &backend).zip());
    waits(1).await;
    receiver.answer("/hook", Reply::Rows);
    gateway.put("gamma.zip", "no zip");
    let counted = until_within(PATIENCE, "the next event counts it", async || {
        events(&receiver).into_iter().find(|event| event["subject"]["name"] == "gamma")
    })
    .await;
    assert_eq!(counted["missed"], 1, "{counted}");
    assert!(events(&receiver).iter().all(|event| event["subject"]["name"] != "beta"));
}

#[tokio::test]
async fn a_test_says_what_each_target_answered() {
    let (good, bad) = (FakeBackend::start().await, FakeBackend::start().await);
    let third = format!(
        "  - name: chat\n    webhook_file: chat.url\n    format: slack\n  - name: channel\n    webhook_file: chat.url\n    format: teams\n  - name: failing\n    webhook: {}\n    secret_file: signing.key\n  - name: script\n    command: [/bin/sh, -c, 'cat >> events.jsonl']\n",
        bad.url("/hook")
    );
    bad.answer("/hook", Reply::Status(410, Value::Null));
    let setup = setup(&(settings(&good) + &third));
    fs::write(setup.path().join("chat.url"), good.url(&format!("/chat/{}\n", secret("chat"))))
        .expect("written");
    let gateway = setup.start().await;
    let (code, printed) = notify(&gateway, &["test"]).await;
    assert_eq!(code, Some(1), "{printed}");
    let line = |name: &str| printed.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    assert!(line("pager").contains("arrived") && line("pager").contains("200"), "{printed}");
    assert!(line("failing").contains("failed") && line("failing").contains("410"), "{printed}");
    assert!(line("chat").contains("arrived") && line("channel").contains("arrived"));
    assert!(line("script").contains("arrived"), "{printed}");
    let mut texts =
        good.requests().into_iter().filter_map(|it| it.json()["text"].as_str().map(str::to_owned));
    assert!(texts.any(|text| text.contains("this is a test")), "the form of Slack");
    let cards = good.requests().into_iter().filter(|request| request.json()["type"] == "message");
    let cards: Vec<Value> = cards.map(|request| request.json()["attachments"][0].clone()).collect();
    assert_eq!(cards[0]["contentType"], "application/vnd.microsoft.card.adaptive");
    assert!(cards.len() == 1 && cards[0]["content"].to_string().contains("this is a test"), "{cards:?}");
    let script = fs::read_to_string(gateway.path().join("events.jsonl")).expect("written");
    assert_eq!(serde_json::from_str::<Value>(&script).expect("JSON")["kind"], "test");

    assert_eq!(notify(&gateway, &["test", "--target", "pager"]).await.0, Some(0));
    let (code, printed) = notify(&gateway, &["test", "--target", "nobody"]).await;
    assert!(code == Some(1) && printed.contains("failing"), "{printed}");
    let (_, shown) = notify(&gateway, &["show"]).await;
    assert!(shown.contains("chat.url") && shown.contains("Nothing is wrong"), "{shown}");
}

#[tokio::test]
async fn targets_that_cannot_be_meant_are_refused() {
    for (lines, said) in [
        ("notify: [{webhook: 'https://ann:secret@example.com/'}]", "without a user name"),
        ("notify: [{webhook: 'ftp://example.com/'}]", "not an http or https URL"),
        ("notify: [{name: a}]", "no place to go"),
        ("notify: [{webhook: 'https://example.com/', command: [true]}]", "two places to go"),
        ("notify: [{command: []}]", "`command` of a target of `notify` is empty"),
        ("notify: [{command: [/bin/true], on: [tenant-rejecte]}]", "did you mean `tenant-rejected`?"),
        ("notify: [{command: [/bin/true], secret_file: x}]", "a command needs neither"),
        ("notify: [{command: [/bin/true], name: 'a b'}]", "at most 40 letters"),
        ("notify: [{command: [/bin/true], name: a}, {command: [/bin/true], name: a}]", "its own `name`"),
        ("notify: [{comand: [/bin/true]}]", "did you mean `command`?"),
    ] {
        let setup = Setup::new().settings(lines);
        fs::create_dir(setup.path().join("state")).expect("made");
        let refusal = setup.refusal().await;
        assert!(refusal.contains(said), "{lines}: {refusal}");
        assert!(!refusal.contains("ann:secret"), "{refusal}");
    }
}
