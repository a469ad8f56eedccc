//! Access tokens: what they open and for how long; challenges, revocation, rules, SIGKILL, key
//! rotation and audit.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::client::{Answer, read};
use super::harness::entra::FakeEntra;
use super::harness::gateway::BINARY;
use super::harness::login::{App, Browser, CALLBACK, Tokens, parameter};
use super::harness::secret::secret;
use super::harness::{Client, Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

async fn gateway(entra: &FakeEntra, backend: &FakeBackend, lines: &str) -> Gateway {
    let lines = entra.lines() + lines;
    let tenant = Tenant::new("a", backend).with(&lines).yaml();
    Setup::new().flag("--entra-authority", &entra.authority()).file("a.yaml", tenant).start().await
}

async fn stage(lines: &str) -> (FakeEntra, FakeBackend, Gateway) {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, lines).await;
    (entra, backend, gateway)
}

async fn refresh(app: &App<'_>, token: &str) -> Answer {
    let id = app.client_id.clone();
    app.post("/token", &[("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", &id)]).await
}

fn audit(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.path().join("state/audit.jsonl")).expect("there is an audit")
}

#[tokio::test]
async fn challenges_lead_to_the_metadata_before_anything_else_is_looked_at() {
    let (_entra, _backend, gateway) = stage("").await;
    let client = gateway.client();
    let base = client.base().to_owned();
    let plain = |path: &str| {
        format!(
            r#"Bearer realm="a", resource_metadata="{base}/a/.well-known/oauth-protected-resource{path}", scope="mcp:use""#
        )
    };
    for method in [reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::DELETE, reqwest::Method::PUT]
    {
        for (path, pointer) in [("/a/mcp", ""), ("/a/mcp/", "/mcp/")] {
            let request = client.request(method.clone(), path);
            let request = if method == reqwest::Method::POST { request.body("{ no JSON") } else { request };
            let answer = read(request.send().await.expect("an answer")).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), plain(pointer), "{method} {path}");
        }
    }
    let bad = client.clone().bearer("ey.bad.token").search(Era::Modern, "/a", "q").await;
    assert_eq!(bad.status, 401);
    let expected = plain("")
        + r#", error="invalid_token", error_description="the token is unknown, expired or revoked; log in again""#;
    assert_eq!(bad.header("www-authenticate"), expected);
    // A token in the query is ignored (RFC 6750, section 2.3 is not supported).
    let query = client.get("/a/mcp?access_token=x").await;
    assert_eq!((query.status, query.header("www-authenticate")), (401, plain("").as_str()));
}

async fn open_stream(client: &Client) -> reqwest::Response {
    let params = json!({ "notifications": { "toolsListChanged": true } });
    let stream = client.ask(Era::Modern, "/a/mcp", "subscriptions/listen", params).send().await;
    let stream = stream.expect("an answer");
    assert_eq!(stream.status(), 200);
    stream
}

