//! The console of the admin listener: what its pages say, and what they never contain.

mod audit;
mod operations;

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
    for path in [
        "/",
        "/tenants/named",
        "/tenants/broken",
        "/tenants/%3Cb%3E%27%26",
        "/certificates",
        "/alerts",
        "/audit?person=%3Cscript%3E&since=%3Cscript%3E",
    ] {
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

/// A browser at the console, without scripts.
struct Visitor {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

impl Visitor {
    async fn open(gateway: &Gateway) -> Self {
        let base = format!("http://{}", gateway.admin_address());
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = http.build().expect("a client");
        let first = http.get(&base).header("sec-fetch-site", "none").send().await.expect("an answer");
        let cookie = first.headers()["set-cookie"].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        Self { http, base, cookie }
    }

    async fn get(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.base)).header("cookie", &self.cookie);
        let html = request.send().await.expect("an answer").text().await.expect("text");
        super::harness::secret::assert_none(path, &html);
        html
    }

    /// Returns the token that the forms of a page carry.
    async fn csrf_token(&self, path: &str) -> String {
        let html = self.get(path).await;
        let rest = html.split("name=\"csrf_token\" value=\"").nth(1);
        let rest = rest.unwrap_or_else(|| panic!("{path} has no form: {html}"));
        rest.split('"').next().expect("an end").to_owned()
    }

    /// Posts a form and returns status, and the page that it leads to.
    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.http.post(format!("{}{path}", self.base)).header("origin", &self.base);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        self.follow(request).await
    }

    /// Posts a form with a file.
    async fn post_file(&self, path: &str, name: &str, bytes: &[u8]) -> (u16, String) {
        let mut body = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n--edge--\r\n");
        let request = self.http.post(format!("{}{path}", self.base)).header("origin", &self.base);
        let request = request.header("content-type", "multipart/form-data; boundary=edge").body(body);
        self.follow(request).await
    }

    async fn follow(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = request.header("cookie", &self.cookie).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let to = answer.headers().get("location").map(|to| to.to_str().expect("text").to_owned());
        match to {
            Some(to) => (status, self.get(&to).await),
            None => (status, answer.text().await.expect("text")),
        }
    }
}

#[tokio::test]
async fn actions_are_the_apis_and_say_what_came_of_them() {
    let backend = FakeBackend::start().await;
    let mut gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let visitor = Visitor::open(&gateway).await;
    let token = visitor.csrf_token("/tenants/a").await;
    let with_token = [("csrf_token", &*token)];
    let (status, html) = visitor.post("/tenants/a/pause", &with_token).await;
    assert!(status == 303 && html.contains("Paused: callers are refused"), "{status} {html}");
    assert!(
        html.contains("<span class=\"state paused\">paused</span>") && html.contains(">Resume<"),
        "{html}"
    );
    let (_, html) = visitor.post("/tenants/a/resume", &with_token).await;
    assert!(html.contains("Resumed.") && html.contains(">Pause<"), "{html}");
    // What is refused says why, as the API does.
    let (status, html) = visitor.post("/tenants/a/rollback?revision=7", &with_token).await;
    assert!(status == 303 && html.contains("Refused: revision 7 is not stored"), "{status} {html}");
    let (_, html) = visitor.post("/reload", &with_token).await;
    assert!(html.contains("The tenants folder was read."), "{html}");
    let (_, html) = visitor.post("/certificates/localhost/renew", &with_token).await;
    assert!(html.contains("Refused: "), "{html}");
    // Nobody else's link makes the console say something.
    assert!(!visitor.get("/?notice=00000000000000000000000000000000").await.contains("class=\"answer"));
    gateway.signal("TERM");
    gateway.until_ended().await;
    let audit = std::fs::read_to_string(gateway.path().join("state/audit.jsonl")).expect("an audit");
    let lines = audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let told: Vec<_> = lines
        .filter(|line| line["event"] == "order")
        .map(|line| ["order", "outcome"].map(|field| line[field].as_str().unwrap_or_default().to_owned()))
        .collect();
    let expected = [
        ["pause", "ok"],
        ["resume", "ok"],
        ["rollback", "not_found"],
        ["reload", "ok"],
        ["renew", "refused"],
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn without_its_token_no_form_changes_anything() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let visitor = Visitor::open(&gateway).await;
    let others = Visitor::open(&gateway).await.csrf_token("/tenants/a").await;
    let forged = "0".repeat(others.len());
    for fields in [&[][..], &[("csrf_token", &*others)], &[("csrf_token", &*forged)]] {
        for path in [
            "/tenants/a/pause",
            "/tenants/a/resume",
            "/tenants/a/accept",
            "/tenants/a/approve",
            "/tenants/a/rollback?revision=1",
            "/alerts/test",
            "/reload",
            "/certificates/localhost/renew",
            "/add",
            "/add/b.yaml/accept",
            "/people/end",
            "/people/block",
            "/people/unblock/1",
        ] {
            let (status, html) = visitor.post(path, fields).await;
            assert_eq!(status, 403, "{path}: {html}");
        }
    }
    let (status, html) = visitor.post_file("/add", "b.yaml", &Tenant::new("b", &backend).yaml()).await;
    assert_eq!(status, 403, "{html}");
    assert_eq!(gateway.status("a").await.expect("there")["state"], "serving");
}

#[tokio::test]
async fn a_file_is_checked_first_and_then_accepted() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let visitor = Visitor::open(&gateway).await;
    let token = visitor.csrf_token("/").await;
    let add = format!("/add?csrf_token={token}");
    let (status, html) = visitor.post_file(&add, "bad.yaml", b"search_url: [\n").await;
    assert!(status == 200 && html.contains("Would be rejected") && html.contains("yaml-syntax"), "{html}");
    assert!(!html.contains(">Accept<"), "{html}");
    let (_, html) = visitor.post_file(&add, "../evil.yaml", b"").await;
    assert!(html.contains("Refused: ") && html.contains("not a valid name"), "{html}");
    let (_, html) = visitor.post_file(&add, "", b"").await;
    assert!(html.contains("Refused: choose a file"), "{html}");

    let (status, html) = visitor.post_file(&add, "shop.zip", &Tenant::new("shop", &backend).zip()).await;
    assert!(status == 200 && html.contains("Can be served") && html.contains(">Accept<"), "{html}");
    assert!(!gateway.tenant_file("shop.zip").exists(), "it is only checked");
    let draft = html.split("name=\"draft\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let fields = [("csrf_token", &*token), ("draft", draft.expect("an id"))];
    let (status, html) = visitor.post("/add/shop.zip/accept", &fields).await;
    assert!(status == 303 && html.contains("shop.zip is in the tenants folder"), "{status} {html}");
    gateway.until_state("shop", "serving").await;
    let (_, html) = visitor.post("/add/shop.zip/accept", &fields).await;
    assert!(html.contains("Refused: the checked file was not accepted in time"), "{html}");
}
