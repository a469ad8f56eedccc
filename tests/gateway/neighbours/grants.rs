//! A grant belongs to one life of a tenant, one directory and one application.

use serde_json::json;

use super::super::harness::client::Answer;
use super::super::harness::entra::{DIRECTORY, FakeEntra, OTHER_APP, OTHER_DIRECTORY};
use super::super::harness::gateway::BINARY;
use super::super::harness::login::{App, Browser, CALLBACK, Tokens, parameter, register};
use super::super::harness::secret::secret;
use super::super::harness::{Beside, Era, FakeBackend, Gateway, Reply, Setup, Tenant};

const APP: &str = super::super::harness::entra::APP;

/// Tenants `a` and `b`, both with a login. The tests change `a`.
struct Stage {
    entra: FakeEntra,
    backend: FakeBackend,
    gateway: Gateway,
}

impl Stage {
    async fn new() -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let file = |name: &str| Tenant::new(name, &backend).with(&entra.lines()).yaml();
        // The issuer contains the port, so the port must be the same after a restart.
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let setup =
            Setup::listening(free.expect("free").port()).flag("--entra-authority", &entra.authority());
        let gateway = setup.file("a.yaml", file("a")).file("b.yaml", file("b")).start().await;
        Self { entra, backend, gateway }
    }

    /// Calls `b` as a logged-in person until [`Beside::finish`].
    async fn beside(&self) -> Beside {
        let tokens = App::registered(&self.gateway, "/b").await.tokens(&self.entra).await;
        Beside::watch(self.gateway.client().bearer(&tokens.access), "/b")
    }

    fn tenant(&self, lines: &str) -> Vec<u8> {
        Tenant::new("a", &self.backend).with(lines).yaml()
    }

    /// Replaces the file of `a` and waits until it is served.
    async fn put(&self, lines: &str) {
        self.gateway.put("a.yaml", self.tenant(lines));
        self.gateway.reload().await;
        self.gateway.until_state("a", "serving").await;
    }

    async fn call(&self, tokens: &Tokens) -> u16 {
        self.gateway.client().bearer(&tokens.access).search(Era::Modern, "/a", "q").await.status
    }

    fn app(&self, client_id: &str) -> App<'_> {
        let (client_id, redirect_uri) = (client_id.to_owned(), CALLBACK.to_owned());
        App { gateway: &self.gateway, prefix: "/a", client_id, redirect_uri }
    }
}

async fn refresh(app: &App<'_>, tokens: &Tokens) -> Answer {
    let id = app.client_id.clone();
    let form =
        [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh.as_str()), ("client_id", &id)];
    app.post("/token", &form).await
}

#[tokio::test]
async fn what_was_sold_under_another_app_or_directory_is_refused_at_once() {
    let mut stage = Stage::new().await;
    let beside = stage.beside().await;
    let here = stage.entra.lines();
    let several = |allowed: &str| {
        stage.entra.lines_of(APP, "organizations") + &format!("access: {{directories: [{allowed}]}}\n")
    };
    let changes = [
        ("another app", here.clone(), stage.entra.lines_of(OTHER_APP, DIRECTORY)),
        ("another directory", here.clone(), stage.entra.lines_of(APP, OTHER_DIRECTORY)),
        ("a domain, which may be anybody's", here.clone(), stage.entra.lines_of(APP, "contoso.com")),
        (
            "one of several no more",
            several(&format!("{DIRECTORY}, {OTHER_DIRECTORY}")),
            several(OTHER_DIRECTORY),
        ),
    ];
    for (what, before, after) in changes {
        stage.put(&before).await;
        let app = App::registered(&stage.gateway, "/a").await;
        let tokens = app.tokens(&stage.entra).await;
        let back = app.log_in(&mut Browser::new(&stage.gateway), &stage.entra).await;
        let code = parameter(&back, "code").expect("a code");
        assert_eq!(stage.call(&tokens).await, 200, "{what}");
        stage.put(&after).await;
        assert_eq!(stage.call(&tokens).await, 401, "{what}: the access token");
        let asked = stage.entra.forms().len();
        let refused = refresh(&app, &tokens).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")), "{what}");
        assert_eq!(stage.entra.forms().len(), asked, "{what}: another app was sent the login of this one");
        let refused = app.redeem(&code).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")), "{what}");
        // An operator's mistake that is corrected has ended no session.
        stage.put(&before).await;
        assert_eq!(stage.call(&tokens).await, 200, "{what}, put right");
        assert_eq!(refresh(&app, &tokens).await.status, 200, "{what}, put right");
    }
    beside.finish().await.assert_unharmed("b beside logins of a that end");
    // The same with empty caches.
    let app = App::registered(&stage.gateway, "/a").await;
    let (tokens, id) = (app.tokens(&stage.entra).await, app.client_id.clone());
    drop(app);
    stage.put(&stage.entra.lines_of(OTHER_APP, DIRECTORY)).await;
    stage.gateway = stage.gateway.kill_and_restart().await;
    assert_eq!(stage.call(&tokens).await, 401);
    assert_eq!(refresh(&stage.app(&id), &tokens).await.status, 400);
}

