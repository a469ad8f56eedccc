//! A tenant's backend that misbehaves on demand: a small HTTP/1.1 server on loopback.
//!
//! It writes its answers by hand, because what it must be able to do wrong (half a chunk, a reset, headers in drips)
//! is what server libraries prevent. It keeps connections alive, records requests, and counts connections, requests
//! under way, and requests whose client went away before the answer.
//!
//! Shared by the unit tests of `backend` and the gateway's own tests.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// No test waits longer for an event.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a drip takes.
const DRIP: Duration = Duration::from_millis(20);

/// What the backend does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Rows, as the vendor's API might give them.
    Rows,
    Json(Value),
    /// Any status with any JSON body.
    Status(u16, Value),
    /// The reply, later.
    After(Duration, Box<Reply>),
    /// The reply, once [`FakeBackend::release`] was called.
    Held(Box<Reply>),
    /// Silence.
    Hang,
    /// The status line, then silence.
    HangInHeaders,
    /// Headers and half a body, then silence.
    HangInBody,
    /// The reply's bytes in drips.
    Drip(Box<Reply>),
    /// A body of so many bytes, announced.
    Huge(usize),
    /// A body of so many bytes in chunks, not announced.
    HugeChunked(usize),
    /// Bytes that are no JSON, called JSON.
    Garbage,
    /// A web page.
    Html(u16),
    /// 429 with this Retry-After.
    RateLimited(&'static str),
    /// A chunk that ends early, then the end of the connection.
    TruncatedChunk,
    /// A reset instead of an answer.
    Reset,
    /// The end of the connection instead of an answer.
    Close,
    /// A redirect.
    Redirect(u16, String),
    /// JSON with a byte order mark, called text.
    WrongContentType,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections opened.
    pub(crate) connections: usize,
    /// Requests read.
    pub(crate) requests: usize,
    /// Requests being answered now, and the most there ever were.
    pub(crate) in_flight: usize,
    pub(crate) most_in_flight: usize,
    /// Requests whose client went away before the answer.
    pub(crate) cancelled: usize,
}

/// A running backend; it ends when dropped.
pub(crate) struct FakeBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    counts: watch::Sender<Counts>,
    /// Releases so far.
    released: watch::Sender<usize>,
    stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct Script {
    /// By path.
    standing: HashMap<String, Reply>,
    /// Taken first, whatever the path.
    next: VecDeque<Reply>,
    requests: Vec<Recorded>,
}

impl FakeBackend {
    /// A backend that answers rows to everything.
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same at an address that was another's before.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            counts: watch::Sender::default(),
            released: watch::Sender::default(),
            stopped: watch::Sender::default(),
        });
        let address = listener.local_addr().expect("a bound listener has an address");
        let accepting = spawn(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// Ends it with all its connections, and says where it was.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.shared.stopped.send_replace(true);
        self.shared.stopped.closed().await;
        self.address
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on this path (without query) is answered so.
    pub(crate) fn answer(&self, path: &str, reply: Reply) {
        self.shared.script().standing.insert(path.to_owned(), reply);
    }

    /// The next request, whatever its path, is answered so; several are taken in order.
    pub(crate) fn answer_next(&self, reply: Reply) {
        self.shared.script().next.push_back(reply);
    }

    /// Lets every [`Reply::Held`] that waits now go on.
    pub(crate) fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// What it was asked.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.script().requests.clone()
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts are as wanted.
    pub(crate) async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let seen = tokio::time::timeout(PATIENCE, counts.wait_for(wanted)).await;
        match seen {
            Ok(counts) => *counts.expect("the backend holds the sender"),
            Err(_) => panic!("the backend waited in vain; it saw {:?}", self.counts()),
        }
    }
}

impl Drop for FakeBackend {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.stopped.send_replace(true);
    }
}

