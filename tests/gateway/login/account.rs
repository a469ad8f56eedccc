//! The page on which a person sees and ends what is connected to the account.

use serde_json::json;

use super::super::harness::login::{App, Browser, Form, field, way};
use super::*;

const PAGE: &str = "/a/auth/account";

/// Signs in at the page of tenant `a`, and returns what it shows.
async fn sign_in(browser: &mut Browser, entra: &FakeEntra) -> String {
    let on = browser.post(PAGE, &[("action", "sign_in")]).await;
    assert_eq!(on.status, 200, "{on:?}");
    let back = browser.get(&entra.visit(&way(&on.text)).await).await;
    assert_eq!(back.status, 302, "{back:?}");
    assert!(back.header("location").ends_with(PAGE), "{back:?}");
    let page = browser.get(PAGE).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.text
}

async fn status(gateway: &Gateway, access: &str, prefix: &str) -> u16 {
    gateway.client().bearer(access).search(Era::Modern, prefix, "q").await.status
}

#[tokio::test]
async fn a_person_sees_and_ends_what_is_connected_here_and_nothing_else() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a", "b"]).await;
    let (a, b) = (App::registered(&gateway, "/a").await, App::registered(&gateway, "/b").await);
    let ours = [a.tokens(&entra).await, a.tokens(&entra).await, a.tokens(&entra).await];
    let elsewhere = b.tokens(&entra).await;
    entra.account(
        json!({ "oid": "0b0b0b0b-0000-4000-8000-0b0b0b0b0b0b", "preferred_username": "bob@contoso.com" }),
    );
    let bobs = a.tokens(&entra).await;
    entra.account(json!({}));

    let mut browser = Browser::new(&gateway);
    let stranger = browser.get(PAGE).await;
    assert!(stranger.status == 200 && stranger.text.contains("Sign in with Microsoft"), "{stranger:?}");
    assert!(!stranger.text.contains("A test"), "{stranger:?}");
    let page = sign_in(&mut browser, &entra).await;
    assert!(page.contains("ada@contoso.com"), "{page}");
    assert_eq!(page.matches("<h2>A test</h2>").count(), 3, "{page}");

    let (token, id) = (field(&page, "token"), field(&page, "id"));
    let one = browser.post(PAGE, &[("token", &token), ("id", &id), ("action", "end")]).await;
    assert_eq!(one.status, 302, "{one:?}");
    let mut left = 0;
    for tokens in &ours {
        left += usize::from(status(&gateway, &tokens.access, "/a").await == 200);
    }
    assert_eq!(left, 2);
    let page = browser.get(PAGE).await.text;
    assert_eq!(page.matches("<h2>A test</h2>").count(), 2, "{page}");
    let all = browser.post(PAGE, &[("token", &field(&page, "token")), ("action", "end_all")]).await;
    assert_eq!(all.status, 302, "{all:?}");
    for tokens in &ours {
        assert_eq!(status(&gateway, &tokens.access, "/a").await, 401);
    }
    assert!(browser.get(PAGE).await.text.contains("No application is connected"));
    assert_eq!(status(&gateway, &bobs.access, "/a").await, 200, "another person's");
    assert_eq!(status(&gateway, &elsewhere.access, "/b").await, 200, "at another tenant");
    let audit = std::fs::read_to_string(gateway.path().join("state/audit.jsonl")).expect("an audit");
    let ended =
        audit.lines().filter(|line| line.contains("\"revocation\"") && line.contains("ada@contoso.com"));
    assert_eq!(ended.count(), 3, "{audit}");

    let out = browser.post(PAGE, &[("token", &field(&page, "token")), ("action", "sign_out")]).await;
    assert_eq!(out.status, 302, "{out:?}");
    assert!(browser.get(PAGE).await.text.contains("Sign in with Microsoft"));
    // It is found from the consent page and from the tenant's page.
    let consent = browser.get(&a.authorize_path(&[])).await.text;
    assert!(consent.contains(&format!("href=\"{}{PAGE}\"", gateway.base())), "{consent}");
    assert!(gateway.client().get("/a/").await.text.contains(&format!("href=\"{}{PAGE}\"", gateway.base())));
}

