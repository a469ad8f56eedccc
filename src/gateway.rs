//! Floor 6: the composition root, which builds a gateway from settings, runs it and drains it.
//!
//! Building binds and creates everything without network traffic. Running starts the servers,
//! announces their addresses, and waits for signals: SIGTERM or SIGINT drains (a second one ends at
//! once), SIGHUP reads settings and tenants again.

mod addresses;
mod alerting;
mod auth_database;
mod certificate_names;
mod cluster;
mod node_shares;
mod open_files;
mod progress;
mod service_manager;
mod settings_reload;
mod signals;
mod state_metrics;
mod succession;
mod tenant_secrets;
mod upgrade;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::addresses::Addresses;
pub use self::auth_database::database_address;
pub use self::progress::{StartProgress, WarmUp};
use self::settings_reload::SettingsReloader;
use self::signals::{SignalAction, Signals};
use self::state_metrics::StateSources;
pub use self::succession::take_from;
use self::tenant_secrets::TenantSecrets;
use self::upgrade::Upgrader;
pub use self::upgrade::{OrderError, Upgraded, order_upgrade};
use crate::admin::{self, Admin, GatewayInfo, Startup, TenantRules};
use crate::alerts::Alerts;
use crate::backend::{AddressRules, ContextRefresher, Pool};
use crate::base::budget::Budget;
use crate::base::clock::{Clock, SystemClock};
use crate::base::descriptor_channel::ReceiveError;
use crate::base::inherited_sockets;
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::bundle::{self, GivenValues};
use crate::certs::{self, Certificates};
use crate::identity::Providers;
use crate::oauth::authorization_server::AuthServerDeps;
use crate::oauth::client::ClientDocuments;
use crate::oauth::context::{AuthContext, SharedLogins};
use crate::oauth::logins::Logins;
use crate::server::{BindError, Listeners, Server, ServerDeps};
use crate::settings::{
    OpenTenants, SettingSources, Settings, SettingsInForce, TlsMode, WrittenSettings, ZipHosts,
};
use crate::store::{self, Joining, KeySource, Store};
use crate::telemetry::audit::{Audit, AuditConfig, AuditFileConfig};
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::{Exporter, MetricsReader, Tracer};
use crate::tenants::cluster_view::ClusterView;
use crate::tenants::reconcile::ReconcilerConfig;
use crate::tenants::registry::{Registry, TablePublisher};
use crate::tenants::{ReconcilerHandle, TenantDeps, TenantsSource};
use crate::usage::Usage;

/// The reasons why a gateway cannot be built. Each message is complete; no source is printed after
/// it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the service manager handed over a socket on {}, where this gateway does not listen; write the same \
         addresses into `ListenStream=` of tenantd.socket and into the settings `listen`, `listen_http` and \
         `admin` (a port alone means [::] there: write 0.0.0.0:PORT for the default)",
        join(.0)
    )]
    Inherited(Vec<SocketAddr>),
    #[error("{}", describe_bind_error(.0))]
    Listen(BindError),
    #[error(
        "the listener for plain HTTP cannot be bound: {0}; choose another address with --listen-http, or \
         turn it off with --listen-http off"
    )]
    ListenHttp(BindError),
    #[error(
        "the admin listener cannot be bound to {address}: {cause}; choose another with --admin, or turn it off with --admin off"
    )]
    Admin { address: SocketAddr, cause: io::Error },
    #[error(transparent)]
    Certificates(#[from] certs::Error),
    #[error("the client for tenants' backends cannot be created: {0}")]
    Backend(crate::backend::Error),
    #[error("{what} {} cannot be created: {cause}", path.display())]
    Folder { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("the tenants folder {} is a file; give the folder that contains it with --tenants", .0.display())]
    TenantsIsFile(PathBuf),
    #[error(
        "the tenants folder {} is itself an unpacked export; give its parent folder with --tenants, so that \
         the export is one of the tenants", .0.display()
    )]
    TenantsIsExport(PathBuf),
    #[error(
        "the state folder {} belongs to a gateway with several tenants ({entries}), whose logins and revisions \
         would be forgotten; give another folder with --state", folder.display()
    )]
    StateOfOthers { folder: PathBuf, entries: String },
    #[cfg(feature = "kube")]
    #[error(transparent)]
    Kubernetes(#[from] crate::tenants::kubernetes::Error),
    #[error("the tenant cannot be served: {0}")]
    TenantUnusable(String),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    AuthStore(#[from] store::auth::Error),
    #[error(
        "logins are kept in a database, so the master key must not lie in this machine's state folder alone: give \
         it with --master-key-file or TENANTD_MASTER_KEY (the key of an earlier start is master.key in the state \
         folder; openssl rand -hex 32 makes a new one)"
    )]
    MasterKeyNotShared,
    #[error("logins are kept in a database, but there is no state folder for the rest")]
    DatabaseWithoutState,
    #[error(
        "another gateway was started with this one's node id, from a copy of its state folder, while this one was \
         not heard of; give each gateway a state folder of its own"
    )]
    Replaced,
    #[error("the audit file {} cannot be opened: {cause}; fix that, or turn the audit off with \
             TENANTD_AUDIT=off", path.display())]
    Audit { path: PathBuf, cause: io::Error },
    #[error("the gateway before this one did not hand over: {0}")]
    Handover(ReceiveError),
    #[error("signals cannot be listened for: {0}")]
    Signals(io::Error),
    #[error("the ready file {} cannot be written: {cause}", path.display())]
    ReadyFile { path: PathBuf, cause: io::Error },
}