impl Recorded {
    /// The value of a header; several are joined by a comma.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no holder of this lock panics")
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    /// Records a request and says how to answer it.
    fn take(&self, request: Recorded) -> Reply {
        let mut script = self.script();
        let path = request.target.split('?').next().unwrap_or_default();
        let standing = script.standing.get(path).cloned();
        script.requests.push(request);
        script.next.pop_front().or(standing).unwrap_or(Reply::Rows)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server has no gateway whose task it could be")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.count(|counts| counts.connections += 1);
        let shared = shared.clone();
        let mut stopped = shared.stopped.subscribe();
        spawn(async move {
            tokio::select! {
                () = serve(stream, shared) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        });
    }
}

/// Answers the requests of one connection until either side ends it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("a TCP stream takes the option");
    while let Some(request) = read_request(&mut stream).await {
        // Before it is counted: whoever sees it under way may release it.
        let mut released = shared.released.subscribe();
        let mut in_flight = InFlight::begin(&shared);
        let reply = shared.take(request);
        let (mut reader, mut writer) = stream.split();
        let mut byte = [0];
        // A client that waits for its answer sends nothing; what can be read is its end.
        let goes_on = tokio::select! {
            goes_on = perform(reply, &mut writer, &mut released) => Some(goes_on),
            _ = reader.read(&mut byte) => None,
        };
        in_flight.cancelled = goes_on.is_none();
        drop(in_flight);
        match goes_on {
            Some(After::KeepAlive) => {}
            Some(After::Reset) => {
                let unsent = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return unsent.expect("a TCP stream takes the option");
            }
            Some(After::Close) | None => return,
        }
    }
}

/// Counts a request as under way while it lives.
struct InFlight<'a> {
    shared: &'a Shared,
    cancelled: bool,
}

impl<'a> InFlight<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.count(|counts| {
            counts.requests += 1;
            counts.in_flight += 1;
            counts.most_in_flight = counts.most_in_flight.max(counts.in_flight);
        });
        Self { shared, cancelled: false }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.shared.count(|counts| {
            counts.in_flight -= 1;
            counts.cancelled += usize::from(self.cancelled);
        });
    }
}

/// Reads one request with a sized body, or none at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Recorded> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(text).expect("a head of ASCII");
    let mut lines = head.split("\r\n");
    let mut start = lines.next()?.split(' ').map(str::to_owned);
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut request = Recorded {
        method: start.next()?,
        target: start.next()?,
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
    };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// What becomes of the connection.
enum After {
    KeepAlive,
    Close,
    Reset,
}

async fn perform(
    mut reply: Reply,
    writer: &mut (impl AsyncWriteExt + Unpin),
    released: &mut watch::Receiver<usize>,
) -> After {
    let mut dripping = false;
    loop {
        reply = match reply {
            Reply::After(pause, then) => {
                tokio::time::sleep(pause).await;
                *then
            }
            Reply::Held(then) => {
                let _ = released.changed().await;
                *then
            }
            Reply::Drip(then) => {
                dripping = true;
                *then
            }
            plain => break write(&plain, dripping, writer).await,
        };
    }
}

async fn write(reply: &Reply, dripping: bool, writer: &mut (impl AsyncWriteExt + Unpin)) -> After {
    let (bytes, then) = bytes_of(reply);
    let size = if dripping { bytes.len().div_ceil(8).max(1) } else { bytes.len().max(1) };
    for (number, piece) in bytes.chunks(size).enumerate() {
        // Never after the last: by then the client may have sent its next request.
        if dripping && number > 0 {
            tokio::time::sleep(DRIP).await;
        }
        if writer.write_all(piece).await.is_err() {
            return After::Close;
        }
    }
    match then {
        Some(after) => after,
        None => std::future::pending().await,
    }
}

