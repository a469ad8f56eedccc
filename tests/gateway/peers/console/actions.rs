//! The console's actions in Chromium, each with what it is about: a person's calls, a tenant's
//! revisions, a certificate.

use serde_json::json;

use super::super::browser::Browser;
use super::DESK;
use crate::acme::pebble::{Options, Pebble};
use crate::acme::visitor::Visitor;
use crate::harness::entra::FakeEntra;
use crate::harness::login::{App, Tokens};
use crate::harness::secret::secret;
use crate::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};

async fn until_said(browser: &mut Browser, text: &str) {
    browser.until(&format!("document.body.innerText.includes({})", json!(text))).await;
}

async fn call(gateway: &Gateway, tokens: &Tokens) -> u16 {
    gateway.client().bearer(&tokens.access).search(Era::Modern, "/acme", "q").await.status
}

#[tokio::test]
async fn who_is_signed_out_or_blocked_is_out_with_the_next_call() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let setup = Setup::new().flag("--entra-authority", &entra.authority());
    let tenant = Tenant::new("acme", &backend).with(&entra.lines()).yaml();
    let gateway = setup.file("acme.yaml", tenant).start().await;
    let status = gateway.until_state("acme", "serving").await;
    entra.redirect_uris(&[status["redirect_uri"].as_str().expect("a URI")]);
    let app = App::registered(&gateway, "/acme").await;
    let tokens = app.tokens(&entra).await;
    assert_eq!(call(&gateway, &tokens).await, 200);
    let base = format!("http://{}", gateway.admin_address());
    let mut browser = Browser::open(DESK).await;
    browser.go(&format!("{base}/people")).await;
    browser.click("form[action='/people/end'] button").await;
    until_said(&mut browser, "Signed out: 1 login ended.").await;
    assert_eq!(call(&gateway, &tokens).await, 401);

    let tokens = app.tokens(&entra).await;
    assert_eq!(call(&gateway, &tokens).await, 200);
    browser.go(&format!("{base}/tenants/acme")).await;
    browser.click("form[action='/people/block'] button").await;
    until_said(&mut browser, "Blocked until you lift it").await;
    assert_eq!(call(&gateway, &tokens).await, 401);
    browser.click("form[action^='/people/unblock/'] button").await;
    until_said(&mut browser, "The block is lifted.").await;
    let tokens = app.tokens(&entra).await;
    assert_eq!(call(&gateway, &tokens).await, 200);
}

/// Returns what a model reads of the search tool.
async fn description(gateway: &Gateway) -> String {
    let listed = gateway.client().rpc(Era::Modern, "/acme/mcp", "tools/list", json!({})).await.result();
    listed["tools"][0]["description"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_tenant_is_approved_rolled_back_paused_resumed_and_reloaded() {
    let backend = FakeBackend::start().await;
    let edition = |text: &str| Tenant::new("acme", &backend).with(&format!("description: {text}")).zip();
    let setup = Setup::new().file("acme.zip", edition("First")).file("acme.yaml", "hold_changes: tools\n");
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    gateway.put("acme.zip", edition("Second"));
    gateway.until_state("acme", "held").await;
    let base = format!("http://{}", gateway.admin_address());
    let mut browser = Browser::open(DESK).await;
    // From the overview to the difference, by what the pages link to.
    browser.go(&base).await;
    browser.click(".now a[href='/tenants/acme']").await;
    browser.until("location.pathname === '/tenants/acme'").await;
    browser.click("a[href='/tenants/acme/diff']").await;
    until_said(&mut browser, "Approve this change").await;
    let text = browser.look("console-approval").await;
    assert!(text.contains("What the model reads") && text.contains("Second"), "{text}");
    assert!(description(&gateway).await.contains("First"));
    browser.click("form[action*='/approve'] button").await;
    until_said(&mut browser, "Approved: the change is in force.").await;
    assert!(description(&gateway).await.contains("Second"));

    browser.click("form[action*='/rollback'] button").await;
    until_said(&mut browser, "Revision 1 is in force until the files change.").await;
    assert!(description(&gateway).await.contains("First"));
    browser.click("form[action$='/pause'] button").await;
    until_said(&mut browser, "Paused: callers are refused").await;
    let search = async || gateway.client().search(Era::Modern, "/acme", "q").await.status;
    assert_ne!(search().await, 200);
    browser.click("form[action$='/resume'] button").await;
    until_said(&mut browser, "Resumed.").await;
    assert_eq!(search().await, 200);
    browser.go(&base).await;
    browser.click("form[action='/reload'] button").await;
    until_said(&mut browser, "The tenants folder was read.").await;
}

#[tokio::test]
async fn a_dropped_export_is_checked_accepted_and_served() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let mut browser = Browser::open(DESK).await;
    browser.go(&format!("http://{}/add", gateway.admin_address())).await;
    let bytes = Tenant::new("shop", &backend).zip();
    let drop = format!(
        "const data = new DataTransfer(); data.items.add(new File([new Uint8Array({})], 'shop.zip')); \
         document.querySelector('[data-drop]').dispatchEvent(new DragEvent('drop', \
         {{ dataTransfer: data, bubbles: true, cancelable: true }})); 0",
        json!(bytes)
    );
    browser.evaluate(&drop).await;
    until_said(&mut browser, "Can be served").await;
    assert!(!gateway.tenant_file("shop.zip").exists(), "it is only checked");
    browser.click("form[action$='/accept'] button").await;
    until_said(&mut browser, "shop.zip is in the tenants folder.").await;
    gateway.until_state("shop", "serving").await;
    assert_eq!(gateway.client().search(Era::Modern, "/shop", "q").await.status, 200);
}

#[tokio::test]
async fn a_certificate_is_renewed_from_its_page() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let mut browser = Browser::open(DESK).await;
    browser.go(&format!("http://{}/certificates", gateway.admin_address())).await;
    browser.click("form[action*='mcp%2Etest/renew'] button").await;
    until_said(&mut browser, "The certificate of mcp.test was renewed.").await;
    assert!(visitor.serial("mcp.test").await.is_some_and(|serial| serial != first));
}
