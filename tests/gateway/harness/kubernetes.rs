//! A small server in place of Kubernetes' API: the list and the watch of the Secrets of a namespace,
//! as `https://kubernetes.io/docs/reference/using-api/api-concepts/` describes them: pages with
//! `continue`, chunked watch events from a `resourceVersion` on, bookmarks, 410 Gone. It fails on
//! demand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// What the gateway must present.
const TOKEN: &str = "canary-service-account-token";
/// The namespace of the kubeconfig.
const NAMESPACE: &str = "tursio-mcp";

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A running server. Dropping it stops it.
pub(crate) struct FakeKubernetes {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    cluster: Mutex<Cluster>,
    /// The latest version.
    version: watch::Sender<u64>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
}

#[derive(Default)]
struct Cluster {
    secrets: BTreeMap<String, Value>,
    /// What happened, each with its version and the Secret as it was.
    events: Vec<(u64, &'static str, Value)>,
    /// Watches cannot begin before this version.
    oldest: u64,
    /// Connections are closed without an answer.
    is_away: bool,
    /// The status with which pages after the first are refused.
    broken_pages: Option<u16>,
    lists: usize,
    pages: usize,
}

impl FakeKubernetes {
    /// Starts a server without Secrets.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            cluster: Mutex::default(),
            version: watch::Sender::new(1),
            cuts: watch::Sender::new(0),
        });
        let accepting = spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Writes a kubeconfig for this server, and returns its path.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> String {
        let path = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "gateway", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test",
                "context": {"cluster": "test", "user": "gateway", "namespace": NAMESPACE}}],
        });
        std::fs::write(&path, config.to_string()).expect("written");
        path.display().to_string()
    }

    /// Applies a labelled Secret with these files.
    pub(crate) fn apply(&self, name: &str, files: &[(&str, &[u8])]) {
        self.apply_labelled(name, files, "true");
    }

    /// Applies a Secret with another value of the label.
    pub(crate) fn apply_labelled(&self, name: &str, files: &[(&str, &[u8])], label: &str) {
        let data: BTreeMap<_, _> =
            files.iter().map(|(key, bytes)| (*key, BASE64_STANDARD.encode(bytes))).collect();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"tenantd.io/tenant": label}},
        });
        let is_known = self.cluster().secrets.contains_key(name);
        self.record(if is_known { "MODIFIED" } else { "ADDED" }, secret);
    }

    /// Deletes a Secret.
    pub(crate) fn delete(&self, name: &str) {
        let secret = self.cluster().secrets.get(name).cloned().expect("it is there");
        self.record("DELETED", secret);
    }

    fn record(&self, kind: &'static str, mut secret: Value) {
        let version = *self.shared.version.borrow() + 1;
        secret["metadata"]["resourceVersion"] = version.to_string().into();
        let name = secret["metadata"]["name"].as_str().expect("a name").to_owned();
        let mut cluster = self.cluster();
        cluster.events.push((version, kind, secret.clone()));
        match kind {
            "DELETED" => _ = cluster.secrets.remove(&name),
            _ => _ = cluster.secrets.insert(name, secret),
        }
        drop(cluster);
        self.shared.version.send_replace(version);
    }

    /// Closes all connections, and every new one without an answer.
    pub(crate) fn go_away(&self) {
        self.cluster().is_away = true;
        self.cut();
    }

    pub(crate) fn come_back(&self) {
        self.cluster().is_away = false;
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forgets what happened: watches from before now are told so (410 Gone).
    pub(crate) fn forget_events(&self) {
        let now = *self.shared.version.borrow();
        let mut cluster = self.cluster();
        (cluster.oldest, cluster.events) = (now, Vec::new());
    }

    /// Refuses every page of a list but the first.
    pub(crate) fn break_pages(&self, status: Option<u16>) {
        self.cluster().broken_pages = status;
    }

    /// Returns how many lists were begun, and how many pages were answered.
    pub(crate) fn lists_and_pages(&self) -> (usize, usize) {
        let cluster = self.cluster();
        (cluster.lists, cluster.pages)
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.shared.cluster.lock().expect("no holder panics")
    }
}