/// Where a gateway's tenants come from, and what their files may refer to.
pub struct TenantInputs {
    /// Where the entries are.
    pub source: TenantsSource,
    /// The variables that the tenants' files may refer to.
    pub env: BTreeMap<String, Secret>,
    /// What flags and variables give the only tenant; `None` if there may be several.
    pub given: Option<Arc<GivenValues>>,
}

/// How long connections wait for the tenants to be read before they are told to try again.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// The time for writing the usage of the last calls.
const USAGE_FLUSH_TIMEOUT: Duration = Duration::from_secs(4);
/// The time for flushing the audit records of the last calls.
const AUDIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for sending them to the sinks; what is left is sent after the next start.
const SINKS_FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for sending the spans of the last calls.
const SPANS_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A gateway whose listeners are bound and which does not serve yet.
pub struct Gateway {
    settings: Settings,
    addresses: Addresses,
    tasks: Tasks,
    listeners: Listeners,
    http_listeners: Listeners,
    admin: Option<TcpListener>,
    admin_tls: Option<Arc<rustls::ServerConfig>>,
    certificates: Arc<Certificates>,
    load_context: bundle::LoadContext,
    source: TenantsSource,
    secrets: Option<TenantSecrets>,
    tenant_deps: TenantDeps,
    publisher: TablePublisher,
    registry: Registry,
    setting_sources: Option<(SettingSources, WrittenSettings)>,
    store: Option<Store>,
    stored_entries: Vec<store::StoredEntry>,
    /// The database that is not in use yet.
    joining: Option<Joining>,
    cluster_view: Option<Arc<ClusterView>>,
    exporter: Option<Arc<Exporter>>,
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All requests in progress finished.
    Completely,
    /// The drain period expired, or a second signal arrived.
    Cut,
}

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

    /// Returns what shows how far the gateway's start is.
    pub fn progress(&self) -> StartProgress {
        let fetches = self.tenant_deps.context_refresher.attempts();
        StartProgress { registry: self.registry.clone(), fetches }
    }

    /// Has the settings read again at SIGHUP: what their sources said, and the sources.
    pub fn read_settings_again(&mut self, sources: SettingSources, written: WrittenSettings) {
        self.setting_sources = Some((sources, written));
    }

    /// Returns the bound addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until a signal ends it. `on_ready` runs once connections are accepted and the tenants
    /// are loaded.
    ///
    /// # Errors
    /// [`Error::Signals`], [`Error::ReadyFile`], or [`Error::TenantUnusable`] if the only tenant
    /// is.
    pub async fn run(mut self, on_ready: impl AsyncFnOnce(&Addresses)) -> Result<Drained, Error> {
        let mut signals = Signals::listen().map_err(Error::Signals)?;
        let reconciler = ReconcilerHandle::start(self.reconciler_config(), &self.tasks);
        let (own_hosts, hosts) = watch::channel(Arc::new(certificate_names::own(&self.settings)));
        certificate_names::follow_tenants(hosts, &self.registry, &self.certificates, &self.tasks);
        let (sources, written) = self.setting_sources.take().unzip();
        let in_force = SettingsInForce::new(self.settings.clone(), written.unwrap_or_default());
        let in_force = Arc::new(ArcSwap::from_pointee(in_force));
        let _connected = self.state_sources().connect(&self.tenant_deps.metrics);
        let alerts = alerting::start(&self, node_shares::follow(&self));
        self.serve_admin(reconciler.clone(), Arc::clone(&in_force), Arc::clone(&alerts));
        let server = Server::new(&self.settings, self.server_deps());
        let reloader = SettingsReloader {
            sources,
            in_force: Arc::clone(&in_force),
            server: Arc::clone(&server),
            reconciler: reconciler.clone(),
            alerts,
            audit: self.tenant_deps.audit.clone(),
            pool: self.tenant_deps.pool.clone(),
            context: self.load_context.clone(),
            own_hosts,
        };
        let (audit, usage) = (self.tenant_deps.audit.clone(), Arc::clone(&self.tenant_deps.usage));
        let followers = cluster::Followers {
            logins: self.tenant_deps.login.as_ref().map(|login| Arc::clone(&login.context)),
            metrics: Arc::clone(&self.tenant_deps.metrics),
            clock: Arc::clone(&self.tenant_deps.clock),
        };
        let upgrader = self.upgrader(&server);
        usage.start_writing(&self.tasks);
        audit.start_sinks(&self.tasks);
        let is_single = matches!(self.source, TenantsSource::Single(_));
        let Self {
            settings,
            addresses,
            tasks,
            listeners,
            http_listeners,
            registry,
            exporter,
            store,
            joining,
            ..
        } = self;
        if let Some(exporter) = exporter.clone() {
            tasks.spawn_detached("otlp", async move { exporter.run().await });
        }
        server.serve_http_redirect(http_listeners, addresses.public_port());
        let cluster = store.as_ref().and_then(Store::cluster);
        let replaced = cluster::follow(cluster.clone(), joining, followers, &tasks);
        let mut shutdown =
            ShutdownSignal { signals: &mut signals, reloader: &reloader, tasks: &tasks, replaced: &replaced };
        let starting = async {
            // Connections wait for the tenants in the kernel, but not for ever.
            let _late = tokio::time::timeout(START_PATIENCE, wait_for_first_pass(&registry)).await;
            server.serve(listeners);
            wait_for_first_pass(&registry).await;
            if is_single {
                find_single_tenant(&registry)?;
            }
            succession::take_over(&tasks).await
        };
        let started = tokio::select! {
            started = starting => Some(started),
            () = shutdown.wait() => None,
        };
        let mut upgrades = None;
        if let Some(started) = started {
            started?;
            addresses.announce(settings.ready_file.as_deref())?;
            service_manager::ready();
            service_manager::follow_tenants(&registry, &in_force, &tasks);
            service_manager::feed_watchdog(&tasks);
            let announcing = async {
                on_ready(&addresses).await;
                std::future::pending::<()>().await;
            };
            let upgrades = upgrades.insert(upgrader.listen());
            tokio::select! {
                () = shutdown.wait() => {}
                () = upgrades.wait_for_successor() => {}
                () = announcing => {}
            }
        }
        let is_succeeded = match upgrades {
            Some(upgrades) => upgrades.stop().await,
            None => false,
        };
        let drain_seconds = in_force.load().settings.limits.drain_seconds;
        let ending = async {
            let drained = drain(&tasks, &registry, &mut signals, drain_seconds, is_succeeded).await;
            let _written = tokio::time::timeout(USAGE_FLUSH_TIMEOUT, usage.flush()).await;
            if let Some(cluster) = cluster.filter(|_| !is_succeeded) {
                cluster::leave(&cluster).await;
            }
            if let Some(exporter) = exporter {
                exporter.flush(SPANS_FLUSH_TIMEOUT).await;
            }
            // Flushing the last audit records takes moments.
            let file = audit.clone();
            let flushing = tokio::task::spawn_blocking(move || file.flush(AUDIT_FLUSH_TIMEOUT));
            // If all blocking threads hang, the flush never starts.
            let _written = tokio::time::timeout(2 * AUDIT_FLUSH_TIMEOUT, flushing).await;
            audit.finish_sinks(SINKS_FINISH_TIMEOUT).await;
            drained
        };
        if is_succeeded {
            // The service manager looks after the successor.
            return Ok(ending.await);
        }
        tokio::select! {
            drained = ending => match replaced.is_cancelled() {
                true => Err(Error::Replaced),
                false => Ok(drained),
            },
            never = service_manager::tell_of_drain(drain_seconds) => match never {},
        }
    }

    fn reconciler_config(&mut self) -> ReconcilerConfig {
        let secrets = self.secrets.take().expect("the reconciler is started once");
        ReconcilerConfig {
            filled: secrets.start(&self.tenant_deps.metrics, &self.tasks),
            source: self.source.clone(),
            watch: self.settings.watch,
            context: Arc::new(self.load_context.clone()),
            tenant_deps: self.tenant_deps.clone(),
            publisher: self.publisher.clone(),
            store: self.store.as_ref().map(|store| store.local().clone()),
            stored_entries: std::mem::take(&mut self.stored_entries),
            cluster: self.store.as_ref().and_then(Store::cluster),
        }
    }

    fn upgrader(&self, server: &Arc<Server>) -> Upgrader {
        Upgrader {
            tasks: self.tasks.clone(),
            server: Arc::clone(server),
            certificates: Arc::clone(&self.certificates),
            usage: Arc::clone(&self.tenant_deps.usage),
            audit: self.tenant_deps.audit.clone(),
            store: self.store.clone(),
            state: self.settings.state.clone(),
            sockets: upgrade::OwnSockets::new(&self.settings, &self.addresses),
        }
    }

    fn state_sources(&self) -> StateSources {
        StateSources {
            registry: self.registry.clone(),
            certificates: Arc::clone(&self.certificates),
            tasks: self.tasks.clone(),
            clock: Arc::clone(&self.tenant_deps.clock),
            exporter: self.exporter.clone(),
            cluster: self.cluster_view.clone(),
        }
    }

    fn server_deps(&self) -> ServerDeps {
        let is_tls = self.settings.tls != TlsMode::Off;
        ServerDeps {
            registry: self.registry.clone(),
            metrics: Arc::clone(&self.tenant_deps.metrics),
            clock: Arc::clone(&self.tenant_deps.clock),
            tasks: self.tasks.clone(),
            audit: self.tenant_deps.audit.clone(),
            tracer: self.tenant_deps.tracer.clone(),
            certificates: is_tls.then(|| Arc::clone(&self.certificates)),
            sockets: Arc::clone(&self.tenant_deps.sockets),
        }
    }

    fn serve_admin(
        &mut self,
        reconciler: ReconcilerHandle,
        in_force: Arc<ArcSwap<SettingsInForce>>,
        alerts: Arc<Alerts>,
    ) {
        let Some(listener) = self.admin.take() else { return };
        let admin = Admin {
            settings: in_force,
            cluster: self.cluster_view.clone(),
            registry: self.registry.clone(),
            reconciler,
            alerts,
            certificates: Arc::clone(&self.certificates),
            metrics: Arc::clone(&self.tenant_deps.metrics),
            audit: self.tenant_deps.audit.clone(),
            usage: Arc::clone(&self.tenant_deps.usage),
            clock: Arc::clone(&self.tenant_deps.clock),
            tasks: self.tasks.clone(),
            store: self.store.clone(),
            logins: self.tenant_deps.login.as_ref().map(|login| Logins::new(Arc::clone(&login.context))),
            tls: self.admin_tls.clone(),
            auth: Arc::new(admin::AdminAuth::new(
                &self.settings.admin_access,
                Arc::clone(&self.tenant_deps.clock),
            )),
            permits: admin::RequestPermits::default(),
            is_single_tenant: matches!(self.source, TenantsSource::Single(_)),
            startup: self.startup(),
            console: admin::ConsoleState::default(),
            info: GatewayInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                public_base: self.addresses.public_base.clone(),
                hosts: self.settings.hosts.iter().map(ToString::to_string).collect(),
                tls: self.settings.tls,
                certs: std::path::absolute(&self.settings.certs).ok(),
                listen: self.addresses.listen.clone(),
                listen_http: self.addresses.listen_http.clone(),
                tenants: std::path::absolute(self.source.path()).ok(),
                is_single_tenant: matches!(self.source, TenantsSource::Single(_)),
                state: std::path::absolute(&self.settings.state).ok(),
                login_authority: Some(self.settings.entra_authority.to_string()),
                backend_allow: self.settings.backend_allow.iter().map(ToString::to_string).collect(),
                backend_only: self.settings.backend_only.items().iter().map(ToString::to_string).collect(),
                tenant_rules: Some(TenantRules::from_settings(&self.settings)),
            },
        };
        admin.serve(listener);
    }

    fn startup(&self) -> Startup {
        Startup {
            at: self.tenant_deps.clock.now(),
            listen: self.addresses.listen.clone(),
            listen_http: self.addresses.listen_http.clone(),
            admin: self.addresses.admin,
            tenants: self.source.folder().to_owned(),
            state: self.settings.state.clone(),
        }
    }
}

