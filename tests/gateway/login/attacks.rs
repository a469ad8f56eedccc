//! Attacks of strangers on the logins of others.

use reqwest::Method;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::super::harness::client::{Answer, read};
use super::super::harness::entra::APP;
use super::super::harness::login::{App, Browser, CALLBACK, Form, field, parameter, register, way};
use super::*;

async fn ground() -> (FakeEntra, FakeBackend, Gateway) {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    (entra, backend, gateway)
}

/// Asserts an error page without links or redirects, with the security headers of all pages.
fn assert_stops(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {answer:?}");
    assert!(!answer.headers.contains_key("location"), "{what}");
    assert!(!answer.text.contains("<a ") && !answer.text.contains("http-equiv"), "{what}: {}", answer.text);
    assert_guarded(answer);
}

fn assert_guarded(answer: &Answer) {
    let policy = answer.header("content-security-policy");
    for directive in [
        "default-src 'none'",
        "style-src 'nonce-",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(directive), "{directive} in {policy}");
    }
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert!(
        !answer.text.contains("<script") && !answer.text.contains("<img") && !answer.text.contains("src=")
    );
}

#[tokio::test]
async fn a_consent_is_only_good_in_the_browser_that_was_asked() {
    let (_entra, _backend, gateway) = ground().await;
    let app = App::registered(&gateway, "/a").await;
    let (mut attacker, mut victim) = (Browser::new(&gateway), Browser::new(&gateway));
    let page = attacker.get(&app.authorize_path(&[])).await;
    assert_guarded(&page);
    let forged = field(&page.text, "request");
    let allow = [("request", forged.as_str()), ("decision", "allow")];
    assert_stops(&victim.post("/a/consent", &allow).await, "no cookie");
    let own = field(&victim.get(&app.authorize_path(&[])).await.text, "request");
    assert_stops(&victim.post("/a/consent", &allow).await, "another's form");
    let mut changed = own.clone();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.insert(changed.len() / 2, last);
    assert_stops(
        &victim.post("/a/consent", &[("request", &changed), ("decision", "allow")]).await,
        "changed",
    );
    assert_stops(&victim.post("/a/consent", &[("request", &own)]).await, "no decision");
    // As browsers mark a form from another site.
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        let cookies: Vec<_> = victim.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request =
            gateway.client().request(Method::POST, "/a/consent").header("cookie", cookies.join("; "));
        let request = request.header(name, value).form_of(&[("request", &own), ("decision", "allow")]);
        assert_stops(&read(request.send().await.expect("an answer")).await, value);
    }
    assert_eq!(victim.post("/a/consent", &[("request", &own), ("decision", "allow")]).await.status, 200);
}

