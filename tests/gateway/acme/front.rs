//! A reverse proxy in front of `pebble` that adds what Debian's version lacks (ARI, profiles) and
//! injects faults.
//!
//! It keeps the Host header, from which pebble builds its URLs, so that signatures over them stay
//! valid. It serves one request per connection.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::pebble::Pebble;

/// A fault that replaces the response to a new-order request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The error page of a proxy.
    Html,
    /// 429 with Retry-After, in seconds.
    RateLimited(u32),
    /// No response, ever.
    Hang,
    /// The connection is closed.
    Reset,
    /// The account is unknown.
    NoAccount,
}

/// A wrong certificate chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The leaf certificate alone.
    Truncated,
    /// The chain of the previous certificate.
    Stale,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    lie: Option<Lie>,
    /// Start and end of the suggested renewal window, in seconds from now.
    window: Option<(i64, i64)>,
    profiles: Vec<String>,
    orders: Vec<Value>,
    replaced: Vec<String>,
    chain: Option<String>,
}

/// A running proxy. Dropping it stops it.
pub(crate) struct Front {
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn before(pebble: &Pebble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (chain, key, root) = pebble.identity();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&chain, &key)));
        let connector = TlsConnector::from(Arc::new(client_config(&root)));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Shared { state: state.clone(), behind: pebble.port(), connector, port };
        let accepting = spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        // A client that disconnects is not an error.
                        let _ = shared.serve(stream).await;
                    }
                });
            }
        });
        Self { port, state, accepting }
    }

    /// Returns the URL of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Queues faults for the next new-order requests.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.state().faults = faults.to_vec();
    }

    /// Returns whether all queued faults have occurred.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().faults.is_empty()
    }

    /// Sets the lie about certificate chains; `None` clears it.
    pub(crate) fn lie(&self, lie: Option<Lie>) {
        self.state().lie = lie;
    }

    /// Enables ARI with this suggested window, in seconds from the time of the request.
    pub(crate) fn suggest(&self, from: i64, until: i64) {
        self.state().window = Some((from, until));
    }

    /// Advertises these profiles.
    pub(crate) fn offer(&self, profiles: &[&str]) {
        self.state().profiles = profiles.iter().map(|profile| (*profile).to_owned()).collect();
    }

    /// Returns the serial number of the last certificate it delivered.
    pub(crate) fn serial(&self) -> Option<String> {
        let chain = self.state().chain.clone()?;
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).expect("a certificate");
        Some(super::visitor::serial(&leaf))
    }

    /// Returns the payloads of the accepted new-order requests.
    pub(crate) fn orders(&self) -> Vec<Value> {
        self.state().orders.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    behind: u16,
    connector: TlsConnector,
    port: u16,
}

struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Shared {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> std::io::Result<()> {
        let request = read(&mut stream).await?;
        let path = request.start.split(' ').nth(1).unwrap_or_default().to_owned();
        let order = if path == "/order-plz" { ordered(&request) } else { None };
        if order.is_some() {
            let fault = self.state().next_fault();
            match fault {
                None => {}
                Some(Fault::Hang) => std::future::pending::<()>().await,
                Some(Fault::Reset) => return Ok(()),
                Some(fault) => return write(&mut stream, failed(fault)).await,
            }
        }
        if order.as_ref().is_some_and(|order| self.state().was_replaced(order)) {
            let conflict = problem("409 Conflict", "alreadyReplaced", "it was replaced before", &[]);
            return write(&mut stream, conflict).await;
        }
        if path.starts_with("/ari/") {
            let window = self.state().window.unwrap_or((0, 0));
            return write(&mut stream, window_answer(window)).await;
        }
        let mut answer = self.ask(request).await?;
        self.change(&path, &mut answer);
        // A request that pebble refused, e.g. because of its nonce, has placed no order.
        if let Some(order) = order.filter(|_| answer.start.contains(" 201")) {
            self.state().take_order(order, &mut answer);
        }
        write(&mut stream, answer).await
    }

    async fn ask(&self, mut request: Message) -> std::io::Result<Message> {
        let stream = TcpStream::connect(("127.0.0.1", self.behind)).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = self.connector.connect(name, stream).await?;
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
        request.headers.push(("connection".into(), "close".into()));
        let is_head = request.start.starts_with("HEAD");
        // HTTP/1.0 has no chunked encoding.
        request.start = request.start.replace("HTTP/1.1", "HTTP/1.0");
        write(&mut stream, request).await?;
        let mut answer = read_head(&mut stream).await?;
        if !is_head {
            read_body(&mut stream, &mut answer).await?;
        }
        answer.start = answer.start.replace("HTTP/1.0", "HTTP/1.1");
        Ok(answer)
    }

    fn change(&self, path: &str, answer: &mut Message) {
        let mut state = self.state();
        if path == "/dir" {
            let mut directory: Value = serde_json::from_slice(&answer.body).expect("a directory");
            if state.window.is_some() {
                directory["renewalInfo"] = format!("https://localhost:{}/ari", self.port).into();
            }
            for profile in &state.profiles {
                directory["meta"]["profiles"][profile] = "of the front".into();
            }
            answer.body = directory.to_string().into_bytes();
        }
        // A refusal contains no chain; pebble refuses valid nonces at random.
        if path.starts_with("/certZ/") && answer.start.contains(" 200 ") {
            let chain = String::from_utf8_lossy(&answer.body).into_owned();
            let before = state.chain.replace(chain.clone());
            let lied = match state.lie {
                None => None,
                Some(Lie::Truncated) => {
                    chain.split_inclusive("-----END CERTIFICATE-----\n").next().map(str::to_owned)
                }
                Some(Lie::Stale) => before,
            };
            if let Some(lied) = lied {
                answer.body = lied.into_bytes();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn next_fault(&mut self) -> Option<Fault> {
        if self.faults.is_empty() { None } else { Some(self.faults.remove(0)) }
    }

    /// Returns whether the certificate that an order replaces was replaced before, which RFC 9773
    /// allows once.
    fn was_replaced(&self, order: &Value) -> bool {
        order["replaces"].as_str().is_some_and(|id| self.replaced.iter().any(|replaced| replaced == id))
    }

    /// Records an order and adds `replaces` to the response.
    fn take_order(&mut self, order: Value, answer: &mut Message) {
        if let Some(replaces) = order["replaces"].as_str() {
            self.replaced.push(replaces.to_owned());
            let mut placed: Value = serde_json::from_slice(&answer.body).expect("an order");
            placed["replaces"] = replaces.into();
            answer.body = placed.to_string().into_bytes();
        }
        self.orders.push(order);
    }
}

/// Returns the payload of a new-order request (JWS).
fn ordered(request: &Message) -> Option<Value> {
    let jws: Value = serde_json::from_slice(&request.body).ok()?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str()?).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn failed(fault: Fault) -> Message {
    match fault {
        Fault::RateLimited(seconds) => problem(
            "429 Too Many Requests",
            "rateLimited",
            "too many certificates already issued",
            &[("retry-after", seconds.to_string())],
        ),
        Fault::NoAccount => problem("400 Bad Request", "accountDoesNotExist", "no such account", &[]),
        Fault::Html | Fault::Hang | Fault::Reset => Message {
            start: "HTTP/1.1 502 Bad Gateway".into(),
            headers: vec![("content-type".into(), "text/html".into())],
            body: b"<html><h1>Bad Gateway</h1></html>".to_vec(),
        },
    }
}

fn problem(status: &str, kind: &str, detail: &str, headers: &[(&str, String)]) -> Message {
    let mut all = vec![("content-type".to_owned(), "application/problem+json".to_owned())];
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let urn = format!("urn:ietf:params:acme:error:{kind}");
    let body = json!({ "type": urn, "detail": detail }).to_string().into_bytes();
    Message { start: format!("HTTP/1.1 {status}"), headers: all, body }
}

fn window_answer((from, until): (i64, i64)) -> Message {
    let moment = |offset: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(offset)).to_string();
    let body = json!({ "suggestedWindow": { "start": moment(from), "end": moment(until) } });
    let headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("retry-after".to_owned(), "3600".to_owned()),
    ];
    Message { start: "HTTP/1.1 200 OK".into(), headers, body: body.to_string().into_bytes() }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Message> {
    let mut message = read_head(stream).await?;
    if message.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        read_body(stream, &mut message).await?;
    }
    Ok(message)
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Message> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Message { start, headers: lines.filter_map(header).collect(), body: Vec::new() })
}

/// Reads a body by its Content-Length, or to the end of the connection.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, message: &mut Message) -> std::io::Result<()> {
    let length = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match length.and_then(|(_, length)| length.parse::<usize>().ok()) {
        Some(length) => {
            message.body.resize(length, 0);
            stream.read_exact(&mut message.body).await.map(drop)
        }
        None => {
            let read =
                tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut message.body)).await;
            read.map(drop).map_err(Into::into)
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: Message) -> std::io::Result<()> {
    let mut text = format!("{}\r\n", message.start);
    let is_head = message.start.contains("200") && message.body.is_empty();
    for (name, value) in &message.headers {
        let framing = ["content-length", "transfer-encoding", "connection"];
        if !framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    if !is_head {
        text += &format!("content-length: {}\r\n", message.body.len());
    }
    text += "connection: close\r\n\r\n";
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(&message.body).await?;
    stream.flush().await?;
    if message.start.starts_with("HTTP/") { stream.shutdown().await } else { Ok(()) }
}

fn server_config(chain: &[u8], key: &[u8]) -> rustls::ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(chain).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they fit")
}

fn client_config(root: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root).expect("a certificate")).expect("a root");
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[expect(clippy::disallowed_methods, reason = "a test's server has no gateway whose task it could be")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