impl Drop for FakeKubernetes {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server has no gateway whose task it could be")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        if shared.cluster.lock().expect("no holder panics").is_away {
            continue;
        }
        let (shared, mut cuts) = (Arc::clone(&shared), shared.cuts.subscribe());
        spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&request, &shared)) }
            });
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = serving => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if bearer != Some(&format!("Bearer {TOKEN}")) {
        return status(401, "Unauthorized");
    }
    if request.uri().path() != format!("/api/v1/namespaces/{NAMESPACE}/secrets") {
        return status(403, "Forbidden");
    }
    let query = request.uri().query().unwrap_or_default();
    let query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
    let (key, value) = query.get("labelSelector").and_then(|it| it.split_once('=')).expect("a selector");
    let wanted = (key.to_owned(), value.to_owned());
    if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        return watch_from(number("resourceVersion").expect("a version"), wanted, shared);
    }
    list(number("limit"), query.get("continue").map(String::as_str), &wanted, shared)
}

fn has_label(secret: &Value, (key, value): &(String, String)) -> bool {
    secret["metadata"]["labels"][key] == **value
}

/// Answers a page of the list. The token of the next one is the last name of this one.
fn list(
    limit: Option<u64>,
    after: Option<&str>,
    label: &(String, String),
    shared: &Shared,
) -> Response<Body> {
    let mut cluster = shared.cluster.lock().expect("no holder panics");
    if let (Some(code), Some(_)) = (cluster.broken_pages, after) {
        return status(code, "the page cannot be read");
    }
    cluster.lists += usize::from(after.is_none());
    cluster.pages += 1;
    let limit = usize::try_from(limit.unwrap_or(500)).expect("small");
    let rest: Vec<_> = cluster.secrets.iter().filter(|(_, secret)| has_label(secret, label)).collect();
    let rest = rest.into_iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
    let page: Vec<_> = rest.clone().take(limit).collect();
    let is_last = rest.count() <= limit;
    let next = if is_last { "" } else { page.last().expect("a full page").0 };
    let items: Vec<_> = page.iter().map(|(_, secret)| (*secret).clone()).collect();
    let version = shared.version.borrow().to_string();
    json_body(
        200,
        &json!({
            "kind": "SecretList", "apiVersion": "v1",
            "metadata": {"resourceVersion": version, "continue": next}, "items": items,
        }),
    )
}

fn status(code: u16, message: &str) -> Response<Body> {
    json_body(code, &status_object(code, message))
}

fn status_object(code: u16, message: &str) -> Value {
    let reason = if code == 410 { "Expired" } else { "Unknown" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": message})
}

fn json_body(code: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(body).expect("a response")
}

/// Answers a watch: an event on each line, in chunks that do not end where lines end.
fn watch_from(from: u64, label: (String, String), shared: &Arc<Shared>) -> Response<Body> {
    let (lines, chunks) = mpsc::channel::<Bytes>(16);
    let shared = Arc::clone(shared);
    spawn(async move {
        let (mut version, mut at) = (shared.version.subscribe(), from);
        loop {
            version.mark_unchanged();
            let due = {
                let cluster = shared.cluster.lock().expect("no holder panics");
                match at < cluster.oldest {
                    true => Err(status_object(410, "too old resource version")),
                    false => {
                        Ok(cluster.events.iter().filter(|(of, ..)| *of > at).cloned().collect::<Vec<_>>())
                    }
                }
            };
            let due = match due {
                Ok(due) => due,
                Err(gone) => {
                    _ = send_line(&lines, &json!({"type": "ERROR", "object": gone})).await;
                    return;
                }
            };
            for (of, kind, secret) in due {
                at = of;
                let event = match has_label(&secret, &label) {
                    true => json!({"type": kind, "object": secret}),
                    // A Secret that lost the label is gone for this watch.
                    false => json!({"type": "DELETED", "object": secret}),
                };
                let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Secret", "apiVersion": "v1",
                    "metadata": {"resourceVersion": at.to_string(), "creationTimestamp": null}}});
                if send_line(&lines, &event).await.is_err() || send_line(&lines, &bookmark).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = version.changed() => {}
                () = lines.closed() => return,
            }
        }
    });
    let next = |mut chunks: mpsc::Receiver<Bytes>| async {
        let chunk = chunks.recv().await?;
        Some((Ok(Frame::data(chunk)), chunks))
    };
    let body = StreamBody::new(stream::unfold(chunks, next)).boxed_unsync();
    Response::builder().header("content-type", "application/json").body(body).expect("a response")
}

async fn send_line(lines: &mpsc::Sender<Bytes>, event: &Value) -> Result<(), ()> {
    let line = Bytes::from(format!("{event}\n"));
    let (start, end) = (line.slice(..line.len() / 2), line.slice(line.len() / 2..));
    lines.send(start).await.map_err(|_| ())?;
    lines.send(end).await.map_err(|_| ())
}