#[tokio::test]
async fn a_callback_is_only_good_in_the_browser_that_consented_and_once() {
    let (entra, _backend, gateway) = ground().await;
    let app = App::registered(&gateway, "/a").await;
    let (mut attacker, mut victim) = (Browser::new(&gateway), Browser::new(&gateway));
    let callback = app.log_in_at_microsoft(&mut attacker, &entra).await;
    assert_stops(&victim.get(&callback).await, "no login was begun here");
    app.log_in_at_microsoft(&mut victim, &entra).await;
    assert_stops(&victim.get(&callback).await, "another's login");
    let state = parameter(&Url::parse(&callback).expect("a URL"), "state").expect("a state");
    assert_stops(&attacker.get(&callback.replace(&state, &state.to_lowercase())).await, "another state");
    assert_stops(&attacker.get("/a/auth/ms-callback?code=x").await, "no state");
    assert_eq!(attacker.get(&callback).await.status, 302);
    let page = attacker.get(&callback).await;
    assert_stops(&page, "already finished");
    // The operator finds the page's reference in the log.
    let text = &page.text;
    let reference = text.split("Reference for the operator: <code>").nth(1).expect("a reference");
    let reference = reference.split("</code>").next().expect("it ends");
    assert!(gateway.output().contains(reference), "{reference} is not in the log");
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_the_client_did_not_register() {
    let (_entra, _backend, gateway) = ground().await;
    let app = App::registered(&gateway, "/a").await;
    let mut browser = Browser::new(&gateway);
    for redirect_uri in [
        "https://evil.example/callback",
        "http://127.0.0.1:7777/callback/../evil",
        "http://127.0.0.1:7777/callback/",
        "http://127.0.0.1:7777/callback?x=1",
        "http://127.0.0.1:7777/callback#x",
        "http://localhost:7777/callback",
        "http://127.0.0.1:7777@evil.example/callback",
        "http://127.0.0.1.evil.example:7777/callback",
        "http://2130706433:7777/callback",
        "javascript:alert(1)",
        "data:text/html,x",
    ] {
        let answer = browser.get(&app.authorize_path(&[("redirect_uri", redirect_uri)])).await;
        assert_stops(&answer, redirect_uri);
    }
    assert_stops(&browser.get(&app.authorize_path(&[("redirect_uri", "")])).await, "none, on loopback");
    let twice = format!("{}&redirect_uri=https%3A%2F%2Fevil.example", app.authorize_path(&[]));
    assert_stops(&browser.get(&twice).await, "two of them");
    assert_eq!(
        browser.get(&app.authorize_path(&[("redirect_uri", "http://127.0.0.1:1/callback")])).await.status,
        200
    );
    for client_id in ["c1.AAAA", "nobody", "https://127.0.0.1/client.json", "https://[::1]/client.json", ""] {
        let answer = browser.get(&app.authorize_path(&[("client_id", client_id)])).await;
        assert_stops(&answer, client_id);
    }
}

#[tokio::test]
async fn whoever_enters_the_azure_client_id_reads_what_to_enter_instead() {
    let (_entra, _backend, gateway) = ground().await;
    let app = App::registered(&gateway, "/a").await;
    let page = Browser::new(&gateway).get(&app.authorize_path(&[("client_id", &APP.to_uppercase())])).await;
    assert_stops(&page, "the app's id in Azure");
    assert!(
        page.text.contains("app registration in Azure") && page.text.contains("leave client id"),
        "{}",
        page.text
    );
    let path = app.authorize_path(&[("client_id", APP)]);
    let program = gateway.client().request(Method::GET, &path).header("accept", "application/json");
    let answer = read(program.send().await.expect("an answer")).await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_client")));
}

/// Asserts a page that offers a link and does not redirect by itself. Returns the link's target.
fn by_hand(answer: &Answer, what: &str) -> Url {
    assert!(!answer.headers.contains_key("location"), "{what}: {answer:?}");
    assert!(!answer.text.contains("http-equiv"), "{what}: {}", answer.text);
    assert_guarded(answer);
    Url::parse(&way(&answer.text)).expect("a URL")
}

/// Registers a public client as an operator does.
async fn entered<'a>(gateway: &'a Gateway, redirect_uri: &str) -> App<'a> {
    let body = json!({ "name": "Ours", "redirect_uris": [redirect_uri], "public": true });
    let url = format!("http://{}/api/tenants/a/clients", gateway.admin_address());
    let request = reqwest::Client::new().post(url).header("content-type", "application/json");
    let answer = read(request.body(body.to_string()).send().await.expect("an answer")).await;
    let client_id = answer.json()["client_id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    App { gateway, prefix: "/a", client_id, redirect_uri: redirect_uri.to_owned() }
}

#[tokio::test]
async fn a_flaw_is_told_with_state_and_issuer_by_a_link_or_where_the_client_is_vouched_for_by_a_redirect() {
    let (_entra, _backend, gateway) = ground().await;
    let app = App::registered(&gateway, "/a").await;
    let ours = entered(&gateway, CALLBACK).await;
    let claude = App {
        client_id: "https://claude.ai/oauth/claude-code-client-metadata".to_owned(),
        redirect_uri: "http://127.0.0.1:7777/callback".to_owned(),
        ..App::registered(&gateway, "/a").await
    };
    let issuer = format!("{}/a", gateway.client().base());
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
        (("response_mode", "fragment"), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("resource", "https://other.example/mcp"), "invalid_target"),
        (("prompt", "none"), "interaction_required"),
    ] {
        for (app, expected) in [(&app, 400), (&ours, 302), (&claude, 302)] {
            let answer = Browser::new(&gateway).get(&app.authorize_path(&[change])).await;
            assert_eq!(answer.status, expected, "{change:?}: {answer:?}");
            let back = match expected {
                302 => Url::parse(answer.header("location")).expect("a URL"),
                _ => by_hand(&answer, change.0),
            };
            assert!(back.as_str().starts_with(CALLBACK), "{back}");
            assert_eq!(parameter(&back, "error").as_deref(), Some(error), "{change:?}");
            assert_eq!(parameter(&back, "state").as_deref(), Some("st%te &+ä"), "{change:?}");
            assert_eq!(parameter(&back, "iss").as_ref(), Some(&issuer), "{change:?}");
            assert!(parameter(&back, "code").is_none());
        }
    }
    for resource in ["/a/mcp", "/a/mcp/", "/a", "/a/mcp?x=1"] {
        let resource = format!("{}{resource}", gateway.client().base());
        let path = app.authorize_path(&[("resource", &resource), ("resource", &resource)]);
        assert_eq!(Browser::new(&gateway).get(&path).await.status, 200, "{resource}");
    }
}

