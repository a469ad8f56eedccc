//! A grant belongs to one tenant's life, directory and application.

use serde_json::json;

use super::super::harness::client::Answer;
use super::super::harness::entra::{DIRECTORY, FakeEntra, OTHER_APP, OTHER_DIRECTORY};
use super::super::harness::login::{App, Browser, Tokens, parameter};
use super::super::harness::secret::secret;
use super::super::harness::{Beside, Era, FakeBackend, Gateway, Setup, Tenant};

const APP: &str = super::super::harness::entra::APP;

/// Tenants `a` and `b`, both with a login; `a` is what changes.
struct Stage {
    entra: FakeEntra,
    backend: FakeBackend,
    gateway: Gateway,
}

impl Stage {
    async fn new() -> Self {
        let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
        let file = |name: &str| Tenant::new(name, &backend).with(&entra.lines()).yaml();
        // The issuer has the port in it, and is the same after a restart.
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let setup =
            Setup::listening(free.expect("free").port()).flag("--entra-authority", &entra.authority());
        let gateway = setup.file("a.yaml", file("a")).file("b.yaml", file("b")).start().await;
        Self { entra, backend, gateway }
    }

    /// Calls `b` as somebody who logged in there, until told to end.
    async fn beside(&self) -> Beside {
        let tokens = App::registered(&self.gateway, "/b").await.tokens(&self.entra).await;
        Beside::watch(self.gateway.client().bearer(&tokens.access), "/b")
    }

    fn tenant(&self, lines: &str) -> Vec<u8> {
        Tenant::new("a", &self.backend).with(lines).yaml()
    }

    /// The file of `a` says this from now on.
    async fn put(&self, lines: &str) {
        self.gateway.put("a.yaml", self.tenant(lines));
        self.gateway.reload().await;
        self.gateway.until_state("a", "serving").await;
    }

    async fn call(&self, tokens: &Tokens) -> u16 {
        self.gateway.client().bearer(&tokens.access).search(Era::Modern, "/a", "q").await.status
    }

    fn app(&self, client_id: &str) -> App<'_> {
        let redirect_uri = super::super::harness::login::CALLBACK.to_owned();
        App { gateway: &self.gateway, prefix: "/a", client_id: client_id.to_owned(), redirect_uri }
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
        // A slip of the operator's that is put right has ended nobody's session.
        stage.put(&before).await;
        assert_eq!(stage.call(&tokens).await, 200, "{what}, put right");
        assert_eq!(refresh(&app, &tokens).await.status, 200, "{what}, put right");
    }
    beside.finish().await.assert_unharmed("b beside logins of a that end");
    // The same with nothing in memory of what was recognised before.
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
