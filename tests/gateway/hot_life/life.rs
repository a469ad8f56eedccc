//! A reconciler over a folder without any sockets, so that its published state can be inspected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantd::backend::{AddressRules, ContextRefresher, Pool};
use tenantd::base::clock::Clock;
use tenantd::base::task::Tasks;
use tenantd::bundle::{self, sample};
use tenantd::settings::{OpenTenants, WatchMode};
use tenantd::telemetry::audit::Audit;
use tenantd::telemetry::metrics::Metrics;
use tenantd::tenants::reconcile::ReconcilerConfig;
use tenantd::tenants::registry::{Registry, TablePublisher};
use tenantd::tenants::status::TenantStatus;
use tenantd::tenants::tenant::Tenant;
use tenantd::tenants::{ReconcilerHandle, TenantDeps, TenantsSource};
use tenantd::usage::Usage;
use tokio_util::sync::CancellationToken;

use super::super::harness::PATIENCE;

/// A reconciler over a folder.
pub(super) struct Life {
    pub(super) registry: Registry,
    pub(super) reconciler: ReconcilerHandle,
    tasks: Tasks,
}

impl Life {
    /// Starts the reconciler and waits until the folder has been read.
    pub(super) async fn start(folder: &Path, clock: Arc<dyn Clock>) -> Self {
        let (metrics, tasks) = (Arc::new(Metrics::new()), Tasks::new());
        let loopback = vec!["127.0.0.0/8".parse().expect("a network")];
        let rules = AddressRules { allow: loopback.clone(), ..AddressRules::default() };
        let pool = Pool::new(rules, Arc::clone(&clock), Arc::clone(&metrics));
        let parts = TenantDeps {
            pool: pool.expect("a pool"),
            context_refresher: ContextRefresher::start(&tasks, Arc::clone(&clock), None),
            metrics,
            audit: Audit::disabled(),
            tracer: Default::default(),
            usage: Usage::new(Arc::clone(&clock)),
            clock,
            open_tenants: OpenTenants::Private,
            private_networks: Arc::default(),
            sockets: Arc::default(),
            login: None,
            allowed_origins: Vec::new(),
            drain_period: Duration::from_secs(1),
        };
        let context = bundle::LoadContext { backend_allow: loopback, ..sample::sample_context() };
        let publisher = TablePublisher::default();
        let registry = publisher.registry().clone();
        let ground = ReconcilerConfig {
            source: TenantsSource::Folder(folder.join("tenants.d")),
            filled: filled(),
            watch: WatchMode::Auto,
            context: Arc::new(context),
            tenant_deps: parts,
            publisher,
            store: None,
            stored_entries: Vec::new(),
            cluster: None,
        };
        let reconciler = ReconcilerHandle::start(ground, &tasks);
        let mut generation = registry.subscribe_generation();
        let read = generation.wait_for(|&generation| generation > 0);
        tokio::time::timeout(PATIENCE, read).await.expect("the folder is read").expect("it runs");
        Self { registry, reconciler, tasks }
    }

    pub(super) fn statuses(&self) -> BTreeMap<String, TenantStatus> {
        let table = self.registry.load();
        table
            .entries
            .values()
            .map(|entry| entry.status())
            .map(|status| (status.stem.clone(), status))
            .collect()
    }

    pub(super) fn tenant(&self, stem: &str) -> Option<Arc<Tenant>> {
        self.registry.load().entries.get(stem).and_then(|entry| entry.tenant.clone())
    }

    /// Returns whether each tenant in force is routed at its mounts.
    pub(super) fn is_consistent(&self) -> bool {
        let table = self.registry.load();
        table.entries.values().filter_map(|entry| entry.tenant.as_ref()).all(|tenant| {
            tenant.spec.mounts.iter().all(|mount| {
                let path = format!("{}/mcp", mount.prefix.as_str());
                table
                    .router
                    .main()
                    .find("mcp.test", &path)
                    .is_some_and(|(found, _)| Arc::ptr_eq(found, tenant))
            })
        })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.tasks.shutdown_signal().cancel();
        self.tasks.abort_signal().cancel();
    }
}

/// Returns a tenant's file whose backend does not exist.
pub(super) fn yaml(entry: &str, lines: &str) -> String {
    format!(
        "search_url: http://127.0.0.1:9/nlp-search\ncontext_url: http://127.0.0.1:9/nlp-context\n\
         api_key: key-of-{entry}-4711\nconnection_id: c\n{lines}"
    )
}

/// Returns what has fired already: the folder may be read at once.
fn filled() -> CancellationToken {
    let filled = CancellationToken::new();
    filled.cancel();
    filled
}