#[tokio::test]
async fn a_person_who_cancels_is_told_to_the_client_and_microsoft_hears_nothing() {
    let (_entra, _backend, gateway) = ground().await;
    let app = App::registered(&gateway, "/a").await;
    let mut browser = Browser::new(&gateway);
    let blob = field(&browser.get(&app.authorize_path(&[])).await.text, "request");
    let page = browser.post("/a/consent", &[("request", &blob), ("decision", "deny")]).await;
    let back = Url::parse(&way(&page.text)).expect("a URL");
    assert!(back.as_str().starts_with(CALLBACK));
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&back, "state").as_deref(), Some("st%te &+ä"));
    assert!(parameter(&back, "iss").is_some());
    assert!(!browser.cookies.keys().any(|name| name.contains("login")), "{:?}", browser.cookies.keys());
}

#[tokio::test]
async fn whoever_may_not_reads_why_and_the_client_is_told() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let narrowed = format!("{}access:\n  roles: [analyst]\n", entra.lines());
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).with(&narrowed).yaml()).start().await;
    let app = App::registered(&gateway, "/a").await;
    let mut browser = Browser::new(&gateway);
    let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
    let refused = browser.get(&callback).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_guarded(&refused);
    let back = Url::parse(&way(&refused.text)).expect("a URL");
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    assert!(parameter(&back, "code").is_none() && parameter(&back, "iss").is_some());
    entra.account(json!({ "roles": ["analyst"] }));
    app.tokens(&entra).await;
}

#[tokio::test]
async fn what_a_client_calls_itself_is_shown_as_text_and_never_trusted() {
    let (_entra, _backend, gateway) = ground().await;
    let name = "<script>alert(1)</script>\u{202e}edualC";
    let body = json!({ "client_name": name, "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none",
                       "logo_uri": "https://evil.example/logo.png" });
    let id = register(&gateway, "/a", &body).await.json()["client_id"].as_str().expect("an id").to_owned();
    let app = App { client_id: id, ..App::registered(&gateway, "/a").await };
    let page = Browser::new(&gateway).get(&app.authorize_path(&[])).await;
    assert_guarded(&page);
    assert!(!page.text.contains('\u{202e}') && !page.text.contains("evil.example"), "{}", page.text);
    assert!(
        page.text.contains("nobody has checked the name") && page.text.contains("this computer"),
        "{}",
        page.text
    );
}

