//! Builds a live tenant from its spec. Makes no network requests: a backend that is down must not
//! prevent a load.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use super::entry::BuildTenant;
use super::tenant::{Tenant, TenantSlot};
use crate::backend::{self, ContextRefresher, Pool};
use crate::base::clock::Clock;
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::base::panic::catch_panic_sync;
use crate::base::sockets::SocketPool;
use crate::mcp::{AuthMode, McpServer, McpServerConfig};
use crate::oauth::authorization_server::{AuthServer, AuthServerDeps, AuthServerSpec};
use crate::oauth::bearer::BearerCheck;
use crate::settings::OpenTenants;
use crate::spec::{Degradation, LimitsSpec, TenantSpec};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Tracer;
use crate::usage::{Usage, UsageMeter};

/// The dependencies that all tenants are built with.
#[derive(Clone)]
pub struct TenantDeps {
    /// The connections to backends.
    pub pool: Pool,
    /// The queue of contexts to fetch in advance.
    pub context_refresher: ContextRefresher,
    /// The metrics that tenants report to.
    pub metrics: Arc<Metrics>,
    /// Starts the spans of requests.
    pub tracer: Tracer,
    /// The audit log.
    pub audit: Audit,
    /// The usage of all tenants.
    pub usage: Arc<Usage>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// Who may call open tenants.
    pub open_tenants: OpenTenants,
    /// Networks that open tenants answer as they answer private ones.
    pub private_networks: Arc<[IpNet]>,
    /// The sockets of listeners that are single tenants'.
    pub sockets: Arc<SocketPool>,
    /// What logins need; none where there is nowhere to keep grants.
    pub login: Option<AuthServerDeps>,
    /// Browser origins that may call, besides a tenant's own.
    pub allowed_origins: Vec<String>,
    /// How long streams and calls of an old revision may continue.
    pub drain_period: std::time::Duration,
}

impl TenantDeps {
    /// Returns the builder of an entry's tenant. A panic is a fault of ours that affects only this
    /// tenant.
    pub(super) fn builder(&self, entry_id: &str) -> impl BuildTenant {
        move |spec, revision, slot| {
            catch_panic_sync(|| self.build(entry_id, spec, revision, slot))
                .unwrap_or_else(|_| Err(internal_error("building this tenant failed inside tenantd").into()))
        }
    }

    /// Binds the listener that a candidate wants. Returns the finding if that cannot be done now.
    pub(super) fn find_taken_listener(&self, wanted: Option<SocketAddr>) -> Option<Diagnostic> {
        let address = wanted?;
        let error = self.sockets.bind(address).err()?;
        let message = format!("the listener {address} of this tenant cannot be opened: {error}");
        let help = "stop the program that uses this port, or choose another listen; the gateway tries again";
        Some(Diagnostic::error("listen-unavailable", message).help(help))
    }

    /// Builds a tenant; the errors are findings about its tools' schemas.
    fn build(
        &self,
        entry_id: &str,
        spec: TenantSpec,
        revision: Digest,
        slot: Arc<TenantSlot>,
    ) -> Result<Arc<Tenant>, Report> {
        let places = self.usage.live_nodes().share_places(spec.limits.concurrent_calls);
        let backend = Arc::new(backend::BackendClient::new(
            self.pool.clone().for_tenant(&spec.name),
            &spec.backend,
            &LimitsSpec { concurrent_calls: places, ..spec.limits.clone() },
            spec.cache.context_ttl,
            Arc::clone(&slot.backend),
        ));
        let usage = self.usage.meter(&spec.name, spec.limits.usage.clone());
        let mcp = McpServer::new(self.server_config(&spec, backend, usage.clone()))?;
        // It is built again once it is known what the database of logins has.
        let loaded = self.login.as_ref().filter(|login| login.context.is_loaded());
        let login = loaded.zip(AuthServerSpec::from_tenant(&spec));
        let login = login.map(|(deps, login)| AuthServer::new(deps, entry_id, login));
        let bearer = match &login {
            Some(server) => {
                let (grants, allow_from) = (Arc::clone(server.grants()), spec.access.allow_from.clone());
                BearerCheck::with_login(grants, allow_from, &slot.access_revocations)
            }
            None => {
                let networks = Arc::clone(&self.private_networks);
                BearerCheck::new(&spec.access, self.open_tenants, networks, &slot.access_revocations)
            }
        };
        let login_absence = match spec.access.login.is_some() && login.is_none() {
            true => Some(self.describe_login_absence()),
            false => None,
        };
        let page = OnceLock::new();
        Ok(Arc::new(Tenant { spec, revision, slot, usage, mcp, bearer, login, login_absence, page }))
    }

    /// Says why no tenant has a login, which would be served with one.
    fn describe_login_absence(&self) -> Degradation {
        let reason = match self.login {
            Some(_) => {
                "logins are in a database that has been away since the gateway started; the tenant answers 503 until it \
                 is back"
            }
            None => {
                "logins cannot be kept, since the gateway runs without a state folder; the tenant answers 503"
            }
        };
        Degradation { reason: reason.to_owned(), since: self.clock.now() }
    }

    fn server_config(
        &self,
        spec: &TenantSpec,
        backend: Arc<backend::BackendClient>,
        usage: UsageMeter,
    ) -> McpServerConfig {
        let own = std::iter::once(spec.public_url.origin().to_owned());
        McpServerConfig {
            tenant: spec.name.clone(),
            dataset: Arc::clone(&spec.dataset),
            title: Arc::clone(&spec.title),
            description: spec.description.clone(),
            instructions: spec.instructions.clone(),
            tools: Arc::clone(&spec.tools),
            backend,
            call_timeout: spec.call_timeout,
            slow_answers: spec.slow_answers,
            icon_url: spec.icon_url.clone().unwrap_or_else(|| spec.public_url.icon_url().into()),
            list_ttl: spec.cache.list_ttl,
            max_result_bytes: spec.limits.max_result_bytes,
            auth_mode: AuthMode::from(&spec.access),
            // The server has refused foreign hosts before it selects a tenant.
            allowed_hosts: None,
            allowed_origins: own.chain(self.allowed_origins.iter().cloned()).collect(),
            metrics: Arc::clone(&self.metrics),
            tracer: self.tracer.clone(),
            audit: self.audit.clone(),
            usage,
            clock: Arc::clone(&self.clock),
        }
    }
}

/// Returns the finding for a fault of ours.
pub(super) fn internal_error(message: &str) -> Diagnostic {
    Diagnostic::error("internal", message)
        .help("the log says where; please report this with the files that cause it")
}
