//! The console in a real browser: on phones and desks, light and dark, with and without scripts, by
//! keyboard alone, and judged by axe-core.

mod actions;
mod attacks;

use serde_json::json;

use super::browser::{Browser, Window};
use crate::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until};

const PHONE: Window = Window { name: "phone", scripts: true, width: 390, dark: false };
const DESK: Window = Window { name: "desk", scripts: true, width: 1280, dark: false };

/// A gateway with a tenant in every state, and one with a hostile title.
async fn start(backend: &FakeBackend) -> Gateway {
    let tenant = |name: &str| Tenant::new(name, backend);
    let keys = format!(
        "api_keys:\n  - {{label: nightly-report, key: {}, expires: 2031-01-02T00:00:00Z}}",
        crate::harness::secret::secret("nightly")
    );
    let down = Tenant::at("contoso", "http://127.0.0.1:1").yaml();
    let edition = |text: &str| tenant("litware").with(&format!("description: {text}")).zip();
    let gateway = Setup::new()
        .settings(
            "notify:\n  - {name: pager, webhook: 'http://127.0.0.1:1/'}\n  - {name: script, command: ['true'], on: \
             [disk-low]}\n",
        )
        .file("litware.zip", edition("Orders and returns"))
        .file("litware.yaml", "hold_changes: tools\n")
        .file("acme.zip", tenant("acme").zip())
        .file("acme.yaml", keys)
        .file("contoso.yaml", down)
        .file("fabrikam.yaml", tenant("fabrikam").yaml())
        .file("northwind.yaml", tenant("northwind").with("enabled: false").yaml())
        .file("tailspin.yaml", tenant("tailspin").yaml())
        .file(
            "wingtip.yaml",
            "search_url: https://api.example.com/nlp-search\napi_key: paste-your-key-here\n",
        )
        .start()
        .await;
    gateway.until_state("contoso", "degraded").await;
    gateway.until_state("acme", "serving").await;
    gateway.put("fabrikam.yaml", tenant("fabrikam").with("cache: [1, 2").yaml());
    gateway.until_state("fabrikam", "stale").await;
    assert_eq!(crate::state::tenants(&gateway, &["pause", "tailspin"]).status.code(), Some(0));
    gateway.until_state("litware", "serving").await;
    gateway.put("litware.zip", edition("Orders, returns and reclamations"));
    gateway.until_state("litware", "held").await;
    let client = gateway.client().bearer(&crate::harness::secret::secret("nightly"));
    for _ in 0..3 {
        assert_eq!(client.search(Era::Modern, "/acme", "q").await.status, 200);
    }
    gateway.put("acme.yaml", {
        let title = "<script>document.title='hit'</script>";
        format!(
            "display_name: \"Acme {title}\"\napi_keys:\n  - {{label: nightly-report, key: {}}}\n",
            crate::harness::secret::secret("nightly")
        )
    });
    until("revision 2", async || {
        gateway.status("acme").await.filter(|status| status["revision"] == 2).map(|_| ())
    })
    .await;
    gateway
}

const PAGES: [(&str, &str); 13] = [
    ("overview", "/"),
    ("filtered", "/?state=degraded&q=cont"),
    ("tenant", "/tenants/acme"),
    ("stale", "/tenants/fabrikam"),
    ("rejected", "/tenants/wingtip"),
    ("diff", "/tenants/acme/diff"),
    ("certificates", "/certificates"),
    ("people", "/people"),
    ("add", "/add"),
    ("held", "/tenants/litware/diff"),
    ("audit", "/audit"),
    ("filtered-audit", "/audit?event=call&since=1h"),
    ("alerts", "/alerts"),
];