#[tokio::test]
async fn a_name_that_is_not_what_it_seems_is_cleaned_or_shown_with_a_warning() {
    let (_entra, _backend, gateway) = ground().await;
    let shown = async |name: &str, redirect_uri: &str| {
        let body = json!({ "client_name": name, "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none" });
        let told = register(&gateway, "/a", &body).await.json();
        let client_id = told["client_id"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
        let app = App { gateway: &gateway, prefix: "/a", client_id, redirect_uri: redirect_uri.to_owned() };
        let page = Browser::new(&gateway).get(&app.authorize_path(&[])).await;
        assert_guarded(&page);
        page.text
    };
    for nothing in ["\u{3164}", "\u{115f}\u{1160}", "\u{2800}", "\u{180e}", "\u{fe0f}", "\u{301}\u{301}"] {
        let page = shown(nothing, CALLBACK).await;
        assert!(page.contains("Allow An application without a name to use"), "{nothing:?}: {page}");
    }
    let stacked = shown(&format!("Cl{}aude", "\u{301}".repeat(78)), CALLBACK).await;
    assert!(stacked.contains("Allow Cl\u{301}\u{301}aude to use"), "{stacked}");
    let mixed = shown("M\u{456}crosoft", CALLBACK).await;
    assert!(mixed.contains("letters of another alphabet"), "{mixed}");
    assert!(!shown("Größe & Яндекс", CALLBACK).await.contains("letters of another alphabet"));
    // A custom scheme that is spelled like a host.
    let scheme = shown("Claude", "claude.ai:/api/mcp/auth_callback").await;
    assert!(!scheme.contains("<strong>claude.ai</strong>"), "{scheme}");
    for said in [
        "an application on this device that handles claude.ai: links",
        "is not a website",
        "class=\"warning\"",
    ] {
        assert!(scheme.contains(said), "{said:?} is not said: {scheme}");
    }
}

#[tokio::test]
async fn a_program_on_the_device_is_one_that_is_known_and_opened_by_the_person() {
    let (entra, _backend, gateway) = ground().await;
    for scheme in [
        "ms-msdt",
        "search-ms",
        "ms-officecmd",
        "ms-appinstaller",
        "ms-settings",
        "intent",
        "shell",
        "smb",
        "ssh",
        "telnet",
        "ldap",
        "feed",
        "x-javascript",
        "jar",
        "res",
        "chrome-extension",
        "steam",
        "myapp",
    ] {
        let body = json!({ "redirect_uris": [CALLBACK, format!("{scheme}://x/cb")] });
        let told = register(&gateway, "/a", &body).await;
        assert_eq!((told.status, &told.json()["error"]), (400, &json!("invalid_redirect_uri")), "{scheme}");
        assert!(
            told.json()["error_description"].as_str().is_some_and(|why| why.contains("scheme")),
            "{told:?}"
        );
    }
    let redirect_uri = "com.example.app:/callback";
    let body = json!({ "client_name": "App", "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none" });
    let told = register(&gateway, "/a", &body).await.json();
    let client_id = told["client_id"].as_str().expect("an id").to_owned();
    let app = App { gateway: &gateway, prefix: "/a", client_id, redirect_uri: redirect_uri.to_owned() };
    let mut browser = Browser::new(&gateway);
    let flaw = browser.get(&app.authorize_path(&[("prompt", "none")])).await;
    assert_eq!(by_hand(&flaw, "prompt=none").scheme(), "com.example.app");
    let page = browser.get(&app.authorize_path(&[])).await;
    let form = [("request", &*field(&page.text, "request")), ("decision", "deny")];
    let cancelled = browser.post("/a/consent", &form).await;
    assert_eq!(parameter(&by_hand(&cancelled, "Cancel"), "error").as_deref(), Some("access_denied"));
    let callback = app.log_in_at_microsoft(&mut browser, &entra).await;
    let done = browser.get(&callback).await;
    assert_eq!(done.status, 200, "{done:?}");
    let back = by_hand(&done, "signed in");
    assert!(back.as_str().starts_with(redirect_uri) && parameter(&back, "code").is_some(), "{back}");
    // An operator may register other schemes.
    let ours = entered(&gateway, "myapp://x/cb").await;
    assert_eq!(Browser::new(&gateway).get(&ours.authorize_path(&[])).await.status, 200);
}

#[tokio::test]
async fn nobody_is_sent_to_a_stranger_without_a_page_of_ours() {
    let (_entra, _backend, gateway) = ground().await;
    let evil = "https://evil.example/phish";
    let body = json!({ "redirect_uris": [evil], "token_endpoint_auth_method": "none" });
    let told = register(&gateway, "/a", &body).await.json();
    let client_id = told["client_id"].as_str().expect("an id").to_owned();
    let app = App { gateway: &gateway, prefix: "/a", client_id, redirect_uri: evil.to_owned() };
    let long = "x".repeat(4097);
    for change in [
        ("prompt", "none"),
        ("response_type", "bad"),
        ("response_mode", "fragment"),
        ("resource", "https://other.example"),
        ("code_challenge_method", "plain"),
        ("code_challenge", ""),
        ("state", &long),
    ] {
        let answer = Browser::new(&gateway).get(&app.authorize_path(&[change])).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(by_hand(&answer, change.0).as_str().starts_with(evil));
        assert!(answer.text.contains("leads to evil.example"), "{}", answer.text);
    }
    let mut browser = Browser::new(&gateway);
    let page = browser.get(&app.authorize_path(&[])).await;
    let form = [("request", &*field(&page.text, "request")), ("decision", "deny")];
    by_hand(&browser.post("/a/consent", &form).await, "Cancel");
}

#[tokio::test]
async fn registrations_are_judged_and_a_flood_of_them_leaves_nothing() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let setup = setup.settings("limits:\n  registrations_per_minute: 100000\n  logins_per_minute: 3\n");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml()).start().await;
    let many: Vec<String> = (0..11).map(|n| format!("https://a.example/{n}")).collect();
    for (body, error) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": many }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["http://evil.example/cb"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["javascript:alert(1)"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [1] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [CALLBACK], "application_type": "web" }), "invalid_redirect_uri"),
        (
            json!({ "redirect_uris": [CALLBACK], "grant_types": ["client_credentials"] }),
            "invalid_client_metadata",
        ),
        (json!({ "redirect_uris": [CALLBACK], "response_types": ["token"] }), "invalid_client_metadata"),
        (
            json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt" }),
            "invalid_client_metadata",
        ),
        (json!([]), "invalid_client_metadata"),
    ] {
        let answer = register(&gateway, "/a", &body).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{body}");
    }
    let large = json!({ "redirect_uris": [CALLBACK], "client_name": "x".repeat(17 << 10) });
    assert_eq!(register(&gateway, "/a", &large).await.status, 413);

    let app = App::registered(&gateway, "/a").await;
    let size = || {
        let folder = std::fs::read_dir(gateway.path().join("state")).expect("a folder");
        folder.flatten().map(|entry| entry.metadata().map_or(0, |about| about.len())).sum::<u64>()
    };
    let before = size();
    for number in 0..500 {
        let body = json!({ "client_name": format!("flood {number}"), "redirect_uris": [CALLBACK] });
        assert_eq!(register(&gateway, "/a", &body).await.status, 201);
    }
    assert_eq!(size(), before, "nothing is written");

    let statuses = async || Browser::new(&gateway).get(&app.authorize_path(&[])).await;
    let mut limited = statuses().await;
    for _ in 0..3 {
        limited = statuses().await;
    }
    assert_eq!(limited.status, 429, "{limited:?}");
    assert!(limited.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds <= 60));
}

