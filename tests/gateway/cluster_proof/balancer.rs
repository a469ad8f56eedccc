//! A balancer without memory: each request goes to the next node that takes connections.
//!
//! It tries another node only if a connection is refused or not made in time, as balancers do by
//! default: what may have been sent is not sent twice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Certificate, RequestBuilder};
use tenantd::base::clock::{Clock, SystemClock};

use super::network::Machine;
use crate::harness::Client;
use crate::harness::client::Answer;

/// The port of each gateway.
pub(super) const PORT: u16 = 8000;
/// How clients know the site.
pub(super) const PUBLIC: &str = "https://mcp.test:8000";
/// How long a node is left out after it took no connection or gave no answer.
const SHUN: Duration = Duration::from_millis(700);

/// The nodes and whose turn it is.
pub(super) struct Balancer {
    nodes: Vec<Node>,
    next: AtomicUsize,
}

struct Node {
    client: Client,
    shunned_until: Mutex<Option<Instant>>,
}

/// Whether a connection is used for more than one request. One that is kept may end just as a request
/// is sent, which is then lost.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connections {
    ForOneRequest = 0,
    Kept = 100,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answer),
    /// It may have been processed, but no answer came.
    Lost,
    /// No node takes connections.
    Nobody,
}

impl Outcome {
    /// Returns the status, or why there is none.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Answered(answer) => answer.status.to_string(),
            Self::Lost => "no answer".to_owned(),
            Self::Nobody => "no connection".to_owned(),
        }
    }
}

impl Balancer {
    /// Its clients trust the CA with this root, and wait this long for an answer.
    pub(super) fn new<'a>(
        machines: impl Iterator<Item = &'a Machine>,
        root: &Certificate,
        patience: Duration,
        connections: Connections,
    ) -> Self {
        let node = |machine: &Machine| {
            let address = (machine.address, PORT).into();
            let client = Client::built(PUBLIC, address, None, |builder| {
                let builder = builder.tls_certs_only([root.clone()]).http1_only();
                let builder = builder.pool_max_idle_per_host(connections as usize);
                builder.timeout(patience).connect_timeout(Duration::from_secs(1))
            });
            Node { client, shunned_until: Mutex::default() }
        };
        Self { nodes: machines.map(node).collect(), next: AtomicUsize::new(0) }
    }

    /// Returns how many nodes there are.
    pub(super) fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Sends a request to the next node, or the one after it.
    pub(super) async fn send(&self, request: impl Fn(&Client) -> RequestBuilder) -> Outcome {
        // Each request comes to every node, however many others there are.
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for attempt in 0..2 * self.nodes.len() {
            let at = first.wrapping_add(attempt) % self.nodes.len();
            let is_last_resort = attempt >= self.nodes.len();
            if self.nodes[at].is_shunned() && !is_last_resort {
                continue;
            }
            match self.try_node(at, &request).await {
                Outcome::Nobody => {}
                outcome => return outcome,
            }
        }
        Outcome::Nobody
    }

    /// Sends a request to this node only.
    pub(super) async fn send_to(&self, at: usize, request: impl Fn(&Client) -> RequestBuilder) -> Outcome {
        self.try_node(at, &request).await
    }

    async fn try_node(&self, at: usize, request: &impl Fn(&Client) -> RequestBuilder) -> Outcome {
        let node = &self.nodes[at];
        let outcome = match request(&node.client).header("x-forwarded-proto", "https").send().await {
            Ok(response) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                match response.text().await {
                    Ok(text) => Outcome::Answered(Answer { status, headers, text }),
                    Err(_) => Outcome::Lost,
                }
            }
            Err(error) if error.is_connect() => Outcome::Nobody,
            Err(_) => Outcome::Lost,
        };
        if !matches!(outcome, Outcome::Answered(_)) {
            *node.shunned_until.lock().expect("nobody panics with it") = Some(SystemClock.monotonic() + SHUN);
        }
        outcome
    }
}

impl Node {
    fn is_shunned(&self) -> bool {
        let until = *self.shunned_until.lock().expect("nobody panics with it");
        until.is_some_and(|until| SystemClock.monotonic() < until)
    }
}
