//! What operators do about logins: restrict who may log in, register clients, remove clients.

use std::process::{Command, Output};

use serde_json::json;
use url::Url;

use super::super::harness::gateway::BINARY;
use super::super::harness::login::{App, Browser, Form, parameter, way};
use super::*;

const GROUP: &str = "11112222-3333-4444-5555-666677778888";
const USER: &str = "00aa11bb-22cc-33dd-44ee-55ff66007788";

/// Runs the command line against the gateway.
fn tenantd(gateway: &Gateway, arguments: &[&str]) -> Output {
    let admin = gateway.admin_address().to_string();
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["--admin", &admin]).env_clear().output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Logs in with these claims at a tenant with these rules. Returns the callback's status and OAuth
/// error.
async fn outcome(rules: &str, claims: serde_json::Value) -> (u16, Option<String>) {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let tenant = Tenant::new("a", &backend).with(&entra.lines()).with(rules);
    let gateway = setup.file("a.yaml", tenant.yaml()).start().await;
    entra.account(claims);
    let app = App::registered(&gateway, "/a").await;
    let mut browser = Browser::new(&gateway);
    let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
    let answer = browser.get(&callback).await;
    let error = (answer.status != 302).then(|| {
        let back = Url::parse(&way(&answer.text)).expect("a URL");
        parameter(&back, "error").expect("an error")
    });
    (answer.status, error)
}

#[tokio::test]
async fn who_may_log_in_is_what_the_tenants_file_says() {
    let guest = json!({ "acct": 1, "preferred_username": "ext@other.example" });
    let mail = json!({ "preferred_username": "ann@Contoso.example" });
    let overage = json!({ "_claim_names": { "groups": "src1" } });
    for (rules, claims, may) in [
        ("", json!({}), true),
        ("access:\n  roles: [Analyst]", json!({}), false),
        ("access:\n  roles: [Analyst]", json!({ "roles": ["analyst"] }), false),
        ("access:\n  roles: [Analyst]", json!({ "roles": ["Reader", "Analyst"] }), true),
        (&*format!("access:\n  groups: [{GROUP}]"), json!({ "groups": [GROUP] }), true),
        (&*format!("access:\n  groups: [{GROUP}]"), json!({ "groups": [USER] }), false),
        (&*format!("access:\n  groups: [{GROUP}]"), overage, false),
        (&*format!("access:\n  users: [{USER}]"), json!({}), true),
        (&*format!("access:\n  users: [{GROUP}]"), json!({}), false),
        ("access:\n  email_domains: [contoso.example]", mail.clone(), true),
        ("access:\n  email_domains: [fabrikam.example]", mail, false),
        ("", guest.clone(), false),
        ("access:\n  guests: true", guest, true),
    ] {
        let (status, error) = outcome(rules, claims.clone()).await;
        let expected = if may { (302, None) } else { (403, Some("access_denied".to_owned())) };
        assert_eq!((status, error), expected, "{rules} {claims}");
    }
}

#[tokio::test]
async fn a_client_that_was_entered_logs_in_until_it_is_shut_out() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a", "b"]).await;
    let redirect_uri = "https://global.consent.azure-apim.net/redirect/cr-acme";
    let added = ["clients", "add", "a", "--name", "Copilot", "--redirect-uri", redirect_uri];
    let said = text(&tenantd(&gateway, &added));
    let word =
        |mark: &str| said.split_whitespace().find(|word| word.starts_with(mark)).expect(mark).to_owned();
    let (client_id, client_secret) = (word("op_"), word("cs_"));
    let listed = text(&tenantd(&gateway, &["clients", "list", "a"]));
    assert!(
        listed.contains(&client_id) && listed.contains(redirect_uri) && !listed.contains(&client_secret),
        "{listed}"
    );
    assert!(!text(&tenantd(&gateway, &["clients", "list", "b"])).contains(&client_id));

    // A client that the operator registered may omit PKCE.
    let app = App {
        gateway: &gateway,
        prefix: "/a",
        client_id: client_id.clone(),
        redirect_uri: redirect_uri.to_owned(),
    };
    let mut browser = Browser::new(&gateway);
    let page =
        browser.get(&app.authorize_path(&[("code_challenge", ""), ("code_challenge_method", "")])).await;
    assert!(
        page.status == 200 && page.text.contains("added by this server") && page.text.contains("Copilot"),
        "{page:?}"
    );
    let callback = app.consent_and_visit(&mut browser, &page, &entra).await;
    let done = browser.get(&callback).await;
    let back = Url::parse(done.header("location")).expect("a URL");
    let code = parameter(&back, "code").expect("a code");
    let buy = async |form: &[(&str, &str)]| {
        let request = gateway.client().request(reqwest::Method::POST, "/a/token").form_of(form);
        let request = request.basic_auth(&client_id, Some(&client_secret));
        super::super::harness::client::read(request.send().await.expect("an answer")).await
    };
    let form = [("grant_type", "authorization_code"), ("code", &*code), ("redirect_uri", redirect_uri)];
    let sold = buy(&form).await;
    assert_eq!(sold.status, 200, "{sold:?}");
    // It acts only for people: machine clients are configured in the tenant's file.
    let by_itself = buy(&[("grant_type", "client_credentials")]).await;
    assert_eq!((by_itself.status, by_itself.json()["error"].as_str()), (400, Some("unauthorized_client")));
    let token = sold.json()["access_token"].as_str().expect("a token").to_owned();
    let status =
        async |token: &str| gateway.client().bearer(token).search(Era::Modern, "/a", "q").await.status;
    assert_eq!(status(&token).await, 200);
    // The other tenant does not know the client.
    let foreign = App {
        gateway: &gateway,
        prefix: "/b",
        client_id: client_id.clone(),
        redirect_uri: redirect_uri.to_owned(),
    };
    assert_eq!(Browser::new(&gateway).get(&foreign.authorize_path(&[])).await.status, 400);

    let gone = text(&tenantd(&gateway, &["clients", "remove", "a", &client_id]));
    assert!(gone.contains("1 of its logins"), "{gone}");
    assert_eq!(status(&token).await, 401, "its tokens are over at once");
    assert_eq!(browser.get(&app.authorize_path(&[])).await.status, 400);
    assert!(!tenantd(&gateway, &["clients", "remove", "a", &client_id]).status.success());

    // A client that registered itself is blocked by its id; a new registration is not.
    let registered = App::registered(&gateway, "/a").await;
    let tokens = registered.tokens(&entra).await;
    assert_eq!(status(&tokens.access).await, 200);
    text(&tenantd(&gateway, &["clients", "remove", "a", &registered.client_id]));
    assert_eq!(status(&tokens.access).await, 401);
    assert_eq!(Browser::new(&gateway).get(&registered.authorize_path(&[])).await.status, 400);
    let refused = tenantd(
        &gateway,
        &["clients", "add", "a", "--name", "x", "--redirect-uri", "http://evil.example/cb"],
    );
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("http is allowed for loopback only"),
        "{refused:?}"
    );
}