#[tokio::test]
async fn revocation_ends_a_logins_calls_and_streams_at_once_and_no_others() {
    let (entra, backend, gateway) = stage("").await;
    let app = App::registered(&gateway, "/a").await;
    let (leaver, stayer) = (app.tokens(&entra).await, app.tokens(&entra).await);
    backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let client = |tokens: &Tokens| gateway.client().bearer(&tokens.access);
    let (mut gone, mut kept) = (open_stream(&client(&leaver)).await, open_stream(&client(&stayer)).await);
    let cut = async {
        let refused = client(&leaver).search(Era::Modern, "/a", "q").await;
        assert_eq!(refused.status, 401, "{refused:?}");
        while let Ok(Some(_)) = gone.chunk().await {}
        // The backend answers only now, so its answer did not end the call.
        backend.release();
    };
    let goes_on = async {
        assert_eq!(client(&stayer).search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
    };
    let revoke = async {
        backend.until(|counts| counts.in_flight == 2).await;
        let id = app.client_id.clone();
        let form = [("token", leaver.refresh.as_str()), ("client_id", &id)];
        assert_eq!(app.post("/revoke", &form).await.status, 200);
    };
    tokio::join!(cut, goes_on, revoke);
    backend.answer("/nlp-search", Reply::Rows);
    assert_eq!(client(&leaver).search(Era::Modern, "/a", "q").await.status, 401);
    // The other person's stream is still open: it receives the change of the tools.
    let tenant = Tenant::new("a", &backend).with(&(entra.lines() + "description: Other texts\n")).yaml();
    gateway.put("a.yaml", tenant);
    let mut heard = String::new();
    while !heard.contains("tools/list_changed") {
        let piece = kept.chunk().await.expect("the stream goes on").expect("the stream goes on");
        heard.push_str(&String::from_utf8_lossy(&piece));
    }
}

#[tokio::test]
async fn rules_that_change_end_what_is_under_way_and_judge_the_next_call() {
    let (entra, backend, gateway) = stage("").await;
    let app = App::registered(&gateway, "/a").await;
    let tokens = app.tokens(&entra).await;
    let client = gateway.client().bearer(&tokens.access);
    let mut stream = open_stream(&client).await;
    let closed = entra.lines() + "access: {roles: [Boss]}\n";
    gateway.put("a.yaml", Tenant::new("a", &backend).with(&closed).yaml());
    while let Ok(Some(_)) = stream.chunk().await {}
    let refused = client.search(Era::Modern, "/a", "q").await;
    // No scope would help, so there is no challenge: clients would request tokens forever.
    assert_eq!((refused.status, refused.headers.get("www-authenticate")), (403, None), "{refused:?}");
    let answer = refresh(&app, &tokens.refresh).await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_grant")));
}

#[tokio::test]
async fn a_tool_is_shown_to_those_who_may_use_it() {
    let lines = "access:\n  tools:\n    search: {roles: [Analyst]}\nbackend: {user_header: X-User}\n";
    let (entra, backend, gateway) = stage(lines).await;
    let app = App::registered(&gateway, "/a").await;
    let names = async |client: &Client, era| {
        let listed = client.rpc(era, "/a/mcp", "tools/list", json!({})).await.result();
        let tools = listed["tools"].as_array().expect("tools").clone();
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let outsider = gateway.client().bearer(&app.tokens(&entra).await.access);
    entra.account(json!({ "roles": ["Analyst"] }));
    let analyst = gateway.client().bearer(&app.tokens(&entra).await.access);
    for era in [Era::Modern, Era::Legacy] {
        assert_eq!(names(&outsider, era).await, ["get_context"]);
        assert_eq!(names(&analyst, era).await, ["search", "get_context"]);
        let refused = outsider.search(era, "/a", "q").await.tool_error();
        assert!(refused.contains("may not use this tool"), "{refused}");
        assert_eq!(analyst.search(era, "/a", "q").await.data()["row_count"], 2);
    }
    let searches: Vec<_> =
        backend.requests().into_iter().filter(|it| it.header("x-user").is_some()).collect();
    assert!(!searches.is_empty());
    for request in searches {
        assert_eq!(request.header("x-user").as_deref(), Some("ada@contoso.com"));
    }
}

fn app<'a>(gateway: &'a Gateway, client_id: &str) -> App<'a> {
    App { gateway, prefix: "/a", client_id: client_id.to_owned(), redirect_uri: CALLBACK.to_owned() }
}

#[tokio::test]
async fn a_kill_loses_no_login_and_no_rotation_that_was_answered() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    // The issuer contains the port, so the port must be the same after the restart.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("free").port();
    let tenant = Tenant::new("a", &backend).with(&entra.lines()).zip();
    let setup = Setup::listening(port).flag("--entra-authority", &entra.authority());
    let mut gateway = setup.file("a.zip", tenant).start().await;
    let client_id = App::registered(&gateway, "/a").await.client_id;
    let mut kept = app(&gateway, &client_id).tokens(&entra).await;
    for _ in 0..5 {
        // The process is killed right after the answer arrived.
        let sold = refresh(&app(&gateway, &client_id), &kept.refresh).await;
        assert_eq!(sold.status, 200, "{sold:?}");
        let new = app(&gateway, &client_id).tokens(&entra).await;
        let ended = app(&gateway, &client_id).tokens(&entra).await;
        let form = [("token", ended.refresh.as_str()), ("client_id", client_id.as_str())];
        assert_eq!(app(&gateway, &client_id).post("/revoke", &form).await.status, 200);
        let code = {
            let back = app(&gateway, &client_id).log_in(&mut Browser::new(&gateway), &entra).await;
            parameter(&back, "code").expect("a code")
        };
        gateway = gateway.kill_and_restart().await;
        let now = app(&gateway, &client_id);
        assert_eq!(now.redeem(&code).await.status, 200);
        assert_eq!(refresh(&now, &new.refresh).await.status, 200);
        assert_eq!(refresh(&now, &ended.refresh).await.status, 400);
        let caller = gateway.client().bearer(&ended.access);
        assert_eq!(caller.search(Era::Modern, "/a", "q").await.status, 401);
        kept = Tokens::of(&sold.json());
        let caller = gateway.client().bearer(&kept.access);
        assert_eq!(caller.search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
    }
}