#[tokio::test]
async fn nobody_else_gets_into_the_page_or_ends_anything() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a", "b"]).await;
    let app = App::registered(&gateway, "/a").await;
    let tokens = app.tokens(&entra).await;
    let mut victim = Browser::new(&gateway);
    let page = sign_in(&mut victim, &entra).await;
    let (token, id) = (field(&page, "token"), field(&page, "id"));
    let session = victim.cookies.get("__Host-account").expect("a session").clone();

    // Another person, with a session and a token of their own, names the victim's login.
    entra.account(
        json!({ "oid": "0b0b0b0b-0000-4000-8000-0b0b0b0b0b0b", "preferred_username": "bob@contoso.com" }),
    );
    app.tokens(&entra).await;
    let mut bob = Browser::new(&gateway);
    let own = field(&sign_in(&mut bob, &entra).await, "token");
    entra.account(json!({}));
    bob.post(PAGE, &[("token", &own), ("id", &id), ("action", "end")]).await;
    // The victim's token in another session, no token, a forged one, an unknown action.
    for form in [
        &[("token", &*token), ("id", &*id), ("action", "end")][..],
        &[("id", &*id), ("action", "end")],
        &[("token", "x"), ("action", "end_all")],
    ] {
        assert_eq!(bob.post(PAGE, form).await.status, 400, "{form:?}");
        assert_eq!(Browser::new(&gateway).post(PAGE, form).await.status, 400, "{form:?}");
    }
    assert_eq!(victim.post(PAGE, &[("token", &token), ("action", "everything")]).await.status, 400);
    // A page of another site submits the form in the victim's browser.
    let cookie = format!("__Host-account={session}");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        let request = gateway.client().request(reqwest::Method::POST, PAGE).header("cookie", &cookie);
        let form = [("token", &*token), ("id", &*id), ("action", "end")];
        let answer = request.header(name, value).form_of(&form).send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{name}: {value}");
    }
    // The session of one tenant is none at another, and neither is a changed one.
    let seen = async |path: &str, session: &str| {
        let request = gateway.client().request(reqwest::Method::GET, path);
        let answer =
            request.header("cookie", format!("__Host-account={session}")).send().await.expect("sent");
        answer.text().await.expect("a page").contains("ada@contoso.com")
    };
    assert!(seen(PAGE, &session).await);
    let mut forged = session.clone().into_bytes();
    let last = forged.len() - 5;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("ASCII");
    assert!(!seen("/b/auth/account", &session).await && !seen(PAGE, &forged).await);
    // An attacker's login cannot be finished in the victim's browser, nor with a state of its own.
    let mut attacker = Browser::new(&gateway);
    let on = attacker.post(PAGE, &[("action", "sign_in")]).await;
    let callback = entra.visit(&way(&on.text)).await;
    assert_eq!(Browser::new(&gateway).get(&callback).await.status, 400, "login fixation");
    let state = callback.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    let other = callback.replace(state, &"A".repeat(state.len()));
    assert_eq!(attacker.get(&other).await.status, 400, "a forged state");
    assert_eq!(attacker.get(&callback).await.status, 302);
    assert_eq!(attacker.get(&callback).await.status, 400, "twice");
    assert_eq!(status(&gateway, &tokens.access, "/a").await, 200, "after all that");
}

#[tokio::test]
async fn a_blocked_person_does_not_get_into_the_page_and_is_out_of_an_open_one() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = gateway(&entra, &backend, &["a"]).await;
    let mut browser = Browser::new(&gateway);
    let token = field(&sign_in(&mut browser, &entra).await, "token");
    let order = json!({ "person": "ada@contoso.com", "all_tenants": true }).to_string();
    let url = format!("http://{}/api/blocks", gateway.admin_address());
    let set = reqwest::Client::new().post(url).body(order).send().await.expect("an answer");
    assert_eq!(set.status(), 200);
    let out = browser.get(PAGE).await;
    assert!(out.status == 403 && out.text.contains("blocked your account"), "{out:?}");
    let ended = browser.post(PAGE, &[("token", &token), ("action", "end_all")]).await;
    assert_eq!(ended.status, 403, "{ended:?}");
    let mut again = Browser::new(&gateway);
    let on = again.post(PAGE, &[("action", "sign_in")]).await;
    let refused = again.get(&entra.visit(&way(&on.text)).await).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(
        way(&refused.text).ends_with(PAGE) && !again.cookies.contains_key("__Host-account"),
        "{refused:?}"
    );
}
