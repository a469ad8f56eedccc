//! How a gateway is built: everything is bound, opened and created, without network traffic but that to
//! the database of logins.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::tenant_secrets::TenantSecrets;
use super::{
    Addresses, Error, Gateway, TenantInputs, auth_database, certificate_names, open_files, succession,
};
use crate::admin;
use crate::backend::{AddressRules, ContextRefresher, Pool};
use crate::base::budget::Budget;
use crate::base::clock::{Clock, SystemClock};
use crate::base::inherited_sockets;
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::bundle;
use crate::certs::Certificates;
use crate::identity::Providers;
use crate::oauth::authorization_server::AuthServerDeps;
use crate::oauth::client::ClientDocuments;
use crate::oauth::context::{AuthContext, SharedLogins};
use crate::server::Listeners;
use crate::settings::{OpenTenants, Settings, ZipHosts};
use crate::store::{self, KeySource, Store};
use crate::telemetry::audit::{Audit, AuditConfig, AuditFileConfig};
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::{Exporter, MetricsReader, Tracer};
use crate::tenants::cluster_view::ClusterView;
use crate::tenants::registry::TablePublisher;
use crate::tenants::{TenantDeps, TenantsSource};
use crate::usage::Usage;

impl Gateway {
    /// Binds the listeners and creates everything else.
    ///
    /// # Errors
    /// [`Error`] if a listener cannot be bound, or a folder, file or store cannot be created or
    /// opened.
    pub async fn build(mut settings: Settings, inputs: TenantInputs, key: KeySource) -> Result<Self, Error> {
        open_files::limit_connections(&mut settings);
        if let Some(node) = settings.shown_node_name() {
            log::name_node(&node);
        }
        let TenantInputs { source, env, given } = inputs;
        if let TenantsSource::Folder(folder) = &source {
            create_tenants_folder(folder)?;
        }
        let is_key_local = matches!(key, KeySource::State);
        let (store, stored_entries) = open_store(settings.state.clone(), key).await?;
        let secrets = TenantSecrets::connect(&source).await?;
        let (store, joining) = auth_database::place_logins(store, &settings, is_key_local).await?;
        refuse_unwanted_sockets(&settings)?;
        if let TenantsSource::Single(_) = &source {
            reject_state_of_others(&settings.state, &stored_entries)?;
        }
        let listeners = Listeners::bind(&settings.listen).map_err(Error::Listen)?;
        let http_listeners = Listeners::bind(&settings.listen_http).map_err(Error::ListenHttp)?;
        let admin = bind_admin(&settings).await?;
        let clock = SystemClock::shared();
        let tasks = Tasks::new();
        succession::hold_connections(&tasks);
        let metrics = Arc::new(Metrics::new());
        let certificates = Certificates::start(
            &settings,
            certificate_names::own(&settings),
            store.as_ref().and_then(Store::cluster),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            &tasks,
        )?;
        let admin_tls = admin::build_tls(settings.admin_access.tls.as_ref(), &certificates)?;
        watch_store(store.as_ref(), &metrics);
        let bound = (listeners.local_addrs(), http_listeners.local_addrs());
        let addresses = Addresses::new(&settings, bound.0, bound.1, admin.as_ref());
        let own_addresses = addresses.listen.iter().copied().chain(addresses.admin);
        let public_base = addresses.public_base.clone();
        let context =
            bundle::LoadContext { given, ..load_context(&settings, public_base, own_addresses, env) };
        let contexts = store.as_ref().map(Store::contexts);
        let context_refresher = ContextRefresher::start(&tasks, Arc::clone(&clock), contexts);
        let usage = Usage::start(Arc::clone(&clock), store.as_ref().map(Into::into)).await?;
        let mut tenant_deps =
            build_tenant_deps(&settings, &context, context_refresher, clock, metrics, usage)?;
        tenant_deps.login = build_login(&settings, store.as_ref(), &tenant_deps, &tasks).await?;
        let exporter = create_exporter(&settings, &mut tenant_deps);
        let publisher = TablePublisher::default();
        let cluster = store.as_ref().and_then(Store::cluster);
        let cluster_view =
            cluster.map(|cluster| ClusterView::start(cluster, Arc::clone(&tenant_deps.clock), &tasks));
        Ok(Self {
            cluster_view,
            exporter,
            settings,
            addresses,
            tasks,
            listeners,
            http_listeners,
            admin,
            admin_tls,
            certificates,
            load_context: context,
            source,
            secrets: Some(secrets),
            tenant_deps,
            registry: publisher.registry().clone(),
            publisher,
            setting_sources: None,
            joining,
            store,
            stored_entries,
        })
    }
}