fn keys(gateway: &Gateway, arguments: &[&str]) -> String {
    let admin = gateway.admin_address().to_string();
    let output =
        Command::new(BINARY).arg("keys").args(arguments).args(["--admin", &admin]).env_clear().output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn an_operator_changes_keys_gently_or_at_once() {
    let (entra, _backend, gateway) = stage("").await;
    let app = App::registered(&gateway, "/a").await;
    let tokens = app.tokens(&entra).await;
    let works = async |access: &str| {
        gateway.client().bearer(access).search(Era::Modern, "/a", "q").await.status == 200
    };
    assert_eq!(keys(&gateway, &["show", "a"]).matches("signing").count(), 1);
    let gentle = keys(&gateway, &["rotate", "a"]);
    assert!(gentle.contains("next") && gentle.contains("signs in one day"), "{gentle}");
    assert!(works(&tokens.access).await);
    let published = gateway.client().get("/a/.well-known/jwks.json").await.json();
    assert_eq!(published["keys"].as_array().map(Vec::len), Some(2), "{published}");
    let emergency = keys(&gateway, &["rotate", "a", "--emergency"]);
    assert!(emergency.contains("old keys are deleted"), "{emergency}");
    assert!(!works(&tokens.access).await);
    let renewed = refresh(&app, &tokens.refresh).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    assert!(works(&Tokens::of(&renewed.json()).access).await);
}

#[tokio::test]
async fn a_program_has_its_label_in_the_line_of_its_token_as_in_those_of_its_calls() {
    let digest = tenantd::base::digest::Digest::of(secret("program").as_bytes());
    let lines = format!("machine_clients: [{{id: job, label: Nightly, sha256: {digest}}}]\n");
    let (_entra, _backend, gateway) = stage(&lines).await;
    let app = App::registered(&gateway, "/a").await;
    let form = async |secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", "job"), ("client_secret", secret)];
        app.post("/token", &form).await
    };
    assert_eq!(form("c4naryS3cret-wrong").await.status, 401);
    let bought = form(&secret("program")).await.json();
    let token = bought["access_token"].as_str().expect("a token");
    // A client of an earlier revision names itself only in `initialize`.
    for era in [Era::Modern, Era::Legacy] {
        gateway.client().bearer(token).search(era, "/a", "q").await.data();
    }
    let lines = until("all is recorded", async || {
        let lines: Vec<Value> =
            audit(&gateway).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.iter().filter(|line| line["event"] == "call").count() == 2).then_some(lines)
    })
    .await;
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let (tokens, calls) = (of("token"), of("call"));
    assert_eq!(
        tokens.iter().map(|line| &line["label"]).collect::<Vec<_>>(),
        [&Value::Null, &json!("Nightly")]
    );
    assert!(calls.iter().all(|line| line["label"] == "Nightly" && line["client_id"] == "job"), "{calls:?}");
    let names: Vec<_> =
        calls.iter().map(|line| (line["client"].as_str(), line["user_agent"].as_str())).collect();
    assert_eq!(names[0], (Some("test"), None));
    assert!(names[1].0.is_none(), "{names:?}");
}

#[tokio::test]
async fn the_audit_says_who_did_what_and_no_secret() {
    let (entra, _backend, gateway) = stage("").await;
    let app = App::registered(&gateway, "/a").await;
    let back = app.log_in(&mut Browser::new(&gateway), &entra).await;
    let code = parameter(&back, "code").expect("a code");
    let tokens = Tokens::of(&app.redeem(&code).await.json());
    let client = gateway.client().bearer(&tokens.access);
    assert_eq!(client.search(Era::Modern, "/a", "canary-question").await.data()["row_count"], 2);
    // A client of an earlier revision does not name itself in its calls.
    client.search(Era::Legacy, "/a", "q").await.data();
    let renewed = Tokens::of(&refresh(&app, &tokens.refresh).await.json());
    let id = app.client_id.clone();
    app.post("/revoke", &[("token", &renewed.refresh), ("client_id", &id)]).await;
    assert_eq!(client.search(Era::Modern, "/a", "q").await.status, 401);
    // An audit line may be written after its answer was sent.
    let lines = until("the refusal is recorded", async || {
        let lines: Vec<Value> =
            audit(&gateway).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.iter().any(|line| line["event"] == "refusal").then_some(lines)
    })
    .await;
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let call = of("call")[0];
    assert_eq!(
        (&call["tenant"], &call["outcome"], &call["tool"]),
        (&json!("a"), &json!("ok"), &json!("search"))
    );
    let names: Vec<_> =
        of("call").iter().map(|line| (line["client"].as_str(), line["user_agent"].as_str())).collect();
    assert_eq!(
        names,
        [(Some("test"), None), (Some("A test"), None)],
        "its own name, or that of its registration"
    );
    assert_eq!((&call["user"], &call["client_id"]), (&json!("ada@contoso.com"), &json!(app.client_id)));
    let bought: Vec<_> =
        of("token").iter().map(|line| line["grant_type"].as_str().expect("a type").to_owned()).collect();
    assert_eq!(bought, ["authorization_code", "refresh_token"]);
    assert!(of("token").iter().all(|line| line["grant"] == call["grant"] && line["jti"].is_string()));
    assert!(of("token").iter().chain(&of("login")).all(|line| line["client"] == "A test"), "{lines:?}");
    assert_eq!((of("revocation").len(), &of("revocation")[0]["grant"]), (1, &call["grant"]));
    assert_eq!(of("refusal")[0]["outcome"], "invalid_token");
    let written = audit(&gateway) + &gateway.output();
    let proof = |token: &str| token.rsplit('.').next().expect("a proof").to_owned();
    let secrets =
        [&code, &tokens.access, &tokens.refresh, &renewed.access, &renewed.refresh].map(|token| proof(token));
    for secret in secrets.iter().map(String::as_str).chain(["canary-question", &secret("entra")]) {
        assert!(!written.contains(secret), "{secret} was written down");
    }
}