/// The bytes, and what follows them; `None` is silence.
fn bytes_of(reply: &Reply) -> (Vec<u8>, Option<After>) {
    let json = "application/json";
    let whole =
        |status, kind, body: &[u8]| (answer(status, &[("content-type", kind)], body), Some(After::KeepAlive));
    match reply {
        Reply::Rows => whole(200, json, rows().to_string().as_bytes()),
        Reply::Json(value) => whole(200, json, value.to_string().as_bytes()),
        Reply::Status(status, value) => whole(*status, json, value.to_string().as_bytes()),
        Reply::Hang => (Vec::new(), None),
        Reply::HangInHeaders => (b"HTTP/1.1 200 OK\r\ncontent-type: applic".to_vec(), None),
        Reply::HangInBody => (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"rows\": [".to_vec(), None),
        Reply::Huge(size) => whole(200, json, format!("\"{}\"", "x".repeat(size - 2)).as_bytes()),
        Reply::HugeChunked(size) => {
            let body = format!("{:x}\r\n\"{}\"\r\n0\r\n\r\n", size, "x".repeat(size - 2));
            (chunked(body.as_bytes()), Some(After::KeepAlive))
        }
        Reply::Garbage => whole(200, json, b"\x00\xff{not json"),
        Reply::Html(status) => whole(*status, "text/html", b"<!doctype html><h1>It works</h1>"),
        Reply::RateLimited(after) => (answer(429, &[("retry-after", after)], b"{}"), Some(After::KeepAlive)),
        Reply::TruncatedChunk => (chunked(b"ff\r\n{\"rows\": ["), Some(After::Close)),
        Reply::Reset => (Vec::new(), Some(After::Reset)),
        Reply::Close => (Vec::new(), Some(After::Close)),
        Reply::Redirect(status, target) => {
            (answer(*status, &[("location", target)], b""), Some(After::KeepAlive))
        }
        Reply::WrongContentType => whole(200, "text/plain", b"\xef\xbb\xbf{\"rows\": []}"),
        Reply::After(..) | Reply::Held(_) | Reply::Drip(_) => unreachable!("unwrapped before"),
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Some Reason\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    [&head[..], body].concat()
}

/// Two rows about orders.
pub(crate) fn rows() -> Value {
    json!({
        "columns": ["region", "orders"],
        "rows": [{"region": "north", "orders": 12}, {"region": "south", "orders": 7}],
        "row_count": 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a plain client reads until the backend ends the connection or `patience` is over.
    async fn raw(backend: &FakeBackend, patience: Duration) -> String {
        let mut stream = TcpStream::connect(backend.address()).await.expect("connects");
        let request = b"POST /nlp-search HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(request).await.expect("writes");
        let mut seen = Vec::new();
        let _ = tokio::time::timeout(patience, stream.read_to_end(&mut seen)).await;
        String::from_utf8_lossy(&seen).into_owned()
    }

    #[tokio::test]
    async fn every_reply_is_what_it_says() {
        let backend = FakeBackend::start().await;
        let expectations = [
            (Reply::Rows, "200", "\"row_count\":2"),
            (Reply::Status(403, json!({"detail": "no"})), "403", "\"no\""),
            (Reply::HangInHeaders, "200", "applic"),
            (Reply::HangInBody, "200", "{\"rows\": ["),
            (Reply::Drip(Box::new(Reply::Json(json!([1])))), "200", "[1]"),
            (Reply::Huge(64), "content-length: 64", "xxx\""),
            (Reply::HugeChunked(64), "chunked", "xxx\""),
            (Reply::Garbage, "200", "{not json"),
            (Reply::Html(502), "502", "<h1>"),
            (Reply::RateLimited("7"), "429", "retry-after: 7"),
            (Reply::TruncatedChunk, "chunked", "{\"rows\": ["),
            (Reply::Redirect(307, "/x".into()), "307", "location: /x"),
            (Reply::WrongContentType, "text/plain", "{\"rows\": []}"),
            (Reply::After(DRIP, Box::new(Reply::Rows)), "200", "row_count"),
        ];
        for (reply, head, body) in expectations {
            backend.answer_next(reply.clone());
            let seen = raw(&backend, Duration::from_millis(400)).await;
            assert!(seen.contains(head) && seen.contains(body), "{reply:?}: {seen}");
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_counted() {
        let address = FakeBackend::start().await.stop().await;
        let backend = FakeBackend::start_at(address).await;
        for reply in [Reply::Close, Reply::Reset] {
            backend.answer_next(reply);
            assert_eq!(raw(&backend, PATIENCE).await, "");
        }
        backend.answer("/nlp-search", Reply::Hang);
        assert_eq!(raw(&backend, DRIP).await, "");
        let counts = backend.until(|counts| counts.cancelled == 1).await;
        assert_eq!((counts.connections, counts.requests, counts.in_flight), (3, 3, 0));
    }

    #[tokio::test]
    async fn a_held_reply_waits_to_be_released() {
        let backend = FakeBackend::start().await;
        backend.answer("/nlp-search", Reply::Held(Box::new(Reply::Close)));
        let release = async {
            backend.until(|counts| counts.in_flight == 1).await;
            tokio::task::yield_now().await;
            backend.release();
        };
        let (seen, ()) = tokio::join!(raw(&backend, PATIENCE), release);
        assert_eq!(seen, "");
        let request = &backend.requests()[0];
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/nlp-search"));
        assert_eq!((request.header("HOST").as_deref(), request.json()), (Some("h"), json!({})));
        assert_eq!(
            (backend.counts().most_in_flight, backend.url("/a").starts_with("http://127.0.0.1:")),
            (1, true)
        );
        assert_eq!(rows()["row_count"], 2);
    }
}