/// Refuses inherited sockets that no listener accepts from: their clients would wait for ever.
fn refuse_unwanted_sockets(settings: &Settings) -> Result<(), Error> {
    let listens = |address| {
        settings
            .listen
            .iter()
            .map(|listener| &listener.address)
            .chain(&settings.listen_http)
            .chain(&settings.admin)
            .any(|own| *own == address)
    };
    let unwanted = inherited_sockets::unwanted(listens);
    if unwanted.is_empty() { Ok(()) } else { Err(Error::Inherited(unwanted)) }
}

/// Binds the admin listener, if there is one.
async fn bind_admin(settings: &Settings) -> Result<Option<TcpListener>, Error> {
    let Some(address) = settings.admin else { return Ok(None) };
    match admin::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.is_admin_optional && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::info!(%address, "another program has the admin listener's address; this one has none");
            Ok(None)
        }
        Err(cause) => Err(Error::Admin { address, cause }),
    }
}

/// Creates a missing tenants folder, so that a first start needs no preparation; rejects paths that
/// cannot be meant.
fn create_tenants_folder(path: &PathBuf) -> Result<(), Error> {
    if path.is_file() {
        return Err(Error::TenantsIsFile(path.clone()));
    }
    if bundle::is_unpacked_export(path) {
        return Err(Error::TenantsIsExport(path.clone()));
    }
    if path.is_dir() {
        return Ok(());
    }
    let similar = bundle::folder_like(path);
    let made = std::fs::create_dir_all(path);
    made.map_err(|cause| Error::Folder { what: "the tenants folder", path: path.clone(), cause })?;
    let folder = path.display();
    match similar {
        None => tracing::warn!(%folder, "the tenants folder did not exist and was created; it is empty"),
        Some(similar) => tracing::warn!(
            %folder, meant = %similar.display(),
            "the tenants folder did not exist and was created; it is empty, but a folder with a similar name \
             beside it contains tenants: to use that one, correct --tenants (or `tenants:`, TENANTD_TENANTS) \
             and restart"
        ),
    }
    Ok(())
}

/// Refuses the state of a gateway with several tenants for one with a single tenant: what belongs
/// to the others would be deleted, since their files are not here.
fn reject_state_of_others(folder: &Path, stored: &[store::StoredEntry]) -> Result<(), Error> {
    // One entry may be this tenant under an earlier path.
    if stored.len() < 2 {
        return Ok(());
    }
    let names: Vec<&str> = stored.iter().map(|entry| entry.entry_id.as_str()).take(5).collect();
    Err(Error::StateOfOthers { folder: folder.to_owned(), entries: names.join(", ") })
}

