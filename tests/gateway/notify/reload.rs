//! Targets that change at SIGHUP.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::super::harness::backend::Recorded;
use super::super::harness::secret::secret;
use super::super::harness::{Era, FakeBackend, Gateway, Reply, Tenant, until};
use super::{events, settings, setup, until_told};

fn change(gateway: &Gateway, settings: &str) {
    fs::write(gateway.path().join("tenantd.yaml"), settings).expect("written");
    gateway.signal("HUP");
}

fn target(name: &str, receiver: &FakeBackend, key: &str) -> String {
    format!("  - {{name: {name}, webhook: '{}', secret_file: {key}}}\n", receiver.url("/hook"))
}

fn notify(targets: &[String]) -> String {
    format!("limits: {{notify_hold_seconds: 0}}\nnotify:\n{}", targets.concat())
}

/// Whether an event was signed with this key.
fn is_signed_with(request: &Recorded, key: &str) -> bool {
    let header = |name: &str| request.header(name).expect("a header");
    let start = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
    let signed = [start.as_bytes(), &request.body].concat();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let expected = BASE64_STANDARD.encode(aws_lc_rs::hmac::sign(&key, &signed));
    header("webhook-signature") == format!("v1,{expected}")
}

#[tokio::test]
async fn targets_come_and_go_and_sign_with_another_key_without_a_restart() {
    let (first, second) = (FakeBackend::start().await, FakeBackend::start().await);
    let setup = setup(&notify(&[target("first", &first, "signing.key")])).file("acme.zip", "no zip");
    fs::write(setup.path().join("other.key"), secret("other")).expect("written");
    let gateway = setup.start().await;
    until_told(&first, "tenant-rejected", "raised").await;
    assert!(is_signed_with(&first.requests()[0], &secret("signing")));

    let both = [target("first", &first, "signing.key"), target("second", &second, "other.key")];
    change(&gateway, &notify(&both));
    // A target that comes later is told what is wrong by then.
    let told = until_told(&second, "tenant-rejected", "raised").await;
    assert_eq!(told["subject"]["name"], "acme");
    assert!(is_signed_with(&second.requests()[0], &secret("other")));

    change(&gateway, &notify(&[target("first", &first, "other.key")]));
    until("the second is gone", async || {
        let (_, text) = gateway.admin("/api/notify").await;
        let status: Value = serde_json::from_str(&text).expect("JSON");
        (status["targets"].as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    gateway.put("beta.zip", "no zip");
    until("the first is told of the next", async || (events(&first).len() == 2).then_some(())).await;
    assert!(is_signed_with(&first.requests()[1], &secret("other")), "with its new key");
    assert_eq!(events(&first)[1]["subject"]["name"], "beta", "who keeps its name is not told again");
    assert_eq!(events(&second).len(), 1, "who is gone is told nothing");
}

#[tokio::test]
async fn the_time_before_somebody_is_told_changes_without_a_restart() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let patient = settings(&receiver).replace("notify_hold_seconds: 0", "notify_hold_seconds: 3600");
    let setup = setup(&patient).file("acme.zip", Tenant::new("acme", &backend).zip());
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    for path in ["/nlp-search", "/nlp-context"] {
        backend.answer(path, Reply::Status(500, Value::Null));
    }
    gateway.client().search(Era::Modern, "/acme", "q").await.tool_error();
    gateway.until_state("acme", "degraded").await;
    // Something that is told at once, and is seen at the same time or later.
    gateway.put("bad.zip", "no zip");
    until_told(&receiver, "tenant-rejected", "raised").await;
    assert_eq!(events(&receiver).len(), 1, "an hour is not over");
    change(&gateway, &settings(&receiver));
    until_told(&receiver, "tenant-degraded", "raised").await;
}

#[tokio::test]
async fn a_hanging_target_is_replaced_without_delay_and_nobody_hears_anything_twice() {
    let backend = FakeBackend::start().await;
    let (hanging, healthy, replacement) =
        (FakeBackend::start().await, FakeBackend::start().await, FakeBackend::start().await);
    hanging.answer("/hook", Reply::HangInHeaders);
    let both = |pager: &FakeBackend| {
        notify(&[target("pager", pager, "signing.key"), target("second", &healthy, "signing.key")])
    };
    let setup = setup(&both(&hanging)).file("acme.zip", "no zip");
    let gateway = setup.file("b.yaml", Tenant::new("b", &backend).yaml()).start().await;
    until_told(&healthy, "tenant-rejected", "raised").await;
    until("it hangs", async || (!events(&hanging).is_empty()).then_some(())).await;
    let attempts = events(&hanging).len();
    gateway.client().search(Era::Modern, "/b", "q").await.data();

    change(&gateway, &both(&replacement));
    until_told(&replacement, "tenant-rejected", "raised").await;
    // The attempt under way was given up; no other followed.
    assert_eq!(events(&hanging).len(), attempts);
    change(&gateway, &both(&replacement).replace("limits: {", "limits: {idle_seconds: 59, "));
    gateway.put("acme.zip", Tenant::new("acme", &backend).zip());
    for receiver in [&healthy, &replacement] {
        until_told(receiver, "tenant-rejected", "resolved").await;
        let states: Vec<_> = events(receiver).iter().map(|event| event["state"].clone()).collect();
        assert_eq!(states, ["raised", "resolved"]);
    }
    assert_eq!(events(&hanging).len(), attempts);
}
