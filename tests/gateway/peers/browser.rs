//! The login pages in a real browser: headless Chromium, with and without scripts.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::cache;
use super::library::beside_packages;
use super::login::Stage;
use super::script::{Script, command};
use crate::harness::login::App;

/// A browser as people use it.
pub(super) struct Browser {
    script: Script,
    _profile: TempDir,
}

/// A window: scripts, width and colour scheme.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) name: &'static str,
    pub(super) scripts: bool,
    pub(super) width: u32,
    pub(super) dark: bool,
}

const WINDOWS: [Window; 3] = [
    Window { name: "phone", scripts: false, width: 360, dark: false },
    Window { name: "phone-dark", scripts: true, width: 360, dark: true },
    Window { name: "desk", scripts: true, width: 1200, dark: false },
];

impl Browser {
    pub(super) async fn open(window: Window) -> Self {
        Self::open_with(window, json!({})).await
    }

    /// The same, with more options of the order `start`.
    pub(super) async fn open_with(window: Window, options: Value) -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let mut script = Script::run("browser", |folder| -> Command {
            command(cache::node(), &beside_packages("browser.mjs", folder))
        });
        let mut order = json!({
            "do": "start", "program": "/usr/bin/chromium", "folder": profile.path(),
            "scripts": window.scripts, "width": window.width, "dark": window.dark,
            // The pictures of the console are in docs, and so small.
            "scale": if window.width < 380 { 2 } else { 1 },
        });
        for (name, value) in options.as_object().into_iter().flatten() {
            order[name] = value.clone();
        }
        let started = script.ask(order).await;
        assert_eq!(started["started"], true, "{started}; Debian's package is chromium");
        Self { script, _profile: profile }
    }

    pub(super) async fn go(&mut self, url: &str) {
        let gone = self.script.ask(json!({ "do": "go", "url": url })).await;
        assert!(gone["url"].is_string(), "{gone}");
    }

    pub(super) async fn click(&mut self, selector: &str) {
        let clicked = self.script.ask(json!({ "do": "click", "selector": selector })).await;
        assert_eq!(clicked["clicked"], true, "{selector}: {clicked}");
    }

    /// Waits until a condition on the page is true.
    pub(super) async fn until(&mut self, condition: &str) {
        let met = self.script.ask(json!({ "do": "wait", "condition": condition })).await;
        assert_eq!(met["met"], true, "{condition}: {met}");
    }

    /// Evaluates an expression on the page.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        self.script.ask(json!({ "do": "evaluate", "expression": expression })).await["value"].clone()
    }

    /// Returns the frames of the page.
    pub(super) async fn frames(&mut self) -> Value {
        self.script.ask(json!({ "do": "frames" })).await["frames"].clone()
    }

    /// Presses keys, one after the other.
    pub(super) async fn press(&mut self, keys: &[&str]) {
        let pressed = self.script.ask(json!({ "do": "press", "keys": keys })).await;
        assert_eq!(pressed["pressed"], keys.len(), "{pressed}");
    }

    /// Presses a key until a condition is true.
    pub(super) async fn press_until(&mut self, key: &str, condition: &str) {
        for _ in 0..100 {
            self.press(&[key]).await;
            if self.evaluate(condition).await == true {
                return;
            }
        }
        panic!("{key} does not lead to {condition}");
    }

    /// Returns the serious and critical faults that axe-core finds.
    pub(super) async fn judge(&mut self) -> Value {
        let judged = self.script.ask(json!({ "do": "judge" })).await;
        assert!(judged["passes"].as_u64() > Some(5), "it judged nothing: {judged}");
        judged["faults"].clone()
    }

    async fn arrive(&mut self, at: &str) -> String {
        let arrived = self.script.ask(json!({ "do": "arrive", "at": at })).await;
        arrived["url"].as_str().unwrap_or_else(|| panic!("not at {at}: {arrived}")).to_owned()
    }

    /// Returns the text of the page, and asserts that nothing on it was blocked or missing. Saves a
    /// screenshot in the folder that `TENANTD_TEST_PICTURES` names, of the type in
    /// `TENANTD_TEST_PICTURE_TYPE` (png or webp).
    pub(super) async fn look(&mut self, picture: &str) -> String {
        let folder = std::env::var_os("TENANTD_TEST_PICTURES");
        let kind = std::env::var("TENANTD_TEST_PICTURE_TYPE").unwrap_or_else(|_| "png".to_owned());
        let file = folder.map(|folder| Path::new(&folder).join(format!("{picture}.{kind}")));
        let seen: Value = self.script.ask(json!({ "do": "look", "file": file })).await;
        assert_eq!((&seen["complaints"], &seen["wide"]), (&json!([]), &json!(false)), "{picture}: {seen}");
        assert_ne!(seen["title"], "", "{picture}");
        seen["text"].as_str().expect("a text").to_owned()
    }
}

