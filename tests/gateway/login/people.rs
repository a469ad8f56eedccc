//! What operators do about people: list who is logged in, end logins, keep people out.

mod programs;
mod promptness;

use std::process::{Command, Output};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::Url;

use super::super::harness::gateway::BINARY;
use super::super::harness::login::{App, Browser, CALLBACK, Tokens, way};
use super::super::harness::{Client, PATIENCE, Reply};
use super::*;

/// Ada is who logs in unless another account is set.
const ADA: &str = "ada@contoso.com";
const BOB: &str = "bob@contoso.com";

/// Runs `tenantd logins` against the gateway.
fn logins(gateway: &Gateway, arguments: &[&str]) -> Output {
    command(gateway, arguments).output().expect("it runs")
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let admin = gateway.admin_address().to_string();
    let mut command = Command::new(BINARY);
    command.arg("logins").args(arguments).args(["--admin", &admin]).env_clear();
    command
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn bob() -> Value {
    json!({ "oid": "0b0b0b0b-0000-4000-8000-0b0b0b0b0b0b", "preferred_username": BOB, "name": "Bob" })
}

/// Tenants `a` and `b` on a port that stays the same over restarts, since issuers contain it.
async fn stage() -> (FakeEntra, FakeBackend, Gateway) {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let mut setup =
        Setup::listening(free.expect("free").port()).flag("--entra-authority", &entra.authority());
    for name in ["a", "b"] {
        setup = setup.file(&format!("{name}.yaml"), Tenant::new(name, &backend).with(&entra.lines()).yaml());
    }
    (entra, backend, setup.start().await)
}

async fn call(gateway: &Gateway, prefix: &str, tokens: &Tokens) -> u16 {
    gateway.client().bearer(&tokens.access).search(Era::Modern, prefix, "q").await.status
}

async fn refresh(app: &App<'_>, tokens: &Tokens) -> (u16, String) {
    let id = app.client_id.clone();
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", &id)];
    let answer = app.post("/token", &form).await;
    (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
}

async fn open_stream(client: &Client, prefix: &str) -> reqwest::Response {
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let stream = client.ask(Era::Modern, &format!("{prefix}/mcp"), "subscriptions/listen", params);
    let stream = stream.send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    stream
}

fn audit(gateway: &Gateway) -> Vec<Value> {
    let lines = std::fs::read_to_string(gateway.path().join("state/audit.jsonl")).expect("an audit");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn operators_list_who_is_logged_in_and_end_what_they_name() {
    let (entra, _backend, gateway) = stage().await;
    let (a, b) = (App::registered(&gateway, "/a").await, App::registered(&gateway, "/b").await);
    let ada = [a.tokens(&entra).await, b.tokens(&entra).await];
    entra.account(bob());
    let bobs = a.tokens(&entra).await;

    let listed = text(&logins(&gateway, &["list"]));
    assert_eq!(listed.matches(ADA).count(), 2, "{listed}");
    assert!(listed.contains(BOB) && listed.contains("A test"), "{listed}");
    let json = |arguments: &[&str]| -> Vec<Value> {
        let arguments = [&["list", "--format", "json"], arguments].concat();
        serde_json::from_str(&text(&logins(&gateway, &arguments))).expect("JSON")
    };
    assert_eq!(json(&["--tenant", "a"]).len(), 2);
    assert_eq!(json(&["--person", "ADA@contoso.com", "--tenant", "b"]).len(), 1);
    assert_eq!(json(&["--client", "a TEST"]).len(), 3);
    assert_eq!(json(&["--client", "another"]).len(), 0);

    let of_bob = json(&["--person", BOB]).remove(0);
    let id = of_bob["id"].as_str().expect("an id");
    assert_eq!(text(&logins(&gateway, &["end", id])), "1 login ended\n");
    assert_eq!(call(&gateway, "/a", &bobs).await, 401);
    assert_eq!(refresh(&a, &bobs).await, (400, "invalid_grant".to_owned()));
    assert_eq!(call(&gateway, "/a", &ada[0]).await, 200);
    let line = super::super::harness::until("the end is in the audit", async || {
        let lines = audit(&gateway);
        lines.into_iter().find(|line| line["event"] == "revocation" && line["grant"] == id)
    });
    let line = line.await;
    assert_eq!(
        (&line["user"], &line["order"], &line["tenant"]),
        (&json!(BOB), &json!("end_logins"), &json!("a"))
    );
    assert!(line["uid"].is_u64(), "{line}");

    assert_eq!(text(&logins(&gateway, &["end", "--tenant", "a"])), "1 login ended\n");
    assert_eq!((call(&gateway, "/a", &ada[0]).await, call(&gateway, "/b", &ada[1]).await), (401, 200));
    let unsaid = logins(&gateway, &["end"]);
    assert_eq!(unsaid.status.code(), Some(2), "{unsaid:?}");
    assert_eq!(text(&logins(&gateway, &["end", "--all", "--yes"])), "1 login ended\n");
    assert_eq!(text(&logins(&gateway, &["list"])), "Nobody is logged in.\n");
    assert_eq!(call(&gateway, "/b", &ada[1]).await, 401);
}

/// The form of the operator's token, which no output may contain.
const TOKEN: &str = "ta_c4naryS3cret0000000000000000000000000000000000000000000000operator";

#[tokio::test]
async fn what_an_order_ends_carries_the_name_of_the_operators_token() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let setup = Setup::listening(free.expect("free").port()).flag("--entra-authority", &entra.authority());
    let digest = tenantd::base::digest::Digest::of(TOKEN.as_bytes());
    let file = setup.path().join("tokens.yaml");
    std::fs::write(&file, format!("tokens: [{{name: ann, sha256: \"{digest}\", role: operate}}]\n"))
        .expect("written");
    let tenant = Tenant::new("a", &backend).with(&entra.lines()).yaml();
    let setup = setup.file("a.yaml", tenant).flag("--admin-auth", &file.display().to_string());
    let gateway = setup.start().await;
    let app = App::registered(&gateway, "/a").await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let order = async |method: reqwest::Method, path: &str, body: Value| {
        let url = format!("http://{}{path}", gateway.admin_address());
        let request = http.request(method, url).bearer_auth(TOKEN).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.expect("text");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    app.tokens(&entra).await;
    order(reqwest::Method::POST, "/api/logins/end", json!({ "person": ADA })).await;
    app.tokens(&entra).await;
    let block = order(reqwest::Method::POST, "/api/blocks", json!({ "person": ADA, "tenant": "a" })).await;
    let id = block["id"].as_str().expect("an id");
    order(reqwest::Method::DELETE, &format!("/api/blocks/{id}"), Value::Null).await;
    let lines = super::super::harness::until("all is in the audit", async || {
        let lines = audit(&gateway);
        let revocations: Vec<_> = lines.into_iter().filter(|line| line["event"] == "revocation").collect();
        (revocations.len() >= 4).then_some(revocations)
    });
    let lines = lines.await;
    let told: Vec<_> = lines.iter().map(|line| (line["order"].as_str(), line["outcome"].as_str())).collect();
    let (ok, end, block, unblock) = (Some("ok"), Some("end_logins"), Some("block"), Some("unblock"));
    assert_eq!(told, [(end, ok), (block, Some("blocked")), (block, ok), (unblock, Some("unblocked"))]);
    for line in &lines {
        let operator = (&line["operator"], &line["client_addr"], &line["user"]);
        assert_eq!(operator, (&json!("ann"), &json!("127.0.0.1"), &json!(ADA)), "{line}");
    }
}

#[tokio::test]
async fn a_blocked_person_is_out_of_calls_streams_renewals_and_logins_until_unblocked() {
    let (entra, backend, gateway) = stage().await;
    let (a, b) = (App::registered(&gateway, "/a").await, App::registered(&gateway, "/b").await);
    let (ada, elsewhere) = (a.tokens(&entra).await, b.tokens(&entra).await);
    entra.account(bob());
    let bobs = a.tokens(&entra).await;
    entra.account(json!({}));

    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let [of_ada, of_bob] = [&ada, &bobs].map(|tokens| gateway.client().bearer(&tokens.access));
    let stream = open_stream(&of_ada, "/a").await;
    let other_stream = open_stream(&of_bob, "/a").await;
    let is_over = async {
        let refused = of_ada.search(Era::Modern, "/a", "q").await;
        assert_eq!(refused.status, 401, "{refused:?}");
        // The stream or its connection ends; either way nothing more arrives.
        let _rest = stream.bytes().await;
        // The backend answers only now, so its answer did not end the call.
        backend.release();
    };
    let goes_on = async { assert_eq!(of_bob.search(Era::Modern, "/a", "q").await.status, 200) };
    let order = async {
        backend.until(|counts| counts.in_flight == 2).await;
        let mut block = command(&gateway, &["block", ADA, "--tenant", "a", "--reason", "laptop stolen"]);
        let said = tokio::task::spawn_blocking(move || block.output()).await.expect("no panic");
        let said = text(&said.expect("it runs"));
        assert!(said.starts_with("ada@contoso.com is kept out of tenant a; 1 login ended\n"), "{said}");
    };
    let all = async { tokio::join!(is_over, goes_on, order) };
    tokio::time::timeout(PATIENCE, all).await.expect("the call and the stream ended");
    backend.answer("/nlp-search", Reply::Rows);

    assert_ne!(call(&gateway, "/a", &ada).await, 200);
    assert_eq!(refresh(&a, &ada).await, (400, "invalid_grant".to_owned()));
    let mut browser = Browser::new(&gateway);
    let callback = a.log_in_at_microsoft(&mut browser, &entra).await;
    let refused = browser.get(&callback).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text.contains("blocked your account") && !refused.text.contains("laptop"), "{refused:?}");
    assert!(way(&refused.text).contains("error=access_denied"), "{refused:?}");
    // Nobody else is touched, and neither is she elsewhere.
    assert_eq!((call(&gateway, "/a", &bobs).await, call(&gateway, "/b", &elsewhere).await), (200, 200));
    drop(other_stream);

    let (client_id, redirect_uri) = (a.client_id.clone(), CALLBACK.to_owned());
    drop((a, b));
    let gateway = gateway.kill_and_restart().await;
    let a = App { gateway: &gateway, prefix: "/a", client_id, redirect_uri };
    let mut browser = Browser::new(&gateway);
    let callback = a.log_in_at_microsoft(&mut browser, &entra).await;
    assert_eq!(browser.get(&callback).await.status, 403, "a restart forgets no block");
    let listed = text(&logins(&gateway, &["blocks"]));
    assert!(listed.contains(ADA) && listed.contains("laptop stolen"), "{listed}");
    assert_eq!(text(&logins(&gateway, &["unblock", ADA])), "ada@contoso.com may log in again\n");
    assert_eq!(text(&logins(&gateway, &["blocks"])), "Nobody is blocked.\n");
    super::super::harness::until("both orders are in the audit, with whom they were about", async || {
        let lines = audit(&gateway);
        let has = |event: &str, outcome: &str, order: &str| {
            let is = |line: &&Value| {
                (&line["event"], &line["outcome"], &line["order"], &line["tenant"])
                    == (&json!(event), &json!(outcome), &json!(order), &json!("a"))
            };
            let found: Vec<_> = lines.iter().filter(is).collect();
            let is_about = event == "order" || found.iter().all(|line| line["user"] == ADA);
            found.len() == 1 && is_about && found[0]["uid"].is_u64()
        };
        let all = has("order", "ok", "block")
            && has("revocation", "blocked", "block")
            && has("revocation", "unblocked", "unblock")
            && has("order", "ok", "unblock");
        all.then_some(())
    })
    .await;
    let again = a.tokens(&entra).await;
    assert_eq!(call(&gateway, "/a", &again).await, 200);
    assert!(!logins(&gateway, &["unblock", ADA]).status.success());
}

#[tokio::test]
async fn a_name_that_nobody_has_logged_in_with_can_be_kept_out_and_a_block_outlasts_the_tenant() {
    let (entra, backend, gateway) = stage().await;
    let said = text(&logins(&gateway, &["block", "Ada@Contoso.com", "--all-tenants"]));
    assert!(said.contains("names can change hands"), "{said}");
    for prefix in ["/a", "/b"] {
        let app = App::registered(&gateway, prefix).await;
        let mut browser = Browser::new(&gateway);
        let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
        assert_eq!(browser.get(&callback).await.status, 403, "{prefix}");
    }
    text(&logins(&gateway, &["unblock", ADA]));
    text(&logins(&gateway, &["block", super::super::harness::entra::ACCOUNT, "--tenant", "a"]));
    gateway.remove("a.yaml");
    gateway.reload().await;
    gateway.until_gone("a").await;
    gateway.put("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml());
    gateway.reload().await;
    gateway.until_state("a", "serving").await;
    let app = App::registered(&gateway, "/a").await;
    let mut browser = Browser::new(&gateway);
    let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
    let refused = browser.get(&callback).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(Url::parse(&way(&refused.text)).is_ok());
    // What an order lacks is said.
    for (bad, expected) in [
        (&["block", ADA][..], "--tenant"),
        (&["block", " ", "--all-tenants"], "person"),
        (&["block", ADA, "--tenant", "nowhere"], "tenant"),
        (&["block", ADA, "--all-tenants", "--until", "2020-01-01"], "in the past"),
    ] {
        let refused = logins(&gateway, bad);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(expected), "{bad:?}: {said}");
    }
}

#[tokio::test]
async fn a_block_is_in_force_again_after_a_restored_backup() {
    let (entra, _backend, gateway) = stage().await;
    let app = App::registered(&gateway, "/a").await;
    let tokens = app.tokens(&entra).await;
    text(&logins(&gateway, &["block", ADA, "--all-tenants", "--reason", "laptop stolen"]));
    let store = |gateway: &Gateway, arguments: &[&str]| {
        let state = gateway.path().join("state").display().to_string();
        let mut command = Command::new(BINARY);
        text(
            &command
                .arg("store")
                .args(arguments)
                .args(["--state", &state])
                .env_clear()
                .output()
                .expect("it runs"),
        )
    };
    let copy = gateway.path().join("copy.db").display().to_string();
    store(&gateway, &["backup", &copy, "--admin", &gateway.admin_address().to_string()]);
    text(&logins(&gateway, &["unblock", ADA]));
    assert_eq!(text(&logins(&gateway, &["blocks"])), "Nobody is blocked.\n");

    let (client_id, redirect_uri) = (app.client_id.clone(), CALLBACK.to_owned());
    drop(app);
    let gateway = gateway.killed();
    store(&gateway, &["restore", &copy]);
    let gateway = gateway.start_again().await;
    let listed = text(&logins(&gateway, &["blocks"]));
    assert!(listed.contains(ADA) && listed.contains("laptop stolen"), "{listed}");
    let app = App { gateway: &gateway, prefix: "/a", client_id, redirect_uri };
    assert_eq!(refresh(&app, &tokens).await, (400, "invalid_grant".to_owned()));
    assert_ne!(call(&gateway, "/a", &tokens).await, 200);
    let mut browser = Browser::new(&gateway);
    let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
    assert_eq!(browser.get(&callback).await.status, 403);
}

#[tokio::test]
async fn access_tokens_live_as_long_as_the_tenants_file_says() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let tenant = |minutes: &str| {
        Tenant::new("a", &backend).with(&format!("{}access_token_minutes: {minutes}\n", entra.lines())).yaml()
    };
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let gateway = setup.file("a.yaml", tenant("5")).start().await;
    gateway.until_state("a", "serving").await;
    let app = App::registered(&gateway, "/a").await;
    let lifetime = async || {
        let back = app.log_in(&mut Browser::new(&gateway), &entra).await;
        let sold = app.redeem(&super::parameter(&back, "code").expect("a code")).await.json();
        let token = sold["access_token"].as_str().expect("a token").to_owned();
        let claims = token.split('.').nth(1).expect("claims");
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        let seconds = claims["exp"].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time");
        assert_eq!(sold["expires_in"], seconds, "{sold}");
        seconds
    };
    assert_eq!(lifetime().await, 300);
    for bad in ["4", "61"] {
        gateway.put("a.yaml", tenant(bad));
        let status = gateway.until_state("a", "stale").await;
        assert!(status["findings"].to_string().contains("access_token_minutes"), "{status}");
        gateway.put("a.yaml", tenant("60"));
        gateway.until_state("a", "serving").await;
    }
    assert_eq!(lifetime().await, 3_600);
}
