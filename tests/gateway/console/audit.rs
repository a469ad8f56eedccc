//! The audit in the console: its filters and pages, and the last calls of a tenant.

use super::super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};
use super::page;

fn keyed(name: &str, backend: &FakeBackend) -> Vec<u8> {
    let key = crate::harness::secret::secret(name);
    Tenant::new(name, backend).with(&format!("api_keys:\n  - {{label: {name}-report, key: {key}}}")).yaml()
}

/// Calls the search tool of a tenant, with its key, so many times.
async fn call(gateway: &Gateway, name: &str, times: usize) {
    let client = gateway.client().bearer(&crate::harness::secret::secret(name));
    for _ in 0..times {
        assert_eq!(client.search(Era::Modern, &format!("/{name}"), "q").await.status, 200);
    }
}

/// Waits until a page shows so many lines, since the audit is written a moment later.
async fn until_rows(gateway: &Gateway, path: &str, rows: usize) -> String {
    until(&format!("{path} has {rows} lines"), async || {
        let html = page(gateway, path).await;
        (html.matches("<li><span class=\"state").count() == rows).then_some(html)
    })
    .await
}

#[tokio::test]
async fn the_audit_is_filtered_and_in_pages() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("acme.yaml", keyed("acme", &backend));
    let gateway = setup.file("shop.yaml", keyed("shop", &backend)).start().await;
    for name in ["acme", "shop"] {
        gateway.until_state(name, "serving").await;
    }
    call(&gateway, "acme", 60).await;
    call(&gateway, "shop", 2).await;
    let first = until_rows(&gateway, "/audit?event=call&tenant=acme", 50).await;
    assert!(first.contains("acme-report") && first.contains("<b>search</b>"), "{first}");
    assert!(!first.contains("shop-report") && !first.contains(">Newest<"), "{first}");
    let older = first.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
    let older = older.expect("a link to older lines").replace("&#38;", "&");
    assert!(older.contains("tenant=acme") && older.contains("event=call"), "{older}");
    let second = until_rows(&gateway, &older, 10).await;
    assert!(second.contains(">Newest<") && !second.contains(">Older<"), "{second}");
    // Filters hold together, and those that fit nothing say so.
    for (path, rows) in [
        ("/audit?person=SHOP-report", 2),
        ("/audit?tool=search&tenant=shop", 2),
        ("/audit?outcome=ok&tenant=shop&since=1h", 2),
        ("/audit?tenant=shop&until=2020-01-01", 0),
        ("/audit?tenant=shop&tool=other", 0),
    ] {
        let html = until_rows(&gateway, path, rows).await;
        assert_eq!(html.contains("No line fits."), rows == 0, "{path}: {html}");
    }
    let wrong = page(&gateway, "/audit?since=yesterday").await;
    assert!(wrong.contains("write a time") && wrong.contains("value=\"yesterday\""), "{wrong}");
}

#[tokio::test]
async fn a_tenants_page_has_its_last_calls_and_no_others() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("acme.yaml", keyed("acme", &backend));
    let gateway = setup.file("shop.yaml", keyed("shop", &backend)).start().await;
    for name in ["acme", "shop"] {
        gateway.until_state(name, "serving").await;
    }
    assert!(page(&gateway, "/tenants/acme").await.contains("There are no calls in the audit."));
    call(&gateway, "acme", 12).await;
    call(&gateway, "shop", 1).await;
    let html = until("the calls are written", async || {
        let html = page(&gateway, "/tenants/acme").await;
        (html.matches("<b>search</b>").count() == 10).then_some(html)
    })
    .await;
    assert!(html.contains("href=\"/audit?tenant=acme\"") && !html.contains("shop-report"), "{html}");
}

#[tokio::test]
async fn without_an_audit_the_page_says_so() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().settings("audit: off\n").file("a.yaml", Tenant::new("a", &backend).yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    for path in ["/audit", "/tenants/a"] {
        assert!(page(&gateway, path).await.contains("this gateway writes no audit"), "{path}");
    }
}
