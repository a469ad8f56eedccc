//! Each kind of trouble is told by really breaking the thing.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::harness::entra::{Endpoint, FakeEntra, Fault};
use super::super::harness::gateway::may_mount;
use super::super::harness::login::App;
use super::super::harness::secret::secret;
use super::super::harness::service_manager::ServiceManager;
use super::super::harness::{Era, FakeBackend, Reply, Tenant, until};
use super::super::state::fine;
use super::{events, settings, setup, until_told};

#[tokio::test]
async fn a_dead_backend_and_its_recovery_are_told() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let setup = setup(&settings(&receiver)).file("acme.zip", Tenant::new("acme", &backend).zip());
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    for path in ["/nlp-search", "/nlp-context"] {
        backend.answer(path, Reply::Status(500, Value::Null));
    }
    let ask = async || gateway.client().search(Era::Modern, "/acme", "q").await;
    ask().await.tool_error();
    gateway.until_state("acme", "degraded").await;
    let raised = until_told(&receiver, "tenant-degraded", "raised").await;
    assert!(raised["summary"].as_str().is_some_and(|text| text.contains("acme is degraded")), "{raised}");
    for path in ["/nlp-search", "/nlp-context"] {
        backend.answer(path, Reply::Rows);
    }
    until("it answers", async || (ask().await.json()["result"]["isError"] != true).then_some(())).await;
    until_told(&receiver, "tenant-degraded", "resolved").await;
    assert_eq!(events(&receiver).len(), 2);
}

#[tokio::test]
async fn a_quota_that_is_nearly_and_then_wholly_used_is_told() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let limits = |calls: u32| {
        Tenant::new("acme", &backend)
            .with(&format!("limits: {{tools: {{search: {{calls_per_day: {calls}}}}}}}"))
            .yaml()
    };
    let gateway = setup(&settings(&receiver)).file("acme.yaml", limits(5)).start().await;
    let ask = async || gateway.client().search(Era::Modern, "/acme", "q").await;
    for _ in 0..3 {
        ask().await.data();
    }
    // Something that is told at once, and is seen later than the calls.
    gateway.put("bad.zip", "no zip");
    until_told(&receiver, "tenant-rejected", "raised").await;
    assert_eq!(events(&receiver).len(), 1, "three fifths are no news");
    ask().await.data();
    let near = until_told(&receiver, "quota-near", "raised").await;
    let text = near["summary"].as_str().expect("a text");
    assert!(text.contains("calls_per_day (5) of its tool search") && text.contains("four fifths"), "{near}");
    ask().await.data();
    ask().await.tool_error();
    let used_up = until("it is told again", async || {
        let told = events(&receiver);
        told.into_iter().find(|event| event["summary"].as_str().is_some_and(|it| it.contains("is used up")))
    })
    .await;
    assert_eq!((&used_up["kind"], &used_up["state"]), (&"quota-near".into(), &"raised".into()), "{used_up}");
    gateway.put("acme.yaml", limits(100));
    until_told(&receiver, "quota-near", "resolved").await;
    assert_eq!(events(&receiver).len(), 4, "{:?}", events(&receiver));
}

#[tokio::test]
async fn a_change_that_waits_for_approval_is_told_until_it_is_approved() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let edition = |text: &str| Tenant::new("acme", &backend).with(&format!("description: {text}")).zip();
    let setup = setup(&settings(&receiver)).file("acme.zip", edition("First"));
    let manager = ServiceManager::start(setup.path());
    let setup = setup.variable("NOTIFY_SOCKET", &manager.socket());
    let gateway = setup.file("acme.yaml", "hold_changes: tools\n").start().await;
    gateway.until_state("acme", "serving").await;
    gateway.put("acme.zip", edition("Second"));
    let raised = until_told(&receiver, "changes-held", "raised").await;
    assert_eq!((&raised["subject"]["name"], &raised["code"]), (&"acme".into(), &"tool-text-changed".into()));
    assert!(raised["action"].as_str().is_some_and(|it| it.contains("tenants approve acme")), "{raised}");
    manager.has_heard("STATUS=1 tenant served, 1 with a change that waits for approval").await;
    let before = manager.count("STATUS=1 tenant served");
    fine(&gateway, &["approve", "acme"]);
    until_told(&receiver, "changes-held", "resolved").await;
    until("it is told", async || (manager.count("STATUS=1 tenant served") > before).then_some(())).await;
    assert_eq!(events(&receiver).len(), 2);
}