#[tokio::test]
async fn accounts_that_are_no_longer_taken_are_refused_at_once() {
    let stage = Stage::new().await;
    let beside = stage.beside().await;
    let personal = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let common = |more: &str| {
        stage.entra.lines_of(APP, "common") + &format!("access: {{directories: [{DIRECTORY}]{more}}}\n")
    };
    let here = stage.entra.lines();
    let changes = [
        ("a guest", json!({ "acct": 1 }), here.clone() + "access: {guests: true}\n", here.clone()),
        ("personal", json!({ "tid": personal }), common(", personal_accounts: true"), common("")),
        ("a domain", json!({}), here.clone(), here.clone() + "access: {email_domains: [example.com]}\n"),
        ("a role", json!({}), here.clone(), here + "access: {roles: [Boss]}\n"),
    ];
    for (what, account, before, after) in changes {
        stage.put(&before).await;
        stage.entra.account(account);
        let app = App::registered(&stage.gateway, "/a").await;
        let tokens = app.tokens(&stage.entra).await;
        let back = app.log_in(&mut Browser::new(&stage.gateway), &stage.entra).await;
        assert_eq!(stage.call(&tokens).await, 200, "{what}");
        stage.put(&after).await;
        assert_eq!(stage.call(&tokens).await, 403, "{what}: the access token");
        let code = parameter(&back, "code").expect("a code");
        assert_eq!(app.redeem(&code).await.status, 400, "{what}: the code");
        let refused = refresh(&app, &tokens).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")), "{what}");
    }
    beside.finish().await.assert_unharmed("b beside accounts of a that are shut out");
}

#[tokio::test]
async fn introspection_calls_no_token_active_that_a_call_would_be_refused_with() {
    let stage = Stage::new().await;
    let app = App::registered(&stage.gateway, "/a").await;
    let tokens = app.tokens(&stage.entra).await;
    let machine = format!(
        "machine_clients:\n  - id: asker\n    label: Asker\n    sha256: {}\n",
        tenantd::base::digest::Digest::of(secret("asker").as_bytes())
    );
    let active = async || {
        let form =
            [("token", tokens.access.as_str()), ("client_id", "asker"), ("client_secret", &secret("asker"))];
        app.post("/introspect", &form).await.json()["active"].clone()
    };
    stage.put(&(stage.entra.lines() + &machine)).await;
    assert_eq!(active().await, json!(true));
    for lines in [
        stage.entra.lines_of(OTHER_APP, DIRECTORY),
        stage.entra.lines_of(APP, OTHER_DIRECTORY),
        stage.entra.lines() + "access: {roles: [Boss]}\n",
    ] {
        stage.put(&(lines.clone() + &machine)).await;
        assert_eq!(active().await, json!(false), "{lines}");
    }
}

