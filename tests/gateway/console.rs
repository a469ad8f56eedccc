//! The console of the admin listener: what its pages say, and what they never contain.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{FakeBackend, Gateway, Setup, Tenant, until};

/// Text that is markup wherever it is not escaped.
const HOSTILE: &str = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)>";

/// Returns a page, which must be there.
async fn page(gateway: &Gateway, path: &str) -> String {
    let (status, html) = gateway.admin(path).await;
    assert_eq!(status, 200, "{path}: {html}");
    html
}

/// Returns the positions of texts, which must all be there.
fn places<const COUNT: usize>(html: &str, texts: [&str; COUNT]) -> [usize; COUNT] {
    texts.map(|text| html.find(text).unwrap_or_else(|| panic!("{text} is missing: {html}")))
}

#[tokio::test]
async fn the_overview_names_who_is_in_trouble_and_why_before_all_else() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new()
        .file("well.yaml", Tenant::new("well", &backend).yaml())
        .file("bad.yaml", "search_url: [")
        .file("off.yaml", Tenant::new("off", &backend).with("enabled: false").yaml())
        .file("held.yaml", Tenant::new("held", &backend).yaml())
        .start()
        .await;
    gateway.until_state("well", "serving").await;
    assert_eq!(super::state::tenants(&gateway, &["pause", "held"]).status.code(), Some(0));
    let html = page(&gateway, "/").await;
    let [now, bad, tiles, list] =
        places(&html, ["Needs you now", "bad.yaml:1:13: this is not YAML", "Listeners", "<h2>Tenants</h2>"]);
    assert!(now < bad && bad < tiles && tiles < list, "{html}");
    // Trouble comes first in the list, and who was paused is told from who is disabled.
    let list = &html[list..];
    let order = places(list, ["/tenants/bad\"", "/tenants/held\"", "/tenants/off\"", "/tenants/well\""]);
    assert!(order.is_sorted(), "{list}");
    for word in ["paused", "disabled", "rejected", "serving"] {
        assert!(
            list.contains(&format!("<span class=\"state {word}\">{word}</span> 1</a>")),
            "{word}: {list}"
        );
    }
}

#[tokio::test]
async fn the_list_is_searched_filtered_and_in_pages() {
    let backend = FakeBackend::start().await;
    let mut setup = Setup::new().file("bad.yaml", "search_url: [");
    for number in 0..60 {
        let tenant = Tenant::new(&format!("shop-{number}"), &backend);
        setup = setup.file(&format!("shop-{number}.yaml"), tenant.yaml());
    }
    let gateway = setup.start().await;
    let rows = |html: &str| html.matches("class=\"name\"").count();
    let first = page(&gateway, "/").await;
    assert!(rows(&first) == 50 && first.contains("Page 1 of 2 (61 tenants)"), "{first}");
    assert!(first.contains("href=\"/?page=2#tenants\""), "{first}");
    assert_eq!(rows(&page(&gateway, "/?page=2").await), 11);
    // A page that there is not is the last one.
    assert_eq!(rows(&page(&gateway, "/?page=99").await), 11);
    let filtered = page(&gateway, "/?state=rejected").await;
    assert!(rows(&filtered) == 1 && filtered.contains("/tenants/bad\""));
    let found = page(&gateway, "/?q=SHOP%2D7").await;
    assert!(rows(&found) == 1 && found.contains("value=\"SHOP-7\""), "{found}");
    let none = page(&gateway, "/?q=%22%3E%3Cscript%3E").await;
    assert!(none.contains("No tenant matches.") && !none.contains("><script>"), "{none}");
}

