//! One request of a client, sent over a connection of its own, and the answer as it came.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::base::clock::{Clock, SystemClock};
use crate::certs::stranger;

/// The time for a whole answer. The gateway gives those to the questions of a doctor at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
/// Who calls, as the machine's own address.
const CALLER: &str = "127.0.0.1";
/// What is read of one answer.
const MAX_BODY: usize = 1 << 20;

/// Where requests are sent.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
    /// The name for TLS.
    pub(super) host: String,
    /// The value of the Host header.
    pub(super) authority: String,
    /// Whether this is the gateway's own listener, which may take us for a proxy that it trusts:
    /// such a one has to say who calls.
    pub(super) is_direct: bool,
}

/// A request, the same wherever it is sent.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct HttpAnswer {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The connection was not opened or not secured.
    Unreachable(String),
    /// It was opened, and nothing came in time.
    Silence,
    /// It was closed before the answer was complete.
    BrokenOff(String),
}

/// How an event stream arrived.
#[derive(Debug, Clone)]
pub(super) struct StreamView {
    pub(super) answer: HttpAnswer,
    /// When the first bytes of the body came; `None` if none did while it was watched.
    pub(super) first_bytes_after: Option<Duration>,
    /// When it ended, if it did while it was watched.
    pub(super) ended_after: Option<Duration>,
}

impl Destination {
    /// Sends a request and reads the whole answer.
    pub(super) async fn ask(&self, question: &Question) -> Result<HttpAnswer, NoAnswer> {
        let exchange = async {
            let mut opened = self.open(question).await?;
            let mut body = Vec::new();
            while let Some(chunk) = opened.next_chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_BODY {
                    break;
                }
            }
            Ok(HttpAnswer { body: body.into(), ..opened.head })
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(NoAnswer::Silence))
    }

    /// Sends a request for an event stream, and watches it for a while.
    pub(super) async fn watch(
        &self,
        question: &Question,
        how_long: Duration,
    ) -> Result<StreamView, NoAnswer> {
        let began = SystemClock.monotonic();
        let opened = tokio::time::timeout(how_long.max(PATIENCE), self.open(question)).await;
        let mut opened = opened.unwrap_or(Err(NoAnswer::Silence))?;
        let mut view = StreamView { answer: opened.head.clone(), first_bytes_after: None, ended_after: None };
        let mut body = Vec::new();
        let _time_is_over = tokio::time::timeout(how_long, async {
            loop {
                match opened.next_chunk().await {
                    Ok(Some(chunk)) => {
                        view.first_bytes_after.get_or_insert(elapsed(began));
                        body.extend_from_slice(&chunk);
                    }
                    Ok(None) | Err(_) => {
                        view.ended_after = Some(elapsed(began));
                        break;
                    }
                }
            }
        })
        .await;
        view.answer.body = body.into();
        Ok(view)
    }

    /// Whether the server proves by its certificate who it is.
    pub(super) async fn is_trusted(&self) -> bool {
        let handshake = async {
            let stream = TcpStream::connect(self.address).await.ok()?;
            let stream = stranger::connect(stream, &self.host).await.ok()?;
            stranger::view_chain(&stream, &self.host, SystemClock.now())
        };
        let seen = tokio::time::timeout(PATIENCE, handshake).await.ok().flatten();
        self.is_tls && seen.is_some_and(|view| view.problems.is_empty())
    }

    async fn open(&self, question: &Question) -> Result<OpenAnswer, NoAnswer> {
        let unreachable = |error: io::Error| NoAnswer::Unreachable(error.to_string());
        let stream = TcpStream::connect(self.address).await.map_err(unreachable)?;
        match self.is_tls {
            true => {
                let stream = stranger::connect(stream, &self.host).await.map_err(unreachable)?;
                self.send(stream, question).await
            }
            false => self.send(stream, question).await,
        }
    }

    async fn send<S>(&self, stream: S, question: &Question) -> Result<OpenAnswer, NoAnswer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |error: hyper::Error| NoAnswer::BrokenOff(error.to_string());
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(broken)?;
        let mut connection: Connection = Box::pin(async move {
            // Its result adds nothing to the answer's.
            let _ended = connection.await;
        });
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(&question.path)
            .header(header::HOST, &self.authority);
        for (name, value) in &question.headers {
            request = request.header(*name, value);
        }
        if self.is_direct {
            request = request.header("x-forwarded-for", CALLER);
        }
        let request = request.body(Full::new(question.body.clone()));
        let request = request.map_err(|error| NoAnswer::BrokenOff(error.to_string()))?;
        let mut sending = std::pin::pin!(sender.send_request(request));
        let (response, is_closed) = tokio::select! {
            biased;
            response = &mut sending => (response, false),
            // A server may answer and close before it has read everything; that answer is here now.
            () = &mut connection => (sending.await, true),
        };
        let response = response.map_err(broken)?;
        let (head, body) = response.into_parts();
        let head = HttpAnswer {
            version: head.version,
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
        };
        Ok(OpenAnswer { head, body, connection: (!is_closed).then_some(connection) })
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer whose body is still to be read. Its connection is driven meanwhile.
struct OpenAnswer {
    head: HttpAnswer,
    body: hyper::body::Incoming,
    connection: Option<Connection>,
}

impl OpenAnswer {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        loop {
            let frame = match &mut self.connection {
                Some(connection) => tokio::select! {
                    biased;
                    frame = self.body.frame() => frame,
                    () = connection => {
                        self.connection = None;
                        continue;
                    }
                },
                None => self.body.frame().await,
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(NoAnswer::BrokenOff(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

fn elapsed(began: Instant) -> Duration {
    SystemClock.monotonic().saturating_duration_since(began)
}

impl Question {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn post(path: impl Into<String>, kind: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", kind.to_owned())];
        Self { method: Method::POST, path: path.into(), headers, body: body.into() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a user agent, unless there is one already or the client sends none.
    pub(super) fn with_default_agent(self, agent: Option<&'static str>) -> Self {
        let has_one = self.headers.iter().any(|(name, _)| *name == "user-agent");
        match agent.filter(|_| !has_one) {
            Some(agent) => self.with("user-agent", agent),
            None => self,
        }
    }
}

impl HttpAnswer {
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the media type without its parameters.
    pub(super) fn media_type(&self) -> &str {
        let kind = self.header(header::CONTENT_TYPE).unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim()
    }

    /// Returns the JSON of the body, or of the stream's last event.
    pub(super) fn json(&self) -> Option<Value> {
        if self.media_type() != "text/event-stream" {
            return serde_json::from_slice(&self.body).ok();
        }
        let text = String::from_utf8_lossy(&self.body);
        let last = text.lines().rev().find_map(|line| line.strip_prefix("data:"))?;
        serde_json::from_str(last.trim()).ok()
    }

    /// Whether the gateway itself made it: all of its answers have both headers.
    pub(super) fn is_of_gateway(&self) -> bool {
        self.headers.contains_key("x-request-id") && self.headers.contains_key(header::X_CONTENT_TYPE_OPTIONS)
    }

    pub(super) fn is_html(&self) -> bool {
        self.media_type() == "text/html"
    }

    /// Describes it in a few words.
    pub(super) fn describe(&self) -> String {
        let kind = match self.media_type() {
            "" => "no content type",
            kind => kind,
        };
        format!("{} ({kind})", self.status)
    }

    /// Returns what a refusal says, if it says something.
    pub(super) fn detail(&self) -> Option<String> {
        let json = self.json()?;
        let detail = json.get("detail").or_else(|| json.get("error")?.get("message"));
        Some(detail?.as_str()?.to_owned())
    }
}
