//! Every credential and artefact of tenant A at every endpoint of tenant B. Both tenants use the
//! same app and directory, and the same person logs in: only the tenant differs.

use reqwest::Method;
use serde_json::json;

use super::super::harness::client::{Answer, read};
use super::super::harness::login::{
    App, Browser, CALLBACK, Form, Tokens, VERIFIER, field, parameter, register,
};
use super::*;

/// The credentials and artefacts of A.
struct Loot<'a> {
    gateway: &'a Gateway,
    public: App<'a>,
    confidential: (String, String),
    code: String,
    tokens: Tokens,
    /// A consent form, and the browser that received it.
    consent: (String, Browser),
    /// A callback URL, and the browser that may finish that login.
    callback: (String, Browser),
}

async fn loot<'a>(gateway: &'a Gateway, entra: &FakeEntra) -> Loot<'a> {
    let public = App::registered(gateway, "/a").await;
    let body = json!({ "redirect_uris": [CALLBACK] });
    let told = register(gateway, "/a", &body).await.json();
    let text = |name: &str| told[name].as_str().expect("a text").to_owned();
    let (mut asked, mut under_way) = (Browser::new(gateway), Browser::new(gateway));
    let blob = field(&asked.get(&public.authorize_path(&[])).await.text, "request");
    let callback = public.log_in_at_microsoft(&mut under_way, entra).await;
    let back = public.log_in(&mut Browser::new(gateway), entra).await;
    Loot {
        gateway,
        confidential: (text("client_id"), text("client_secret")),
        code: parameter(&back, "code").expect("a code"),
        tokens: public.tokens(entra).await,
        consent: (blob, asked),
        callback: (callback, under_way),
        public,
    }
}

/// Asserts that a response of B contains nothing of A.
fn assert_nothing_of_a(answer: &Answer, what: &str) {
    let told = format!("{} {:?}", answer.text, answer.headers);
    assert!(
        !told.contains("/a/") && !told.contains("The a data") && !told.contains("A test"),
        "{what}: {told}"
    );
}

impl Loot<'_> {
    async fn post(&self, endpoint: &str, form: &[(&str, &str)], basic: Option<(&str, &str)>) -> Answer {
        let mut request = self.gateway.client().request(Method::POST, &format!("/b{endpoint}")).form_of(form);
        if let Some((id, secret)) = basic {
            request = request.basic_auth(id, Some(secret));
        }
        read(request.send().await.expect("an answer")).await
    }
}

