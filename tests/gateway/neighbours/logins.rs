//! Floods and hanging logins of some clients affect no other login.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::super::harness::client::{Answer, read};
use super::super::harness::entra::{Endpoint, FakeEntra, Fault};
use super::super::harness::login::{App, Browser, Form, field, parameter};
use super::super::harness::program::{Program, assertion_form};
use super::super::harness::secret::secret;
use super::super::harness::{Beside, Client, FakeBackend, Gateway, Setup, Tenant, until};

const LIMITS: &str = "limits:\n  tokens_per_minute: 10000000\n  logins_per_minute: 100000\n";

/// Has the program buy an access token.
async fn buy(program: &Program, client: &Client, prefix: &str, jti: u64) -> Answer {
    let issuer = format!("{}{prefix}", client.base());
    prove(client, &format!("{prefix}/token"), &program.assertion(&issuer, jti)).await
}

async fn prove(client: &Client, path: &str, assertion: &str) -> Answer {
    let form = assertion_form(assertion);
    read(client.request(Method::POST, path).form_of(&form).send().await.expect("an answer")).await
}

async fn gateway(entra: &FakeEntra, backend: &FakeBackend, a: &str, b: &str) -> Gateway {
    let setup = Setup::new().flag("--entra-authority", &entra.authority()).settings(LIMITS);
    let file = |name: &str, lines: &str| Tenant::new(name, backend).with(&(entra.lines() + lines)).yaml();
    setup.file("a.yaml", file("a", a)).file("b.yaml", file("b", b)).start().await
}

/// Returns a client with an access token of a machine client.
async fn caller(gateway: &Gateway, program: &Program, prefix: &str) -> Client {
    let sold = buy(program, &gateway.client(), prefix, 0).await;
    assert_eq!(sold.status, 200, "{sold:?}");
    gateway.client().bearer(sold.json()["access_token"].as_str().expect("a token"))
}

#[tokio::test]
async fn a_program_that_fills_its_share_of_used_assertions_harms_only_itself() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let [flood, calm, program] = ["flood", "calm", "program"].map(Program::new);
    let a = format!("machine_clients:\n{}{}", flood.lines(), calm.lines());
    let b = format!("machine_clients:\n{}", program.lines());
    let gateway = gateway(&entra, &backend, &a, &b).await;
    let beside = Beside::watch(caller(&gateway, &program, "/b").await, "/b");
    let (client, flood) = (gateway.client(), Arc::new(flood));
    let (numbers, full) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let mut flooding = JoinSet::new();
    for _ in 0..16 {
        let (client, flood) = (client.clone(), Arc::clone(&flood));
        let (numbers, full) = (Arc::clone(&numbers), Arc::clone(&full));
        flooding.spawn(async move {
            let issuer = format!("{}/a", client.base());
            while !full.load(Ordering::Relaxed) {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                assert!(number < 30_000, "nothing stops it");
                // Authentication alone uses up an assertion, so the flood requests nothing else.
                let answer = prove(&client, "/a/introspect", &flood.assertion(&issuer, number)).await;
                full.fetch_or(answer.status != 400, Ordering::Relaxed);
            }
        });
    }
    flooding.join_all().await;
    let refused = buy(&flood, &client, "/a", 40_000).await;
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("temporarily_unavailable")));
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
    let replayed = buy(&flood, &client, "/a", 7).await;
    assert_eq!((replayed.status, &replayed.json()["error"]), (401, &json!("invalid_client")), "used before");
    assert_eq!(buy(&calm, &client, "/a", 1).await.status, 200, "another program of the same tenant");
    assert_eq!(buy(&program, &client, "/b", 1).await.status, 200, "another tenant's program");
    beside.finish().await.assert_unharmed("b beside a flood of assertions");
    assert_eq!(gateway.output().matches("clients must wait").count(), 1, "one line, not one a refusal");
    eprintln!("resident: {} MiB, peak {} MiB", gateway.resident_mib(), gateway.peak_mib());
}

