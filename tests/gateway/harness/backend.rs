//! A tenant's backend that misbehaves on demand: a small HTTP/1.1 server on loopback.
//!
//! It writes its responses by hand, because server libraries prevent the faults it must produce
//! (half a chunk, a reset, headers in drips). It keeps connections alive, records requests, and
//! counts connections, requests in flight, and requests whose client disconnected before the
//! response.
//!
//! It reads only bodies with a Content-Length, which is how this project's clients send them.
//! Shared by the unit tests of `backend` and the tests of the gateway.

#[path = "backend/reply.rs"]
mod reply;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use reply::{After, bytes_of};
pub(crate) use reply::{Reply, rows};

/// The deadline of every wait for an event.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two drips.
const DRIP: Duration = Duration::from_millis(20);

/// A request as it was received.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections accepted.
    pub(crate) connections: usize,
    /// Requests read.
    pub(crate) requests: usize,
    /// Requests in flight now, and their highest number so far.
    pub(crate) in_flight: usize,
    pub(crate) most_in_flight: usize,
    /// Requests whose client disconnected before the response.
    pub(crate) cancelled: usize,
}

/// A running backend. Dropping it stops it.
pub(crate) struct FakeBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    counts: watch::Sender<Counts>,
    /// The number of calls of [`FakeBackend::release`] so far.
    released: watch::Sender<usize>,
    stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct Script {
    /// Replies by path.
    standing: HashMap<String, Reply>,
    /// Replies used first, whatever the path.
    next: VecDeque<Reply>,
    requests: Vec<Recorded>,
}

impl FakeBackend {
    /// Starts a backend that replies to everything with rows.
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts a backend at an address that another one used before.
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

    /// Stops it, closes all its connections, and returns its address.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.shared.stopped.send_replace(true);
        self.shared.stopped.closed().await;
        self.address
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of a path on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the reply to all further requests for this path (without query).
    pub(crate) fn answer(&self, path: &str, reply: Reply) {
        self.shared.script().standing.insert(path.to_owned(), reply);
    }

    /// Queues a reply to the next request, whatever its path.
    pub(crate) fn answer_next(&self, reply: Reply) {
        self.shared.script().next.push_back(reply);
    }

    /// Lets every [`Reply::Held`] that waits now continue.
    pub(crate) fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// Returns the requests received so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.script().requests.clone()
    }

    /// Returns the counters.
    pub(crate) fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counters satisfy `wanted`.
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
    /// Returns the value of a header; several values are joined by a comma.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Returns the body as JSON.
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

    /// Records a request and returns the reply to it.
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

/// Answers the requests of one connection until either side closes it.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("a TCP stream takes the option");
    while let Some(request) = read_request(&mut stream).await {
        // Subscribes before the request is counted: a test that sees the count may release it at
        // once.
        let mut released = shared.released.subscribe();
        let mut in_flight = InFlight::begin(&shared);
        let reply = shared.take(request);
        let (mut reader, mut writer) = stream.split();
        let mut byte = [0];
        // A client that waits for its response sends nothing, so the only thing to read is its end.
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

/// Counts a request as in flight while it lives.
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

/// Reads one request with a sized body. `None` at the end of the connection.
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
        // No pause after the last drip: by then the client may have sent its next request.
        if dripping && number > 0 {
            tokio::time::sleep(DRIP).await;
        }
        if writer.write_all(piece).await.is_err() {
            return After::Close;
        }
    }
    if let Reply::Endless(_, piece) = reply {
        let many = piece.repeat((64 << 10) / piece.len());
        while writer.write_all(many.as_bytes()).await.is_ok() {}
        return After::Close;
    }
    match then {
        Some(after) => after,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "backend/tests.rs"]
mod tests;