#[tokio::test]
async fn a_step_that_comes_too_often_leaves_its_connection_usable() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let setup = setup.settings("limits:\n  tokens_per_minute: 1\n");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml()).start().await;
    let root = CertificateDer::from_pem_file(gateway.ca().expect("a local CA")).expect("a certificate");
    let stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = super::super::tls::trusting(&root, &["http/1.1"]);
    let mut stream = tls.connect(name, stream).await.expect("a handshake");
    let body = "grant_type=client_credentials";
    for expected in ["400", "429", "429", "429"] {
        let head = format!(
            "POST /a/token HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n",
            gateway.base().trim_start_matches("https://"),
            body.len()
        );
        // The body arrives after the head, as over real networks.
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stream.write_all(body.as_bytes()).await.expect("the connection is open");
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.expect("the connection is open");
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {expected}")), "{expected}: {answer:?}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn what_a_client_says_of_its_address_changes_no_rate() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let setup = setup.settings("limits:\n  registrations_per_minute: 3\n");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).with(&entra.lines()).yaml()).start().await;
    let mut statuses = Vec::new();
    for number in 0..8 {
        let forged = format!("198.51.100.{number}");
        let request = gateway.client().request(Method::POST, "/a/register");
        let request = request.header("x-forwarded-for", &forged).header("x-real-ip", &forged);
        let request =
            request.header("forwarded", format!("for={forged}")).header("cf-connecting-ip", &forged);
        let body = json!({ "redirect_uris": [CALLBACK] }).to_string();
        let request = request.header("content-type", "application/json").body(body);
        statuses.push(request.send().await.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses[..3], [201; 3]);
    assert!(statuses[4..].iter().all(|status| *status == 429), "{statuses:?}");
}