#[tokio::test]
async fn a_tenants_page_has_its_findings_addresses_access_and_revisions() {
    let backend = FakeBackend::start().await;
    let key = super::harness::secret::secret("caller");
    let keys = format!("api_keys:\n  - {{label: nightly-report, key: {key}, expires: 2031-01-02T00:00:00Z}}");
    let tenant = |lines: &str| Tenant::new("acme", &backend).with(&keys).with(lines).yaml();
    let gateway = Setup::new().file("acme.yaml", tenant("")).start().await;
    gateway.until_state("acme", "serving").await;
    gateway.put("acme.yaml", tenant("instructions: Ask for sales."));
    until("revision 2", async || {
        gateway.status("acme").await.filter(|status| status["revision"] == 2).map(|_| ())
    })
    .await;
    let html = page(&gateway, "/tenants/acme").await;
    for said in [
        &format!("{}/acme/mcp", gateway.base()),
        "nightly-report",
        "title=\"2031-01-02",
        &backend.url(""),
        "closed: calls go through",
        "acme.yaml",
        "Revision 2",
        "/tenants/acme/diff?from=1&#38;to=2",
    ] {
        assert!(html.contains(said), "{said} is missing: {html}");
    }
    let diff = page(&gateway, "/tenants/acme/diff?from=1&to=2").await;
    assert!(diff.contains("<ins>") && diff.contains("instructions: Ask for sales."), "{diff}");
    let refused = page(&gateway, "/tenants/acme/diff?from=1&to=9").await;
    assert!(refused.contains("revision 9 is not stored"), "{refused}");
    gateway.put("acme.yaml", tenant("access: ["));
    gateway.until_state("acme", "stale").await;
    let stale = page(&gateway, "/tenants/acme").await;
    assert!(stale.contains("acme.yaml:") && stale.contains("<code>access: ["), "{stale}");
    for nowhere in ["/tenants/nobody", "/tenants/acme/nothing", "/tenants/", "/nothing"] {
        assert_eq!(gateway.admin(nowhere).await.0, 404, "{nowhere}");
    }
}

#[tokio::test]
async fn what_files_contain_is_text_on_every_page() {
    let backend = FakeBackend::start().await;
    let title = HOSTILE.replace('\'', "''");
    let named = Tenant::new("named", &backend)
        .with(&format!("display_name: '{title}'"))
        .with(&format!("api_keys:\n  - {{label: '{title}', key: {}}}", super::harness::secret::secret("k")));
    let lines = String::from_utf8(named.yaml()).expect("text").replace("display_name: The named data\n", "");
    let broken = format!("search_url: http://localhost/nlp-search\n'{title}': 1\napi_key: [\n");
    let gateway = Setup::new()
        .file("named.yaml", lines)
        .file("broken.yaml", broken)
        .file("<b>'&.yaml", "search_url: [")
        .start()
        .await;
    let (_, listed) = gateway.admin("/api/tenants").await;
    assert!(listed.contains("<script>alert(1)"), "the tenants have the text: {listed}");
    for path in ["/", "/tenants/named", "/tenants/broken", "/tenants/%3Cb%3E%27%26", "/certificates"] {
        let html = page(&gateway, path).await;
        for markup in ["<script>", "<img src=x", "<b>'&"] {
            assert!(!html.contains(markup), "{path} has {markup}: {html}");
        }
    }
    assert!(page(&gateway, "/tenants/named").await.contains("&#60;script&#62;alert(1)"));
}

#[tokio::test]
async fn only_the_consoles_own_files_are_loaded() {
    let gateway = Setup::new().start().await;
    let base = format!("http://{}", gateway.admin_address());
    let answer = reqwest::get(&base).await.expect("an answer");
    let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = answer.text().await.expect("text");
    assert!(html.contains("No tenants yet") && html.contains("Nothing needs you now"), "{html}");
    let loaded = html.split(['"', '\'']).filter(|text| text.starts_with("/console/"));
    for path in loaded {
        let answer = reqwest::get(format!("{base}{path}")).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert!(!html.contains("style=") && !html.contains("onclick"), "the policy refuses both");
}

/// Opens a stream of events and reads until `text` was sent.
async fn open_stream(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.admin_address()).await.expect("connected");
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("asked");
    stream
}

async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let mut buffer = [0; 4096];
        let reading = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer));
        let length = reading.await.unwrap_or_else(|_| panic!("{text} does not come: {read}")).expect("read");
        assert!(length > 0, "it ended before {text}: {read}");
        read += &String::from_utf8_lossy(&buffer[..length]);
    }
    read
}

#[tokio::test]
async fn open_pages_hear_of_changes_and_keep_no_probe_waiting() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let mut stream = open_stream(&gateway).await;
    let first = read_until(&mut stream, "\n\n").await;
    assert!(first.contains("event: change") && first.contains("\"serving\":0"), "{first}");
    gateway.put("a.yaml", Tenant::new("a", &backend).yaml());
    read_until(&mut stream, "\"serving\":1").await;
    // More streams than the listener has connections: the oldest end, and probes are answered.
    let mut streams = Vec::new();
    for _ in 0..80 {
        streams.push(open_stream(&gateway).await);
    }
    for _ in 0..10 {
        assert_eq!(gateway.admin("/healthz").await.0, 200);
        assert_eq!(gateway.admin("/").await.0, 200);
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the oldest stream did not end");
}