#[tokio::test]
async fn nothing_of_one_tenant_is_worth_anything_at_another() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a", "b"]).await;
    let mut loot = loot(&gateway, &entra).await;
    let (id, client_secret) = loot.confidential.clone();
    let public = loot.public.client_id.clone();
    let own = App::registered(&gateway, "/b").await;

    // Access token, refresh token and code as bearer tokens.
    for token in [&loot.tokens.access, &loot.tokens.refresh, &loot.code] {
        let refused = gateway.client().bearer(token).search(Era::Modern, "/b", "q").await;
        assert_eq!(refused.status, 401, "{refused:?}");
        assert!(refused.header("www-authenticate").contains("invalid_token"));
        assert_nothing_of_a(&refused, "bearer");
    }
    let answer = gateway.client().bearer(&loot.tokens.access).search(Era::Modern, "/a", "q").await;
    assert_eq!(answer.data()["row_count"], 2, "at its own tenant it is good");

    // Client ids and the secret at every endpoint that accepts them.
    for client_id in [public.as_str(), id.as_str()] {
        let page = Browser::new(&gateway).get(&own.authorize_path(&[("client_id", client_id)])).await;
        assert_eq!(page.status, 400);
        assert_nothing_of_a(&page, "authorize");
    }
    let code = [
        ("grant_type", "authorization_code"),
        ("code", loot.code.as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", loot.tokens.refresh.as_str())];
    let machine = [("grant_type", "client_credentials")];
    for form in [code.as_slice(), refresh.as_slice(), machine.as_slice()] {
        let with_public: Vec<_> = form.iter().copied().chain([("client_id", public.as_str())]).collect();
        let with_secret = form
            .iter()
            .copied()
            .chain([("client_id", id.as_str()), ("client_secret", client_secret.as_str())]);
        let with_secret: Vec<_> = with_secret.collect();
        for (form, basic) in
            [(&with_public[..], None), (&with_secret[..], None), (form, Some((&*id, &*client_secret)))]
        {
            let refused = loot.post("/token", form, basic).await;
            assert_eq!(
                (refused.status, &refused.json()["error"]),
                (401, &json!("invalid_client")),
                "{refused:?}"
            );
            assert_nothing_of_a(&refused, "token");
        }
    }
    // A's code and refresh token, presented by B's own client.
    for form in [code.as_slice(), refresh.as_slice()] {
        let form: Vec<_> = form.iter().copied().chain([("client_id", own.client_id.as_str())]).collect();
        let refused = loot.post("/token", &form, None).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")), "{refused:?}");
        assert_nothing_of_a(&refused, "token");
    }
    // Revocation and introspection by B's client have no effect and reveal nothing.
    let told = register(&gateway, "/b", &json!({ "redirect_uris": [CALLBACK] })).await.json();
    let text = |name: &str| told[name].as_str().expect("a text").to_owned();
    let (b_id, b_secret) = (text("client_id"), text("client_secret"));
    for token in [&loot.tokens.access, &loot.tokens.refresh, &loot.code] {
        let form = [("token", token.as_str())];
        let revoked = loot.post("/revoke", &form, Some((&b_id, &b_secret))).await;
        assert_eq!(revoked.status, 200, "{revoked:?}");
        assert_nothing_of_a(&revoked, "revoke");
        let told = loot.post("/introspect", &form, Some((&b_id, &b_secret))).await;
        assert_eq!(told.json(), json!({ "active": false }), "{told:?}");
        let foreign = loot.post("/introspect", &form, Some((&id, &client_secret))).await;
        assert_eq!(foreign.status, 401, "{foreign:?}");
    }
    // Form and cookie of A's consent, state and cookie of A's login.
    let (blob, browser) = &mut loot.consent;
    let names: Vec<_> = browser.cookies.keys().cloned().collect();
    for name in names {
        let value = browser.cookies[&name].clone();
        browser.cookies.insert(name.replace(".a", ".b"), value);
    }
    let refused = browser.post("/b/consent", &[("request", blob), ("decision", "allow")]).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_nothing_of_a(&refused, "consent");
    let (callback, browser) = &mut loot.callback;
    let names: Vec<_> = browser.cookies.keys().cloned().collect();
    for name in names {
        let value = browser.cookies[&name].clone();
        browser.cookies.insert(name.replace(".a", ".b"), value);
    }
    let at_b = callback.replace("/a/auth/", "/b/auth/");
    let refused = browser.get(&at_b).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_nothing_of_a(&refused, "callback");
    // At A everything is still valid: B has neither used nor revoked it.
    assert_eq!(browser.get(callback).await.status, 302);
    assert_eq!(loot.public.redeem(&loot.code).await.status, 200);
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", loot.tokens.refresh.as_str()),
        ("client_id", public.as_str()),
    ];
    assert_eq!(loot.public.post("/token", &form).await.status, 200);
}

#[tokio::test]
async fn keys_and_tokens_do_not_stand_for_each_other() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let keys = format!("api_keys:\n  - label: ci\n    key: {}\n", secret("caller"));
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let setup = setup.file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml());
    let gateway = setup.file("k.yaml", Tenant::new("k", &backend).with(&keys).yaml()).start().await;
    let tokens = App::registered(&gateway, "/a").await.tokens(&entra).await;
    let status = async |token: &str, prefix: &str| {
        gateway.client().bearer(token).search(Era::Modern, prefix, "q").await.status
    };
    assert_eq!(status(&secret("caller"), "/k").await, 200);
    assert_eq!(status(&secret("caller"), "/a").await, 401);
    assert_eq!(status(&tokens.access, "/k").await, 401);
    assert_eq!(status(&tokens.access, "/a").await, 200);
}