/// Sends a token request from a source address of its own, with a client id that may be unknown.
/// The response shows whether the client's document was fetched.
async fn introduce(gateway: &Gateway, source: &str, prefix: &str, id: &str) -> Answer {
    let source: IpAddr = source.parse().expect("an address");
    let pem = std::fs::read(gateway.ca().expect("a local CA")).expect("its certificate");
    let http = reqwest::Client::builder().no_proxy().local_address(source);
    let http = http.resolve("localhost", gateway.address()).timeout(super::super::harness::PATIENCE);
    let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let http = http.tls_certs_only([root]).build().expect("a client");
    let form = [("grant_type", "authorization_code"), ("client_id", id)];
    let request = http.post(format!("{}{prefix}/token", gateway.base())).form_of(&form);
    read(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn who_names_many_documents_has_none_of_others_refused() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let program = Program::new("program");
    let gateway = gateway(&entra, &backend, "", &format!("machine_clients:\n{}", program.lines())).await;
    let beside = Beside::watch(caller(&gateway, &program, "/b").await, "/b");
    let client = gateway.client();
    let mut refused = 0;
    for wave in 0..25 {
        let mut asked = JoinSet::new();
        for number in 0..16 {
            let (client, id) = (client.clone(), format!("https://n{wave}-{number}.invalid/x"));
            asked.spawn(async move {
                let form = [("grant_type", "authorization_code"), ("client_id", id.as_str())];
                read(client.request(Method::POST, "/a/token").form_of(&form).send().await.expect("an answer"))
                    .await
            });
        }
        for answer in asked.join_all().await {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
            refused += usize::from(answer.text.contains("too many clients"));
        }
    }
    assert!(refused > 100, "nothing stopped it: {refused} of 400");
    // The document of another client is still fetched; it fails only because the host does not
    // exist.
    let other = introduce(&gateway, "127.0.0.2", "/b", "https://other.invalid/x").await;
    assert!(other.status == 503 && !other.text.contains("too many clients"), "{other:?}");
    // Documents of the vendors that are built in need not be fetched.
    let known =
        introduce(&gateway, "127.0.0.1", "/a", "https://claude.ai/oauth/mcp-oauth-client-metadata").await;
    assert_eq!(
        (known.status, &known.json()["error"]),
        (400, &json!("invalid_request")),
        "its code is missing"
    );
    beside.finish().await.assert_unharmed("b beside a flood of documents");
    let lines = gateway.output().matches("the maximum number of ").count();
    assert_eq!(lines, 1, "one line, not one a refusal");
}

#[tokio::test]
async fn a_tenant_whose_logins_hang_at_microsoft_keeps_no_other_from_logging_in() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let program = Program::new("program");
    let gateway = gateway(&entra, &backend, "", &format!("machine_clients:\n{}", program.lines())).await;
    let beside = Beside::watch(caller(&gateway, &program, "/b").await, "/b");
    let (app, other) = (App::registered(&gateway, "/a").await, App::registered(&gateway, "/b").await);
    // The directory's metadata and keys are cached from here on.
    app.tokens(&entra).await;
    let mut waiting = Vec::new();
    for _ in 0..70 {
        let mut browser = Browser::new(&gateway);
        let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
        waiting.push((browser, callback));
    }
    entra.fault(Endpoint::Token, Fault::Silence);
    let mut hanging = JoinSet::new();
    for (mut browser, callback) in waiting {
        hanging.spawn(async move { browser.get(&callback).await.status });
    }
    let mut seen = (0, 0);
    until("no more of them reach Microsoft", async || {
        let now = entra.count(Endpoint::Token);
        seen = if now == seen.0 { (now, seen.1 + 1) } else { (now, 0) };
        (now > 10 && seen.1 > 25).then_some(())
    })
    .await;
    entra.fault(Endpoint::Token, None);
    let mut browser = Browser::new(&gateway);
    let callback = other.log_in_at_microsoft(&mut browser, &entra).await;
    let asked = tokio::time::timeout(std::time::Duration::from_secs(5), browser.come_back(&callback)).await;
    let back = asked.expect("while the others hang");
    assert!(parameter(&back, "code").is_some(), "{back}");
    hanging.abort_all();
    beside.finish().await.assert_unharmed("b beside logins that hang");
}

#[tokio::test]
async fn however_many_logins_somebody_is_led_to_begin_the_host_stays_open_to_them() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, "", "").await;
    let (evil, app) = (App::registered(&gateway, "/a").await, App::registered(&gateway, "/b").await);
    let mut browser = Browser::new(&gateway);
    let head = |browser: &Browser| -> usize {
        browser.cookies.iter().map(|(name, value)| name.len() + value.len() + 3).sum()
    };
    for length in [4_000, 4_096, 10, 2_000, 2_000, 300, 300, 300, 300, 300, 300, 300, 300, 300] {
        let state = "x".repeat(length);
        browser.consent(&evil.authorize_path(&[("state", &state)])).await;
        assert!(head(&browser) < 8 << 10, "{} bytes of cookies after a state of {length}", head(&browser));
    }
    // The other tenant of the host is not affected, and two concurrent logins finish, the older one
    // first.
    let first = app.log_in_at_microsoft(&mut browser, &entra).await;
    let second = app.log_in_at_microsoft(&mut browser, &entra).await;
    for callback in [first, second] {
        let back = browser.come_back(&callback).await;
        assert!(parameter(&back, "code").is_some(), "{back}");
    }
    assert!(browser.cookies.keys().all(|name| !name.contains("login")), "{:?}", browser.cookies.keys());
    // A login too large for the cookie is refused with a page, and takes no space.
    let state = "\u{1}".repeat(1_500);
    let page = browser.get(&evil.authorize_path(&[("state", &state)])).await;
    let form = [("request", &*field(&page.text, "request")), ("decision", "allow")];
    let refused = browser.post("/a/consent", &form).await;
    assert!(refused.status == 400 && refused.text.contains("too long"), "{refused:?}");
    assert!(browser.cookies.keys().all(|name| !name.contains("login")), "{:?}", browser.cookies.keys());
}