/// Waits for the first publication, with tenants or without.
async fn wait_for_first_pass(registry: &Registry) {
    // An error would mean that the registry is gone, but the caller holds it.
    let mut generation = registry.subscribe_generation();
    let _gone = generation.wait_for(|&generation| generation > 0).await.is_err();
}

/// Fails unless the gateway's only tenant is in force, or was stopped by its operator.
fn find_single_tenant(registry: &Registry) -> Result<(), Error> {
    let table = registry.load();
    let entry = table.entries.values().next();
    let unusable = |why: String| Err(Error::TenantUnusable(why));
    match entry {
        Some(entry) if entry.tenant.is_some() => Ok(()),
        Some(entry) => match entry.status() {
            status if status.paused => Ok(()),
            status => unusable(status.first_error().unwrap_or_else(|| "it was refused".to_owned())),
        },
        None => unusable("its files are gone".to_owned()),
    }
}

/// The signals that end serving.
struct ShutdownSignal<'a> {
    signals: &'a mut Signals,
    reloader: &'a SettingsReloader,
    tasks: &'a Tasks,
    /// Fires if another gateway has this one's node id.
    replaced: &'a CancellationToken,
}

impl ShutdownSignal<'_> {
    /// Waits for a signal to finish; reads the settings and the tenants folder again on each SIGHUP
    /// before that.
    async fn wait(&mut self) {
        while self.replaced.run_until_cancelled(self.signals.next()).await == Some(SignalAction::Reload) {
            tracing::info!("SIGHUP: looking for changes of the settings and the tenants' files");
            service_manager::reloading();
            self.reloader.reload().await;
            let (reconciler, stop) = (self.reloader.reconciler.clone(), self.tasks.shutdown_signal().clone());
            // Not waited for: a signal to finish may come meanwhile.
            self.tasks.spawn("reload", async move {
                if stop.run_until_cancelled(reconciler.reload()).await.is_some() {
                    service_manager::ready();
                }
            });
        }
    }
}