/// Opens the store. If none exists and none can be created, the gateway serves without it; no
/// existing state is lost by that.
async fn open_store(
    folder: PathBuf,
    key: KeySource,
) -> Result<(Option<Store>, Vec<store::StoredEntry>), Error> {
    let opening = tokio::task::spawn_blocking(move || {
        let store = Store::open(&folder, &key)?;
        let entries = store.local().tables().load_entries()?;
        Ok::<_, store::Error>((Some(store), entries))
    });
    match opening.await.expect("opening the store does not panic") {
        Ok(store) => Ok(store),
        Err(error) if error.is_uncreatable() => {
            tracing::error!(%error, "serving without a state folder: last good revisions, pauses, rollbacks \
                                     and the holders of names and paths will not survive a restart");
            Ok((None, Vec::new()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the context for loading tenants: what the settings say, the base of their public URLs,
/// the addresses of this gateway, and the variables that their files may refer to.
pub fn load_context(
    settings: &Settings,
    public_base: String,
    own_addresses: impl Iterator<Item = SocketAddr>,
    env: BTreeMap<String, Secret>,
) -> bundle::LoadContext {
    bundle::LoadContext {
        public_base,
        hosts: settings.gateway_hosts(),
        tenant_listeners: settings.tenant_listeners.clone(),
        hold_changes: settings.hold_changes,
        zip_hosts_allowed: settings.zip_hosts == ZipHosts::Allow,
        backend_allow: settings.backend_allow.clone(),
        backend_only: settings.backend_only.clone(),
        own_addresses: own_addresses.collect(),
        require_auth: settings.open_tenants == OpenTenants::Refused,
        secret_roots: settings.secret_roots.clone(),
        confine_tenants: settings.confine_tenants,
        largest_request: settings.limits.largest_request(),
        env,
        given: None,
    }
}

fn build_tenant_deps(
    settings: &Settings,
    load_context: &bundle::LoadContext,
    context_refresher: ContextRefresher,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    usage: Arc<Usage>,
) -> Result<TenantDeps, Error> {
    let pool = Pool::new(AddressRules::from_context(load_context), Arc::clone(&clock), Arc::clone(&metrics));
    let answers = Budget::from_mib(settings.limits.backend_memory_mib);
    let contexts = Budget::from_mib(settings.limits.context_memory_mib);
    metrics.register_budget("contexts", Arc::clone(&contexts));
    let pool = pool.map_err(Error::Backend)?.with_response_budget(answers).with_context_budget(contexts);
    Ok(TenantDeps {
        pool,
        context_refresher,
        audit: open_audit(settings, &clock, &metrics)?,
        usage,
        tracer: Tracer::default(),
        metrics,
        clock,
        open_tenants: settings.open_tenants,
        private_networks: settings.private_networks.as_slice().into(),
        login: None,
        sockets: Arc::default(),
        allowed_origins: settings.allowed_origins.clone(),
        drain_period: Duration::from_secs(settings.limits.drain_seconds),
    })
}

/// Creates what sends traces, logs and metrics to a receiver, if there is one, and has the tenants
/// start spans. A machine on which no HTTP client can be created serves all the same.
fn create_exporter(settings: &Settings, tenant_deps: &mut TenantDeps) -> Option<Arc<Exporter>> {
    let config = settings.otlp.to_config(settings.shown_node_name())?;
    let metrics = Arc::clone(&tenant_deps.metrics);
    let read_metrics: MetricsReader = Arc::new(move || metrics.encode());
    match Exporter::new(&config, &tenant_deps.clock, read_metrics) {
        Ok(exporter) => {
            tenant_deps.tracer = exporter.tracer();
            Some(Arc::new(exporter))
        }
        Err(error) => {
            tracing::error!(%error, "nothing is sent over OTLP");
            None
        }
    }
}

/// Keeps the metric in step with the store; without a store, nothing can be written.
fn watch_store(store: Option<&Store>, metrics: &Arc<Metrics>) {
    let Some(store) = store else { return metrics.set_store_writable(false) };
    let metrics = Arc::clone(metrics);
    store.on_writable_change(move |writable| metrics.set_store_writable(writable));
}

/// Returns what the tenants' authorization servers share. Without a store there is none, and
/// tenants that require a login are closed.
async fn build_login(
    settings: &Settings,
    store: Option<&Store>,
    tenant_deps: &TenantDeps,
    tasks: &Tasks,
) -> Result<Option<AuthServerDeps>, Error> {
    let Some(store) = store else { return Ok(None) };
    let TenantDeps { clock, metrics, audit, .. } = tenant_deps;
    let when_stale = settings.store.stale;
    let shared = store.cluster().map(|cluster| SharedLogins { cluster, when_stale });
    let auth_context = AuthContext::start(
        store.auth().clone(),
        shared,
        Arc::clone(clock),
        audit.clone(),
        Arc::clone(metrics),
        tasks,
    )
    .await?;
    let providers = Providers::new(settings.entra_authority.clone(), Arc::clone(clock), Arc::clone(metrics));
    Ok(Some(AuthServerDeps {
        keyring: Arc::clone(store.keyring()),
        context: auth_context,
        providers,
        documents: ClientDocuments::new(Arc::clone(clock), tasks),
    }))
}

/// Opens the audit. If the state folder is missing or read-only there is none, like all
/// persistence.
fn open_audit(settings: &Settings, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Result<Audit, Error> {
    if !settings.state.is_dir() {
        return Ok(Audit::disabled());
    }
    let file = settings.state.join("audit.jsonl");
    let max_files = settings.audit_files;
    let config = AuditConfig {
        file: settings.audit.map(|max_bytes| AuditFileConfig { path: file.clone(), max_bytes, max_files }),
        sinks: settings.audit_sinks.clone(),
        state: settings.state.clone(),
        node: settings.shown_node_name(),
    };
    match Audit::start(config, Arc::clone(clock), Arc::clone(metrics)) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            tracing::error!(file = %file.display(), %error, "serving without an audit: nobody's calls are recorded");
            Ok(Audit::disabled())
        }
        outcome => outcome.map_err(|cause| Error::Audit { path: file, cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_admin_address_ends_only_a_gateway_that_was_given_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let admin = taken.local_addr().ok();
        let bind = async |is_admin_optional| {
            bind_admin(&Settings { admin, is_admin_optional, ..Settings::default() }).await
        };
        assert!(matches!(bind(true).await, Ok(None)));
        assert!(matches!(bind(false).await, Err(Error::Admin { .. })));
        drop(taken);
        assert!(matches!(bind(true).await, Ok(Some(_))));
    }
}