#[tokio::test]
async fn every_page_is_good_on_phones_and_desks_in_both_schemes() {
    let backend = FakeBackend::start().await;
    let gateway = start(&backend).await;
    let base = format!("http://{}", gateway.admin_address());
    let dark = |window: Window, name| Window { name, dark: true, ..window };
    for window in [PHONE, DESK, dark(PHONE, "phone-dark"), dark(DESK, "desk-dark")] {
        let mut browser = Browser::open(window).await;
        for (name, path) in PAGES {
            browser.go(&format!("{base}{path}")).await;
            let text = browser.look(&format!("console-{name}-{}", window.name)).await;
            assert!(!text.contains("hit · tenantd"), "a script of a tenant ran: {text}");
            let faults = browser.judge().await;
            assert_eq!(faults, json!([]), "{path} at {}", window.name);
        }
    }
}

#[tokio::test]
async fn without_scripts_a_tenant_is_put_right_from_a_phone() {
    let backend = FakeBackend::start().await;
    let gateway = start(&backend).await;
    let base = format!("http://{}", gateway.admin_address());
    let mut browser = Browser::open(Window { name: "phone-plain", scripts: false, ..PHONE }).await;
    browser.go(&base).await;
    let text = browser.look("console-plain-overview").await;
    let at = |said: &str| text.find(said).unwrap_or_else(|| panic!("{said} is missing: {text}"));
    assert!(at("Needs you now") < at("wingtip.yaml: there is no context_url"), "{text}");
    browser.go(&format!("{base}/tenants/tailspin")).await;
    browser.click("form[action$='/resume'] button").await;
    browser.until("document.body.innerText.includes('Resumed.')").await;
    gateway.until_state("tailspin", "serving").await;
    let text = browser.look("console-plain-resumed").await;
    assert!(!text.contains("Copy"), "the buttons need a script: {text}");
}

#[tokio::test]
async fn an_open_page_is_live_and_a_dropped_file_is_checked() {
    let backend = FakeBackend::start().await;
    let gateway = start(&backend).await;
    let base = format!("http://{}", gateway.admin_address());
    let mut browser = Browser::open(DESK).await;
    browser.go(&format!("{base}/tenants/acme")).await;
    browser.until("!document.querySelector('button[data-copy]').hidden").await;
    browser.click("button[data-copy]").await;
    browser.until("document.querySelector('button[data-copy]').textContent === 'Copied'").await;
    backend.answer("/nlp-search", Reply::Status(500, json!({})));
    gateway.put("acme.yaml", "search_url: [");
    browser.until("document.querySelector('#tenant-state .state.stale')").await;

    browser.go(&format!("{base}/add")).await;
    browser
        .evaluate(
            "const file = new File(['search_url: ['], 'new.yaml'); const data = new DataTransfer(); \
             data.items.add(file); document.querySelector('[data-drop]').dispatchEvent(\
             new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))",
        )
        .await;
    browser.until("document.body.innerText.includes('Would be rejected')").await;
    browser.look("console-checked-desk").await;
}

#[tokio::test]
async fn the_keyboard_alone_finds_and_pauses_a_tenant() {
    let backend = FakeBackend::start().await;
    let gateway = start(&backend).await;
    let mut browser = Browser::open(DESK).await;
    browser.go(&format!("http://{}/", gateway.admin_address())).await;
    browser.press(&["Tab"]).await;
    browser.until("document.activeElement.className === 'skip'").await;
    browser.press_until("Tab", "document.activeElement.id === 'q'").await;
    browser.press(&["a", "c", "m", "e", "Enter"]).await;
    browser.until("document.querySelectorAll('.rows .name').length === 1").await;
    browser.press_until("Tab", "document.activeElement.getAttribute('href') === '/tenants/acme'").await;
    let outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle").await;
    assert_eq!(outline, "solid", "the focus is seen");
    browser.press(&["Enter"]).await;
    browser.until("location.pathname === '/tenants/acme'").await;
    browser.press_until("Tab", "document.activeElement.textContent === 'Pause'").await;
    browser.press(&["Enter"]).await;
    browser.until("document.body.innerText.includes('Paused: callers are refused')").await;
    assert_eq!(gateway.status("acme").await.expect("there")["paused"], true);
}