#[tokio::test]
async fn a_client_secret_that_is_refused_or_expires_is_told() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let receiver = FakeBackend::start().await;
    let soon = Timestamp::now() + SignedDuration::from_hours(24 * 5);
    let expiry = format!("microsoft_client_secret_expires: {soon}");
    let tenant = Tenant::new("acme", &backend).with(&entra.lines());
    let setup = setup(&settings(&receiver)).flag("--entra-authority", &entra.authority());
    let gateway = setup.file("acme.zip", tenant.zip()).file("acme.yaml", &expiry).start().await;
    let status = gateway.until_state("acme", "serving").await;
    assert_eq!(status["findings"][0]["code"], "secret-expires-soon", "{status}");
    let expires = until_told(&receiver, "client-secret-expires", "raised").await;
    assert!(expires["summary"].as_str().is_some_and(|text| text.contains("expires at")), "{expires}");

    let app = App::registered(&gateway, "/acme").await;
    let tokens = app.tokens(&entra).await;
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh), ("client_id", &app.client_id)];
    entra.fault(Endpoint::Token, Fault::Refusal("invalid_client", 7_000_222));
    assert_eq!(app.post("/token", &form).await.status, 503);
    let refused = until_told(&receiver, "login-refused", "raised").await;
    assert!(refused["summary"].as_str().is_some_and(|text| text.contains("secret_expired")), "{refused}");
    entra.fault(Endpoint::Token, None);
    assert_eq!(app.post("/token", &form).await.status, 200);
    until_told(&receiver, "login-refused", "resolved").await;

    let later = Timestamp::now() + SignedDuration::from_hours(24 * 300);
    gateway.put("acme.yaml", format!("microsoft_client_secret_expires: {later}"));
    until_told(&receiver, "client-secret-expires", "resolved").await;
    assert_eq!(events(&receiver).len(), 4);
}

#[tokio::test]
async fn an_api_key_that_expires_is_told() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let digest = tenantd::base::digest::Digest::of(b"a-key-that-callers-show-0123456789");
    let tenant = |hours| {
        let end = Timestamp::now() + SignedDuration::from_hours(hours);
        Tenant::new("acme", &backend)
            .with(&format!("api_keys:\n  - label: nightly\n    sha256: {digest}\n    expires: {end}"))
            .yaml()
    };
    let gateway = setup(&settings(&receiver)).file("acme.yaml", tenant(24 * 20)).start().await;
    let raised = until_told(&receiver, "api-key-expires", "raised").await;
    assert!(raised["summary"].as_str().is_some_and(|text| text.contains("nightly")), "{raised}");
    // Nearer to its end it is told again.
    gateway.put("acme.yaml", tenant(12));
    until("it is told again", async || (events(&receiver).len() == 2).then_some(())).await;
    gateway.put("acme.yaml", tenant(24 * 90));
    until_told(&receiver, "api-key-expires", "resolved").await;
}

#[tokio::test]
async fn a_full_disk_a_store_that_takes_nothing_and_a_losing_audit_are_told() {
    if !may_mount() {
        return;
    }
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    let small = "mkdir -p state && mount -t tmpfs -o size=2m none state";
    let setup = setup(&settings(&receiver)).file("acme.zip", Tenant::new("acme", &backend).zip());
    let gateway = setup.after_mounting(small).start().await;
    gateway.until_state("acme", "serving").await;
    gateway.among_its_mounts("dd if=/dev/zero of=state/.fill bs=1k 2>&1 | true");
    until_told(&receiver, "disk-low", "raised").await;
    let audited =
        |number| Tenant::new("acme", &backend).with(&format!("description: Edition {number}")).zip();
    gateway.put("acme.zip", audited(1));
    until_told(&receiver, "store-unwritable", "raised").await;
    until("a line of the audit is lost", async || {
        gateway.client().search(Era::Modern, "/acme", "q").await;
        events(&receiver).iter().any(|event| event["kind"] == "audit-losing").then_some(())
    })
    .await;
    gateway.among_its_mounts("rm state/.fill");
    until_told(&receiver, "disk-low", "resolved").await;
    until_told(&receiver, "store-unwritable", "resolved").await;
}

#[tokio::test]
async fn a_certificate_that_no_authority_issues_is_told() {
    let receiver = FakeBackend::start().await;
    // Nobody listens there.
    let gone = FakeBackend::start().await.stop().await;
    let setup = setup(&settings(&receiver)).instead("--host", "mcp.example.com").flag("--tls", "acme");
    let setup = setup.flag("--acme-directory", &format!("https://{gone}/directory"));
    let _gateway = setup.variable("TENANTD_ACCEPT_TOS", "true").start().await;
    let raised = until_told(&receiver, "certificate-not-renewing", "raised").await;
    assert_eq!(raised["subject"]["name"], "mcp.example.com", "{raised}");
}

#[tokio::test]
async fn a_certificate_that_nobody_replaces_is_told() {
    let receiver = FakeBackend::start().await;
    let setup = setup(&settings(&receiver)).flag("--tls", "manual");
    let certs = setup.path().join("certs");
    fs::create_dir(&certs).expect("made");
    let write = |days: i64| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let date = |hours| {
            let at = Timestamp::now() + SignedDuration::from_hours(hours);
            let at = jiff::tz::TimeZone::UTC.to_datetime(at);
            rcgen::date_time_ymd(at.year().into(), at.month() as u8, at.day() as u8)
        };
        (params.not_before, params.not_after) = (date(-24), date(24 * days));
        fs::write(certs.join("localhost.key"), key.serialize_pem()).expect("written");
        fs::write(certs.join("localhost.pem"), params.self_signed(&key).expect("signed").pem())
            .expect("written");
    };
    write(5);
    let _gateway = setup.start().await;
    let raised = until_told(&receiver, "certificate-not-renewing", "raised").await;
    assert!(raised["summary"].as_str().is_some_and(|text| text.contains("must be replaced")), "{raised}");
    write(300);
    until_told(&receiver, "certificate-not-renewing", "resolved").await;
}