/// Listens as a local client that waits for its browser. Returns the redirect URI and the listener.
async fn waiting_client() -> (String, TcpListener) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    (format!("http://127.0.0.1:{}/callback", listener.local_addr().expect("bound").port()), listener)
}

/// Answers requests until the browser returns to the callback. Returns that request line.
async fn welcome(listener: &TcpListener) -> String {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a browser");
        let mut head = vec![0; 8192];
        let length = stream.read(&mut head).await.expect("a request");
        let page =
            "<!doctype html><title>back</title><link rel=icon href=data:,><p>You can close this window.";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
            page.len()
        );
        stream.write_all(answer.as_bytes()).await.expect("answered");
        let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned();
        if line.contains("/callback") {
            return line;
        }
    }
}

#[tokio::test]
async fn people_agree_and_log_in_on_phones_and_desks_with_and_without_scripts() {
    let stage = Stage::start(&["acme"], "").await;
    for window in WINDOWS {
        let (redirect_uri, listener) = waiting_client().await;
        let mut app = App::registered(&stage.gateway, "/acme").await;
        app.redirect_uri = redirect_uri;
        let mut browser = Browser::open(window).await;
        browser.go(&format!("{}{}", stage.gateway.base(), app.authorize_path(&[]))).await;
        let text = browser.look(&format!("consent-{}", window.name)).await;
        // The page names the client, the data, and the redirect target.
        for said in ["A test", "The acme data", "this computer"] {
            assert!(text.contains(said), "{said} is not said: {text}");
        }
        browser.click("button[value=allow]").await;
        let back = welcome(&listener).await;
        assert!(back.contains("code=") && back.contains("iss="), "{back}");
        browser.arrive(&app.redirect_uri).await;
    }
}

#[tokio::test]
async fn who_is_refused_reads_why() {
    let stage = Stage::start(&["acme"], "access: {roles: [Analyst]}").await;
    for window in WINDOWS {
        let app = App::registered(&stage.gateway, "/acme").await;
        let mut browser = Browser::open(window).await;
        browser.go(&format!("{}{}", stage.gateway.base(), app.authorize_path(&[]))).await;
        browser.click("button[value=allow]").await;
        browser.arrive(&format!("{}/acme/auth/ms-callback", stage.gateway.base())).await;
        let text = browser.look(&format!("refused-{}", window.name)).await;
        assert!(text.contains("Your account may not use this server"), "{text}");
        browser.go(&format!("{}/acme/authorize?client_id=nobody", stage.gateway.base())).await;
        browser.look(&format!("unknown-{}", window.name)).await;
        browser.go(&format!("{}/acme/", stage.gateway.base())).await;
        let text = browser.look(&format!("page-{}", window.name)).await;
        assert!(text.contains("with your Microsoft account"), "{text}");
        assert_eq!(text.contains("Copy"), window.scripts, "the buttons need a script: {text}");
        if window.scripts {
            browser.click(".snippet button").await;
            browser.until(r"document.querySelector('.snippet button').textContent === 'Copied'").await;
        }
    }
}

#[tokio::test]
async fn people_see_and_end_what_they_have_connected_on_phones_and_desks() {
    let stage = Stage::start(&["acme"], "").await;
    for window in WINDOWS {
        let app = App::registered(&stage.gateway, "/acme").await;
        let (redirect_uri, listener) = waiting_client().await;
        let app = App { redirect_uri, ..app };
        let mut browser = Browser::open(window).await;
        browser.go(&format!("{}{}", stage.gateway.base(), app.authorize_path(&[]))).await;
        browser.click("button[value=allow]").await;
        let back = welcome(&listener).await;
        browser.arrive(&app.redirect_uri).await;
        let code = back.split("code=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()).expect("a code");
        assert_eq!(app.redeem(code).await.status, 200);

        browser.go(&format!("{}/acme/auth/account", stage.gateway.base())).await;
        browser.look(&format!("account-out-{}", window.name)).await;
        browser.click("button[value=sign_in]").await;
        browser.until("document.body.innerText.includes('You are signed in as')").await;
        let text = browser.look(&format!("account-{}", window.name)).await;
        assert!(text.contains("A test") && text.contains("ada@contoso.com"), "{text}");
        browser.click("button[value=end]").await;
        browser.until("document.body.innerText.includes('No application is connected')").await;
        browser.click("button[value=sign_out]").await;
        browser.until("document.querySelector('button[value=sign_in]') !== null").await;
        browser.look(&format!("account-ended-{}", window.name)).await;
    }
}
