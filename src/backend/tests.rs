//! Tests against a real backend on loopback, one fault after another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value, json};

use super::{AddressRules, BackendClient, BackendState, CallContext, Error, Pool};
use crate::base::clock::{Clock, ManualClock, SystemClock};
use crate::base::secret::Secret;
use crate::spec::{
    AllowedBackend, BackendOnly, BackendSpec, BodyTemplate, CallSpec, Constants, Family, LimitsSpec,
    TemplateValues, UrlTemplate,
};
use crate::telemetry::metrics::Metrics;

mod context;
#[path = "../../tests/gateway/harness/backend.rs"]
pub(crate) mod fake;
mod faults;
mod live;
mod secure;

use fake::{FakeBackend, Reply};

const KEY: &str = "canary-key-4711";

/// A tenant's client for a fake backend, with the parts that tests adjust.
struct BackendTestkit {
    backend: FakeBackend,
    pool: Pool,
    clock: Arc<ManualClock>,
    limits: LimitsSpec,
    state: Arc<BackendState>,
}

impl BackendTestkit {
    async fn new() -> Self {
        let backend = FakeBackend::start().await;
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let pool = pool(clock.clone(), Vec::new());
        Self { backend, pool, clock, limits: LimitsSpec::default(), state: Arc::default() }
    }

    fn client(&self) -> Arc<BackendClient> {
        self.client_to(&self.backend.url("/nlp-context"))
    }

    fn client_to(&self, context_url: &str) -> Arc<BackendClient> {
        self.client_of(context_url, self.state.clone())
    }

    fn client_of(&self, context_url: &str, state: Arc<BackendState>) -> Arc<BackendClient> {
        let spec = BackendSpec {
            family: Family::Nlp,
            connection_id: Some("c-1".into()),
            context: Arc::new(CallSpec { method: Method::GET, body: None, ..search(context_url) }),
            user_header: Some(HeaderName::from_static("x-user")),
            http2: false,
            data: Default::default(),
        };
        let ttl = Duration::from_secs(3600);
        Arc::new(BackendClient::new(self.pool.clone(), &spec, &self.limits, ttl, state))
    }

    /// Asks once and has the backend send this reply.
    async fn ask(&self, reply: Reply) -> Result<Value, Error> {
        self.backend.answer_next(reply);
        self.search(&self.client(), Duration::from_secs(10)).await
    }

    async fn search(&self, client: &BackendClient, patience: Duration) -> Result<Value, Error> {
        let spec = search(&self.backend.url("/nlp-search"));
        client.call(&spec, &question(), &self.call(patience)).await.map(|answer| answer.document.to_value())
    }

    fn call(&self, patience: Duration) -> CallContext {
        CallContext {
            request_id: "r-1".into(),
            deadline: self.clock.monotonic() + patience,
            user: Some("ann@example.com".into()),
            trace: None,
            span: None,
            has_credential: true,
            network: None,
        }
    }
}

fn pool(clock: Arc<dyn Clock>, own: Vec<SocketAddr>) -> Pool {
    let allow = vec!["127.0.0.0/8".parse().expect("a network")];
    pool_by(AddressRules { allow, own, ..AddressRules::default() }, clock)
}

fn pool_by(rules: AddressRules, clock: Arc<dyn Clock>) -> Pool {
    Pool::new(rules, clock, Arc::new(Metrics::new())).expect("a pool")
}

fn search(url: &str) -> CallSpec {
    CallSpec {
        method: Method::POST,
        url: UrlTemplate::parse(url).expect("a template"),
        headers: [(HeaderName::from_static("x-api-key"), Secret::new(KEY))].into(),
        body: Some(Arc::new(
            BodyTemplate::parse(r#"{"query": {{query}}, "connection_id": {{connection_id}}}"#)
                .expect("a body"),
        )),
        constants: Constants { connection_id: Some("c-1".into()), ..Constants::default() },
    }
}

fn question() -> TemplateValues {
    TemplateValues::from_iter([("query".to_owned(), json!("orders by region"))])
}
