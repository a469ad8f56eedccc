//! Clients that call without a pause while the gateway is restarted or upgraded, and what they met.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tenantd::base::clock::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{Client, Era, FakeBackend, Gateway, Setup, Tenant, until};

const CONNECTIONS: usize = 32;
const TENANTS: [&str; 2] = ["/a", "/b"];

/// How often under load: a few times in CI, 100 times for the figures.
pub(super) fn repetitions(variable: &str) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Starts a gateway with the tenants that the load calls.
pub(super) async fn start(setup: Setup, backend: &FakeBackend) -> Gateway {
    let setup = setup.settings("limits:\n  drain_seconds: 12\n");
    let setup = setup.file("a.yaml", Tenant::new("a", backend).yaml());
    let gateway = setup.file("b.yaml", Tenant::new("b", backend).yaml()).start().await;
    gateway.until_state("b", "serving").await;
    gateway
}

/// Half of the clients speak HTTP/1.1, half HTTP/2; one more for each tenant holds a stream.
pub(super) struct Load {
    met: Arc<Met>,
    end: CancellationToken,
    clients: JoinSet<()>,
}

/// What the clients met.
#[derive(Default)]
struct Met {
    calls: AtomicUsize,
    streams: AtomicUsize,
    longest_ms: AtomicU64,
    failures: Mutex<Vec<String>>,
    refused: AtomicUsize,
}

impl Met {
    fn fail(&self, failure: String) {
        self.failures.lock().expect("nobody panics with it").push(failure);
    }

    fn fail_with(&self, who: &str, error: &reqwest::Error) {
        let text = format!("{error:?}");
        if text.contains("ConnectionRefused") {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.fail(format!("{who}: {text}"));
    }
}

impl Load {
    pub(super) fn start(gateway: &Gateway) -> Self {
        let (met, end) = (Arc::new(Met::default()), CancellationToken::new());
        let mut clients = JoinSet::new();
        for number in 0..CONNECTIONS {
            let is_http1 = number % 2 == 0;
            let client = gateway.client_with(|builder| if is_http1 { builder.http1_only() } else { builder });
            let protocol = if is_http1 { "HTTP/1.1" } else { "HTTP/2" };
            clients.spawn(call(client, TENANTS[number / 2 % 2], protocol, Arc::clone(&met), end.clone()));
        }
        for tenant in TENANTS {
            // Its connection waits as long as the stream lasts.
            let client = gateway.client_with(|builder| builder.timeout(Duration::from_secs(3600)));
            clients.spawn(listen(client, tenant, Arc::clone(&met), end.clone()));
        }
        Self { met, end, clients }
    }

    /// Waits until each client could have called once more.
    pub(super) async fn until_calls_go_on(&self) {
        let before = self.met.calls.load(Ordering::Relaxed);
        until("calls go on", async || {
            (self.met.calls.load(Ordering::Relaxed) > before + CONNECTIONS).then_some(())
        })
        .await;
    }

    /// Ends the clients. Prints what they met, and fails if a call failed.
    pub(super) async fn finish(self, times: usize, what: &str) {
        self.until_calls_go_on().await;
        self.end.cancel();
        self.clients.join_all().await;
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        let failures = self.met.failures.lock().expect("nobody panics with it");
        eprintln!(
            "{times} {what}: {} calls over {CONNECTIONS} connections (half HTTP/1.1, half HTTP/2), {} failed, {} \
             connections refused; {} streams ended whole; the longest call took {} ms",
            count(&self.met.calls),
            failures.len(),
            count(&self.met.refused),
            count(&self.met.streams),
            self.met.longest_ms.load(Ordering::Relaxed),
        );
        assert!(failures.is_empty(), "{}: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
        assert!(count(&self.met.streams) >= times, "streams are opened again: {}", count(&self.met.streams));
    }
}

fn milliseconds_since(instant: Instant) -> u64 {
    let elapsed = SystemClock.monotonic().saturating_duration_since(instant);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Calls one after the other over one connection, until the end. Does not repeat a call: few
/// clients repeat a POST.
async fn call(
    client: Client,
    tenant: &'static str,
    protocol: &'static str,
    met: Arc<Met>,
    end: CancellationToken,
) {
    let mut answered = SystemClock.monotonic();
    while !end.is_cancelled() {
        let began = SystemClock.monotonic();
        let params = json!({ "name": "search", "arguments": { "query": "q" } });
        let request = client.ask(Era::Modern, &format!("{tenant}/mcp"), "tools/call", params);
        let outcome = async { request.send().await?.text().await }.await;
        let who = || {
            format!(
                "{protocol}, {} ms after the last answer, {} ms after it was sent",
                milliseconds_since(answered),
                milliseconds_since(began)
            )
        };
        match outcome {
            Ok(text) if text.contains("row_count") => {
                met.calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok(text) => met.fail(format!("{}: {text}", who())),
            Err(error) => met.fail_with(&who(), &error),
        }
        answered = SystemClock.monotonic();
        met.longest_ms.fetch_max(milliseconds_since(began), Ordering::Relaxed);
    }
}

/// Holds a stream open, and opens it again when it ends. It must end whole.
async fn listen(client: Client, tenant: &'static str, met: Arc<Met>, end: CancellationToken) {
    while !end.is_cancelled() {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let request = client.ask(Era::Modern, &format!("{tenant}/mcp"), "subscriptions/listen", params);
        let heard = async { request.send().await?.text().await };
        let Some(heard) = end.run_until_cancelled(heard).await else { return };
        match heard {
            Ok(text) if text.contains("\"result\"") => {
                met.streams.fetch_add(1, Ordering::Relaxed);
            }
            Ok(text) => met.fail(format!("a stream: {text}")),
            Err(error) => met.fail_with("a stream", &error),
        }
    }
}
