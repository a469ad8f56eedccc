//! What a page of somebody else can do to the admin listener from the browser of a person who has
//! the console open, on the gateway's own machine: nothing, although every request of that browser
//! could act.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::browser::Browser;
use super::DESK;
use crate::harness::{FakeBackend, Gateway, Setup, Tenant};

const ATTACK: &str = include_str!("../../../peers/attack_page.mjs");

/// The page that attacks the target in its query, in its own name or, framed, in nobody's.
const PAGE: &str = "<!doctype html><title>evil</title><link rel=icon href=data:,><body><script type=module>\
    import { attack } from '/attack.mjs';\
    const { target, framed } = Object.fromEntries(new URLSearchParams(location.search));\
    if (framed) {\
      addEventListener('message', ({ data }) => { window.results = data });\
      const frame = document.createElement('iframe');\
      frame.sandbox = 'allow-scripts allow-forms allow-popups allow-modals';\
      frame.src = '/?target=' + encodeURIComponent(target);\
      document.body.append(frame);\
    } else {\
      const results = { origin: self.origin, ...await attack(target) };\
      window.results = results;\
      if (parent !== window) parent.postMessage(results, '*');\
    }</script>";

/// A server of pages that nobody should trust. It also answers whatever the admin listener does, to
/// everybody: against it, the attacks succeed.
struct Stranger {
    address: SocketAddr,
    /// The requests that would have acted.
    actions: Arc<AtomicUsize>,
    /// Ends with it.
    _serving: JoinSet<()>,
}

impl Stranger {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let actions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&actions);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&counted)));
            }
        });
        Self { address, actions, _serving: serving }
    }

    /// Returns the page that attacks `target`, by the name of this server.
    fn page(&self, name: &str, target: &str, framed: &str) -> String {
        let port = self.address.port();
        format!("http://{name}:{port}/?target={}&framed={framed}", target.replace(':', "%3A"))
    }
}

async fn answer(mut stream: TcpStream, actions: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(length @ 1..) => head.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if matches!(method, "POST" | "PUT" | "DELETE") {
        actions.fetch_add(1, Ordering::Relaxed);
    }
    let (kind, body) = match path.split('?').next().unwrap_or_default() {
        "/attack.mjs" | "/console/console.js" => ("text/javascript", ATTACK),
        "/console/console.css" => ("text/css", "p {}"),
        "/console/icon.png" => {
            ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>")
        }
        "/events" => ("text/event-stream", "event: change\ndata: {\"generation\":1}\n\n"),
        "/" if path.contains("target=") => ("text/html", PAGE),
        _ => ("text/html", "what is secret"),
    };
    let origin =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("origin: ").map(str::to_owned));
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Access-Control-Allow-Origin: {}\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Allow-Methods: POST, PUT, DELETE\r\nAccess-Control-Allow-Headers: x-csrf-token\r\n\r\n{body}",
        body.len(),
        origin.as_deref().unwrap_or("*")
    );
    // A browser that closes has what it wanted.
    let _sent = stream.write_all(answer.as_bytes()).await;
    // What it still sends is read, so that it reads the answer.
    while matches!(stream.read(&mut piece).await, Ok(1..)) {}
}

/// Opens a page that attacks, and returns what came of each attempt.
async fn attack(browser: &mut Browser, page: &str) -> serde_json::Map<String, Value> {
    browser.go(page).await;
    browser.until("window.results !== undefined").await;
    let results = browser.evaluate("window.results").await;
    results.as_object().unwrap_or_else(|| panic!("no results: {results}")).clone()
}

/// Returns the attempts that came to something.
fn successes(results: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    results.iter().filter(|(name, end)| *name != "origin" && **end != json!("nothing")).collect()
}

async fn start() -> (FakeBackend, Gateway) {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.yaml", Tenant::new("acme", &backend).yaml()).start().await;
    gateway.until_state("acme", "serving").await;
    (backend, gateway)
}

/// Asserts that a gateway did nothing that a page ordered.
async fn assert_nothing_was_done(mut gateway: Gateway, before: &Value) {
    assert_eq!(gateway.status("acme").await.as_ref(), Some(before), "the tenant is as it was");
    assert!(!gateway.tenant_file("evil.yaml").exists());
    let (_, blocks) = gateway.admin("/api/blocks").await;
    assert_eq!(blocks, "[]");
    gateway.signal("TERM");
    gateway.until_ended().await;
    let audit = std::fs::read_to_string(gateway.path().join("state/audit.jsonl")).unwrap_or_default();
    assert!(!audit.contains("\"order\""), "an order was taken: {audit}");
}