/// Drains: refuses new connections, ends streams after a third of the drain period, or at once if
/// there is a successor to open them at, and lets calls finish. Whatever remains at its end, or at
/// a second signal, is cut off.
async fn drain(
    tasks: &Tasks,
    registry: &Registry,
    signals: &mut Signals,
    seconds: u64,
    is_succeeded: bool,
) -> Drained {
    let patience = Duration::from_secs(seconds);
    tracing::info!(
        patience_s = patience.as_secs(),
        "draining: no new connections; calls in progress can finish"
    );
    let end_streams = async {
        if !is_succeeded {
            tokio::time::sleep(patience / 3).await;
        }
        let tenants: Vec<_> =
            registry.load().entries.values().filter_map(|entry| entry.tenant.clone()).collect();
        tenants.iter().for_each(|tenant| tenant.mcp.end_streams());
        std::future::pending::<()>().await;
    };
    let finished = tokio::select! {
        finished = tasks.drain(patience) => finished,
        () = end_streams => false,
        _ = signals.next() => false,
    };
    tasks.abort_signal().cancel();
    match finished {
        true => Drained::Completely,
        false => Drained::Cut,
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

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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

/// Uses the wording of the vendor's server, because operators search for it.
fn describe_bind_error(error: &BindError) -> String {
    let address = error.address;
    match error.source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "Port {} already in use ({address}); stop the program that uses it, or choose another with \
             --listen",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not use port {} ({address}); choose one above 1023 with --listen, or give the \
             process CAP_NET_BIND_SERVICE",
            address.port()
        ),
        _ => error.to_string(),
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