fn remove(gateway: &Gateway, name: &str) {
    let admin = gateway.admin_address().to_string();
    let output = std::process::Command::new(BINARY)
        .args(["tenants", "remove", name, "--admin", &admin])
        .env_clear()
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Credentials and artefacts from a tenant's previous life.
struct Old {
    client_id: String,
    secret: (String, String),
    code: String,
    tokens: Tokens,
    kids: Vec<String>,
}

impl Stage {
    async fn kids(&self) -> Vec<String> {
        let published = self.gateway.client().get("/a/.well-known/jwks.json").await.json();
        let kid = |key: &serde_json::Value| key["kid"].as_str().expect("a kid").to_owned();
        published["keys"].as_array().expect("keys").iter().map(kid).collect()
    }

    async fn old(&self) -> Old {
        let app = App::registered(&self.gateway, "/a").await;
        let told = register(&self.gateway, "/a", &json!({ "redirect_uris": [CALLBACK] })).await.json();
        let text = |name: &str| told[name].as_str().expect("a text").to_owned();
        let back = app.log_in(&mut Browser::new(&self.gateway), &self.entra).await;
        let tokens = app.tokens(&self.entra).await;
        assert_eq!(self.call(&tokens).await, 200);
        Old {
            secret: (text("client_id"), text("client_secret")),
            code: parameter(&back, "code").expect("a code"),
            tokens,
            kids: self.kids().await,
            client_id: app.client_id,
        }
    }

    /// Asserts that nothing from the previous life is accepted.
    async fn assert_begun_anew(&self, old: &Old, what: &str) {
        assert_eq!(self.call(&old.tokens).await, 401, "{what}: the access token");
        for client_id in [&old.client_id, &old.secret.0] {
            let app = self.app(client_id);
            let page = Browser::new(&self.gateway).get(&app.authorize_path(&[])).await;
            assert_eq!(page.status, 400, "{what}: the client id");
            for refused in [refresh(&app, &old.tokens).await, app.redeem(&old.code).await] {
                assert_eq!(
                    (refused.status, &refused.json()["error"]),
                    (401, &json!("invalid_client")),
                    "{what}"
                );
            }
        }
        let (id, secret) = &old.secret;
        let form = [("token", &*old.tokens.access), ("client_id", &**id), ("client_secret", secret)];
        assert_eq!(self.app(id).post("/introspect", &form).await.status, 401, "{what}");
        // Clients of the current life cannot use them either.
        let own = App::registered(&self.gateway, "/a").await;
        let app = self.app(&own.client_id);
        for refused in [refresh(&app, &old.tokens).await, app.redeem(&old.code).await] {
            assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")), "{what}");
        }
        let tokens = own.tokens(&self.entra).await;
        assert_eq!(self.call(&tokens).await, 200, "{what}: whoever logs in now");
        assert_eq!(refresh(&own, &tokens).await.status, 200, "{what}");
        let kids = self.kids().await;
        assert!(!kids.is_empty() && kids.iter().all(|kid| !old.kids.contains(kid)), "{what}: the keys");
    }
}

#[tokio::test]
async fn another_entry_that_takes_the_name_begins_anew() {
    let mut stage = Stage::new().await;
    let beside = stage.beside().await;
    let old = stage.old().await;
    let gone = async |stage: &Stage, file: &str, stem: &str| {
        stage.gateway.remove(file);
        stage.gateway.until_gone(stem).await;
    };
    gone(&stage, "a.yaml", "a").await;
    // Another entry takes the name, with the same app and directory but another owner.
    let taker = [b"name: a\n".to_vec(), stage.tenant(&stage.entra.lines())].concat();
    stage.gateway.put("zz.yaml", &taker);
    stage.gateway.until_state("a", "serving").await;
    stage.assert_begun_anew(&old, "another entry has the name").await;
    let of_taker = stage.old().await;
    // The first entry takes the name back; its first life is over.
    gone(&stage, "zz.yaml", "a").await;
    stage.put(&stage.entra.lines()).await;
    stage.assert_begun_anew(&of_taker, "the first entry has it again").await;
    stage.assert_begun_anew(&old, "and its earlier life is over").await;
    beside.finish().await.assert_unharmed("b beside a name that changes hands");
    stage.gateway = stage.gateway.kill_and_restart().await;
    stage.assert_begun_anew(&old, "after a restart").await;
}

#[tokio::test]
async fn removing_a_tenant_removes_its_logins_and_cuts_what_is_under_way() {
    let mut stage = Stage::new().await;
    let beside = stage.beside().await;
    let old = stage.old().await;
    stage.backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Rows)));
    let under_way = stage.gateway.client().bearer(&old.tokens.access);
    let call = under_way.search(Era::Modern, "/a", "q");
    let removed = async {
        stage.backend.until(|counts| counts.in_flight >= 1).await;
        remove(&stage.gateway, "a");
    };
    let (cut, ()) = tokio::join!(call, removed);
    assert!(cut.status != 200 || cut.text.contains(r#""isError":true"#), "{cut:?}");
    stage.backend.answer("/nlp-search", Reply::Rows);
    stage.backend.release();
    // The new tenant has the same app, directory and file name.
    stage.put(&stage.entra.lines()).await;
    stage.assert_begun_anew(&old, "removed, then dropped again").await;
    beside.finish().await.assert_unharmed("b beside a tenant that is removed");
    stage.gateway = stage.gateway.kill_and_restart().await;
    stage.assert_begun_anew(&old, "after a restart").await;
}

#[tokio::test]
async fn files_that_are_dropped_again_log_nobody_out() {
    let mut stage = Stage::new().await;
    let old = stage.old().await;
    stage.gateway.remove("a.yaml");
    stage.gateway.until_gone("a").await;
    stage.put(&(stage.entra.lines() + "description: Newer\n")).await;
    assert_eq!(stage.call(&old.tokens).await, 200);
    stage.gateway.remove("a.yaml");
    stage.gateway.until_gone("a").await;
    stage.gateway = stage.gateway.kill_and_restart().await;
    stage.put(&stage.entra.lines()).await;
    assert_eq!(stage.call(&old.tokens).await, 200, "though a restart lay between");
    assert_eq!(refresh(&stage.app(&old.client_id), &old.tokens).await.status, 200);
}

#[tokio::test]
async fn a_program_whose_secret_is_replaced_is_refused_at_once() {
    let stage = Stage::new().await;
    let lines = |secret: &str| {
        let digest = tenantd::base::digest::Digest::of(secret.as_bytes());
        stage.entra.lines() + &format!("machine_clients:\n  - {{id: job, label: Job, sha256: {digest}}}\n")
    };
    let buy = async |secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", "job"), ("client_secret", secret)];
        stage.app("job").post("/token", &form).await
    };
    let call =
        async |token: &str| stage.gateway.client().bearer(token).search(Era::Modern, "/a", "q").await.status;
    stage.put(&lines(&secret("first"))).await;
    let bought = buy(&secret("first")).await.json()["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(call(&bought).await, 200);
    stage.put(&(lines(&secret("first")) + "description: Other texts\n")).await;
    assert_eq!(call(&bought).await, 200, "what else changes is nothing to it");
    stage.put(&lines(&secret("second"))).await;
    assert_eq!(call(&bought).await, 401);
    let bought = buy(&secret("second")).await.json()["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(call(&bought).await, 200);
}