#[tokio::test]
async fn a_page_of_another_origin_reads_nothing_and_changes_nothing() {
    let (_backend, gateway) = start().await;
    let stranger = Stranger::start().await;
    let before = gateway.status("acme").await.expect("there");
    let admin = gateway.admin_address();
    let mut browser = Browser::open_with(DESK, json!({ "hosts": "MAP evil.example 127.0.0.1" })).await;
    // The person has the console open, and so its cookie.
    browser.go(&format!("http://{admin}/")).await;
    browser.until("document.querySelector('form[action=\"/reload\"]')").await;
    for name in ["127.0.0.1", "localhost", "evil.example"] {
        for framed in ["", "1"] {
            let page = stranger.page(name, &format!("http://{admin}"), framed);
            let results = attack(&mut browser, &page).await;
            assert!(results.len() > 50, "it tried little: {results:?}");
            assert_eq!(results["origin"] == "null", framed == "1", "{results:?}");
            assert_eq!(successes(&results), Vec::new(), "{page}");
        }
    }
    // The control: the same page succeeds against a server that protects nothing.
    let stranger_itself = Stranger::start().await;
    let page = stranger.page("localhost", &format!("http://{}", stranger_itself.address), "");
    let results = attack(&mut browser, &page).await;
    for name in [
        "a script",
        "a picture",
        "a style",
        "events",
        "GET /api/tenants cors",
        "PUT /api/files/evil.yaml cors",
    ] {
        assert_ne!(results[name], "nothing", "{name}: {results:?}");
    }
    assert!(stranger_itself.actions.load(Ordering::Relaxed) > 20);
    assert_nothing_was_done(gateway, &before).await;
}

#[tokio::test]
async fn a_page_that_opens_or_frames_the_console_holds_nothing_of_it() {
    let (_backend, gateway) = start().await;
    let stranger = Stranger::start().await;
    let before = gateway.status("acme").await.expect("there");
    let admin = format!("http://{}", gateway.admin_address());
    let mut browser = Browser::open(DESK).await;
    browser.go(&format!("{admin}/")).await;
    browser.go(&format!("http://127.0.0.1:{}/blank", stranger.address.port())).await;
    browser.evaluate(&format!("window.opened = window.open('{admin}/tenants/acme'); 0")).await;
    browser.until("window.opened && window.opened.closed").await;
    let read =
        "(() => { try { return window.opened.document.body.innerText } catch { return 'nothing' } })()";
    assert_eq!(browser.evaluate(read).await, "nothing");
    // What the console answers to a frame is shown in none.
    let framing = format!(
        "window.framed = document.createElement('iframe'); framed.onload = () => {{ window.isFramed = true }}; \
         framed.src = '{admin}/'; document.body.append(framed); 0"
    );
    browser.evaluate(&framing).await;
    browser.until("window.isFramed").await;
    let frames = browser.frames().await;
    let is_kept_out = |frame: &Value| frame["unreachable"] == format!("{admin}/");
    assert!(frames.as_array().expect("frames").iter().any(is_kept_out), "{frames}");
    assert_nothing_was_done(gateway, &before).await;
}

#[tokio::test]
async fn a_name_that_is_led_to_the_listener_reads_nothing() {
    let (_backend, gateway) = start().await;
    let before = gateway.status("acme").await.expect("there");
    let port = gateway.admin_address().port();
    let rules = "MAP rebound.example 127.0.0.1, MAP localhost.evil 127.0.0.1, MAP 127-0-0-1.nip.io 127.0.0.1";
    // A page of the attacker was loaded before, without our policy.
    let mut browser = Browser::open_with(DESK, json!({ "hosts": rules, "bypass": true })).await;
    for name in ["rebound.example", "localhost.evil", "127-0-0-1.nip.io"] {
        browser.go(&format!("http://{name}:{port}/")).await;
        for (method, path) in [
            ("GET", "/api/tenants"),
            ("GET", "/"),
            ("POST", "/api/tenants/acme/pause"),
            ("POST", "/-/reload"),
        ] {
            let ask = format!(
                "window.seen = undefined; fetch('{path}', {{ method: '{method}' }})\
                 .then(async (answer) => {{ window.seen = [answer.status, await answer.text()] }}); 0"
            );
            browser.evaluate(&ask).await;
            browser.until("window.seen").await;
            let seen = browser.evaluate("window.seen").await;
            assert_eq!(seen[0], 421, "{name} {path}: {seen}");
            assert!(!seen[1].as_str().expect("a text").contains("acme"), "{name} {path}: {seen}");
        }
    }
    assert_nothing_was_done(gateway, &before).await;
}
