//! One gateway for all clients of a test, with a tenant and a backend for each client.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use super::library::Library;
use super::script::Script;
use crate::harness::{FakeBackend, Gateway, Reply, Setup, Tenant, until};

/// The environment of one client.
pub(super) struct Stage {
    pub(super) library: Library,
    pub(super) backend: FakeBackend,
    pub(super) gateway: Arc<Gateway>,
}

/// Runs `act` for each library concurrently. Panics with the names of those that failed.
pub(super) async fn each<F>(
    libraries: impl IntoIterator<Item = Library>,
    further: impl Fn(Tenant) -> Tenant,
    act: impl Fn(Stage) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    let mut setup = Setup::new();
    let mut backends = Vec::new();
    for library in libraries {
        let backend = FakeBackend::start().await;
        backend.answer("/nlp-context", Reply::Json(document()));
        setup = setup.file(&file(&library), further(Tenant::new(library.name, &backend)).yaml());
        backends.push((library, backend));
    }
    let gateway = Arc::new(setup.start().await);
    let mut stages = Vec::new();
    for (library, backend) in backends {
        gateway.until_state(library.name, "serving").await;
        stages.push(Stage { library, backend, gateway: gateway.clone() });
    }
    let failed = LocalSet::new().run_until(failures(stages, act)).await;
    assert!(failed.is_empty(), "see above for what failed with {}", failed.join(", "));
}

/// Returns the names of the libraries whose act failed.
async fn failures<F>(stages: Vec<Stage>, act: impl Fn(Stage) -> F) -> Vec<&'static str>
where
    F: Future<Output = ()> + 'static,
{
    let mut acting = JoinSet::new();
    let mut names = HashMap::new();
    for stage in stages {
        let name = stage.library.name;
        names.insert(acting.spawn_local(act(stage)).id(), name);
    }
    let mut failed = Vec::new();
    while let Some(ended) = acting.join_next().await {
        failed.extend(ended.err().map(|error| names[&error.id()]));
    }
    failed
}

/// Returns the context of every tenant here.
pub(super) fn document() -> Value {
    json!({ "entities": [{ "name": "orders" }], "measures": ["revenue"] })
}

/// Adds no lines to the tenant, for [`each`].
pub(super) fn plain(tenant: Tenant) -> Tenant {
    tenant
}

impl Stage {
    /// Returns a connected client and asserts the negotiated protocol version.
    pub(super) async fn connected(&self) -> Script {
        self.connected_with(None).await
    }

    /// The same with an API key.
    pub(super) async fn connected_with(&self, key: Option<&str>) -> Script {
        let mut script = self.start(key);
        let answer = self.connect(&mut script).await;
        assert_eq!(answer["version"], json!(self.library.agrees_on), "{}: {answer}", self.library.name);
        script
    }

    /// Starts a client without connecting it.
    pub(super) fn start(&self, key: Option<&str>) -> Script {
        let ca = self.gateway.ca().expect("a gateway with a CA of its own");
        Script::start(&self.library, &ca, key)
    }

    /// Connects a client to its tenant. Returns the reply.
    pub(super) async fn connect(&self, script: &mut Script) -> Value {
        script.ask(self.order_to_connect()).await
    }

    pub(super) fn order_to_connect(&self) -> Value {
        let url = format!("{}/{}/mcp", self.gateway.base(), self.library.name);
        self.library.connect(&url)
    }

    /// Changes its tenant and waits until the change is served.
    pub(super) async fn change(&self, lines: &str) {
        let before = self.revision().await;
        let tenant = Tenant::new(self.library.name, &self.backend).with(lines);
        self.gateway.put(&file(&self.library), tenant.yaml());
        until("the change is served", async || (self.revision().await != before).then_some(())).await;
    }

    async fn revision(&self) -> Value {
        let status = self.gateway.status(self.library.name).await.expect("its tenant is there");
        status["in_force"].clone()
    }

    /// Deletes its tenant and waits until it is gone.
    pub(super) async fn remove(&self) {
        self.gateway.remove(&file(&self.library));
        self.gateway.until_gone(self.library.name).await;
    }
}

fn file(library: &Library) -> String {
    format!("{}.yaml", library.name)
}
