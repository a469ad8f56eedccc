//! Floor 6: the composition root, which builds a gateway from settings, runs it and drains it.
//!
//! Building binds and creates everything without network traffic. Running starts the servers,
//! announces their addresses, and waits for signals: SIGTERM or SIGINT drains (a second one ends at
//! once), SIGHUP rescans the tenants folder.

mod addresses;
mod files;
mod names;
mod signals;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use self::addresses::Addresses;
use self::signals::{Asked, Signals};
use crate::admin::{self, About, Admin};
use crate::backend::{AddressRules, ContextStore, Pool, WarmUp};
use crate::base::budget::Budget;
use crate::base::clock::{Clock, SystemClock};
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::bundle;
use crate::certs::{self, Certificates};
use crate::identity::Entra;
use crate::oauth::authorization_server as oauth;
use crate::oauth::client::Documents;
use crate::oauth::ledger::Ledger;
use crate::server::{BindError, Edge, Handles, Listeners};
use crate::settings::{OpenTenants, Settings, TlsMode, ZipHosts};
use crate::store::{self, KeySource, Store};
use crate::telemetry::audit::{Audit, Keeping};
use crate::telemetry::metrics::Metrics;
use crate::tenants::reconcile::Ground;
use crate::tenants::registry::Registry;
use crate::tenants::{Parts, Reconciler};

/// The reasons why a gateway cannot be built. Each message is complete; no source is printed after
/// it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", in_vendors_words(.0))]
    Listen(BindError),
    #[error(
        "the listener for plain HTTP cannot be bound: {0}; choose another address with --listen-http, or do without with --listen-http off"
    )]
    ListenHttp(BindError),
    #[error(
        "the admin listener cannot be bound to {address}: {cause}; choose another with --admin, or turn it off with --admin off"
    )]
    Admin { address: SocketAddr, cause: io::Error },
    #[error(transparent)]
    Certificates(#[from] certs::Error),
    #[error("the client for tenants' backends cannot be made: {0}")]
    Backend(crate::backend::Error),
    #[error("{what} {} cannot be made: {cause}", path.display())]
    Folder { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("the tenants folder {} is a file; give the folder that it is in with --tenants", .0.display())]
    TenantsIsFile(PathBuf),
    #[error(
        "the tenants folder {} is itself an unpacked export; give the folder above it with --tenants, so that it is one of the tenants", .0.display()
    )]
    TenantsIsExport(PathBuf),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the audit file {} cannot be opened: {cause}; mend that, or do without with TENANTD_AUDIT=off", path.display())]
    Audit { path: PathBuf, cause: io::Error },
    #[error("signals cannot be listened for: {0}")]
    Signals(io::Error),
    #[error("the ready file {} cannot be written: {cause}", path.display())]
    ReadyFile { path: PathBuf, cause: io::Error },
}

/// The time for flushing the audit records of the last calls.
const FLUSH: Duration = Duration::from_secs(2);

/// A gateway whose listeners are bound and which does not serve yet.
pub struct Gateway {
    settings: Settings,
    addresses: Addresses,
    tasks: Tasks,
    listeners: Listeners,
    plain: Listeners,
    admin: Option<TcpListener>,
    certificates: Arc<Certificates>,
    context: bundle::Context,
    parts: Parts,
    registry: Registry,
    store: Option<Arc<Store>>,
    kept: Vec<store::Entry>,
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All requests in progress finished.
    Wholly,
    /// The drain period expired, or a second signal arrived.
    Cut,
}

impl Gateway {
    /// Binds the listeners and creates everything else. `env` holds the variables that tenants'
    /// files may refer to.
    ///
    /// # Errors
    /// [`Error`] if a listener cannot be bound, or a folder, file or store cannot be created or
    /// opened.
    pub async fn build(
        mut settings: Settings,
        env: BTreeMap<String, Secret>,
        key: KeySource,
    ) -> Result<Self, Error> {
        settings.limits.connections = files::connections(settings.limits.connections, files::raise_limit());
        make_tenants_folder(&settings.tenants)?;
        let (store, kept) = open_store(settings.state.clone(), key).await?;
        let listeners = Listeners::bind(&settings.listen).map_err(Error::Listen)?;
        let plain = Listeners::bind(&settings.listen_http).map_err(Error::ListenHttp)?;
        let admin = bind_admin(settings.admin).await?;
        let clock = SystemClock::shared();
        let tasks = Tasks::new();
        let metrics = Arc::new(Metrics::new());
        let certificates = Certificates::start(
            &settings,
            names::own(&settings),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            &tasks,
        )?;
        watch_store(store.as_ref(), &metrics);
        let bound = (listeners.local_addrs(), plain.local_addrs());
        let addresses = Addresses::of(&settings, bound.0, bound.1, admin.as_ref());
        let context = context(&settings, &addresses, env);
        let contexts = store.clone().map(ContextStore::new);
        let warm_up = WarmUp::start(&tasks, Arc::clone(&clock), contexts);
        let mut parts = parts(&settings, &context, warm_up, clock, metrics)?;
        parts.login = login(&settings, store.as_ref(), &parts, &tasks).await?;
        let registry = Registry::new();
        Ok(Self {
            settings,
            addresses,
            tasks,
            listeners,
            plain,
            admin,
            certificates,
            context,
            parts,
            registry,
            store,
            kept,
        })
    }

    /// Returns the bound addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until a signal ends it. `on_ready` is called once connections are accepted and the
    /// tenants are loaded.
    ///
    /// # Errors
    /// [`Error::Signals`] or [`Error::ReadyFile`].
    pub async fn run(mut self, on_ready: impl FnOnce(&Addresses)) -> Result<Drained, Error> {
        let mut signals = Signals::listen().map_err(Error::Signals)?;
        let reconciler = Reconciler::start(self.ground(), &self.tasks);
        names::follow(&self.settings, &self.registry, &self.certificates, &self.tasks);
        self.serve_admin(reconciler.clone());
        let edge = Edge::new(&self.settings, self.handles());
        let audit = self.parts.audit.clone();
        let Self { settings, addresses, tasks, listeners, plain, registry, .. } = self;
        edge.serve(listeners);
        edge.serve_plain(plain, addresses.public_port());
        let mut end = End { signals: &mut signals, reconciler: &reconciler };
        let asked_early = tokio::select! {
            () = first_pass(&registry) => false,
            () = end.asked() => true,
        };
        if !asked_early {
            addresses.announce(settings.ready_file.as_deref())?;
            on_ready(&addresses);
            end.asked().await;
        }
        let drained = drain(&tasks, &registry, &mut signals, &settings).await;
        // Flushing the last audit records takes moments.
        let flushing = tokio::task::spawn_blocking(move || audit.flush(FLUSH));
        // If all blocking threads hang, the flush never starts.
        let _written = tokio::time::timeout(2 * FLUSH, flushing).await;
        Ok(drained)
    }

    fn ground(&mut self) -> Ground {
        Ground {
            folder: self.settings.tenants.clone(),
            watch: self.settings.watch,
            context: Arc::new(self.context.clone()),
            parts: self.parts.clone(),
            registry: self.registry.clone(),
            store: self.store.clone(),
            kept: std::mem::take(&mut self.kept),
        }
    }

    fn handles(&self) -> Handles {
        let secure = self.settings.tls != TlsMode::Off;
        Handles {
            registry: self.registry.clone(),
            metrics: Arc::clone(&self.parts.metrics),
            clock: Arc::clone(&self.parts.clock),
            tasks: self.tasks.clone(),
            audit: self.parts.audit.clone(),
            certificates: secure.then(|| Arc::clone(&self.certificates)),
        }
    }

    fn serve_admin(&mut self, reconciler: Reconciler) {
        let Some(listener) = self.admin.take() else { return };
        let admin = Admin {
            registry: self.registry.clone(),
            reconciler,
            certificates: Arc::clone(&self.certificates),
            metrics: Arc::clone(&self.parts.metrics),
            audit: self.parts.audit.clone(),
            clock: Arc::clone(&self.parts.clock),
            tasks: self.tasks.clone(),
            store: self.store.clone(),
            turns: admin::Turns::default(),
            about: About {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                public_base: self.addresses.public_base.clone(),
                hosts: self.settings.hosts.iter().map(ToString::to_string).collect(),
                tls: self.settings.tls,
                certs: std::path::absolute(&self.settings.certs).ok(),
                backend_allow: self.settings.backend_allow.iter().map(ToString::to_string).collect(),
                backend_only: self.settings.backend_only.places().iter().map(ToString::to_string).collect(),
            },
        };
        admin.serve(listener);
    }
}

/// Waits for the first publication, with tenants or without.
async fn first_pass(registry: &Registry) {
    // An error would mean that the registry is gone, but the caller holds it.
    let mut generation = registry.generation();
    let _gone = generation.wait_for(|&generation| generation > 0).await.is_err();
}

/// The signals that end serving.
struct End<'a> {
    signals: &'a mut Signals,
    reconciler: &'a Reconciler,
}

impl End<'_> {
    /// Waits for a signal to finish; rescans the tenants folder on each SIGHUP before that.
    async fn asked(&mut self) {
        while self.signals.next().await == Asked::Reload {
            tracing::info!("asked to look at the tenants folder");
            self.reconciler.look_again();
        }
    }
}

/// Drains: refuses new connections, ends streams after a third of the drain period, and lets calls
/// finish. Whatever remains at its end, or at a second signal, is cut off.
async fn drain(tasks: &Tasks, registry: &Registry, signals: &mut Signals, settings: &Settings) -> Drained {
    let patience = Duration::from_secs(settings.limits.drain_seconds);
    tracing::info!(
        patience_s = patience.as_secs(),
        "draining: no new connections; calls under way may finish"
    );
    let end_streams = async {
        tokio::time::sleep(patience / 3).await;
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
    tasks.hard().cancel();
    match finished {
        true => Drained::Wholly,
        false => Drained::Cut,
    }
}

/// Creates a missing tenants folder, so that a first start needs no preparation; rejects paths that
/// cannot be meant.
fn make_tenants_folder(path: &PathBuf) -> Result<(), Error> {
    if path.is_file() {
        return Err(Error::TenantsIsFile(path.clone()));
    }
    if bundle::is_unpacked_export(path) {
        return Err(Error::TenantsIsExport(path.clone()));
    }
    if path.is_dir() {
        return Ok(());
    }
    let likely = bundle::folder_like(path);
    let made = std::fs::create_dir_all(path);
    made.map_err(|cause| Error::Folder { what: "the tenants folder", path: path.clone(), cause })?;
    let folder = path.display();
    match likely {
        None => tracing::warn!(%folder, "the tenants folder was not there and has been made; it is empty"),
        Some(likely) => tracing::warn!(
            %folder, meant = %likely.display(),
            "the tenants folder was not there and has been made; it is empty, and beside it lies one of almost that name \
             with tenants in it: if that is meant, correct --tenants (or `tenants:`, TENANTD_TENANTS) and restart"
        ),
    }
    Ok(())
}

/// Opens the store. If none exists and none can be created, the gateway serves without it; no
/// existing state is lost by that.
async fn open_store(
    folder: PathBuf,
    key: KeySource,
) -> Result<(Option<Arc<Store>>, Vec<store::Entry>), Error> {
    let opening = tokio::task::spawn_blocking(move || {
        let store = Store::open(&folder, &key)?;
        let kept = store.entries()?;
        Ok::<_, store::Error>((Some(Arc::new(store)), kept))
    });
    match opening.await.expect("opening the store does not panic") {
        Ok(store) => Ok(store),
        Err(error) if error.is_nowhere_to_write() => {
            tracing::error!(%error, "serving without a state folder: last good revisions, pauses, rollbacks and who holds which name and path will not survive a restart");
            Ok((None, Vec::new()))
        }
        Err(error) => Err(error.into()),
    }
}

async fn bind_admin(address: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let Some(address) = address else { return Ok(None) };
    admin::bind(address).await.map(Some).map_err(|cause| Error::Admin { address, cause })
}

/// Returns the context for loading tenants, with port numbers resolved.
fn context(settings: &Settings, addresses: &Addresses, env: BTreeMap<String, Secret>) -> bundle::Context {
    bundle::Context {
        public_base: addresses.public_base.clone(),
        hosts: settings.gateway_hosts(),
        zip_hosts_allowed: settings.zip_hosts == ZipHosts::Allow,
        backend_allow: settings.backend_allow.clone(),
        backend_only: settings.backend_only.clone(),
        own_addresses: addresses.listen.iter().copied().chain(addresses.admin).collect(),
        require_auth: settings.open_tenants == OpenTenants::Refused,
        secret_roots: settings.secret_roots.clone(),
        confine_tenants: settings.confine_tenants,
        largest_request: settings.limits.largest_request(),
        env,
    }
}

fn parts(
    settings: &Settings,
    context: &bundle::Context,
    warm_up: WarmUp,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Result<Parts, Error> {
    let pool = Pool::new(AddressRules::of(context), Arc::clone(&clock), Arc::clone(&metrics));
    let answers = Budget::of_mib(settings.limits.backend_memory_mib);
    Ok(Parts {
        pool: pool.map_err(Error::Backend)?.with_answer_memory(answers),
        warm_up,
        audit: audit(settings, &clock, &metrics)?,
        metrics,
        clock,
        open_tenants: settings.open_tenants,
        private_networks: settings.private_networks.as_slice().into(),
        login: None,
        allowed_origins: settings.allowed_origins.clone(),
        drain: Duration::from_secs(settings.limits.drain_seconds),
    })
}

/// Keeps the metric in step with the store; without a store, nothing can be written.
fn watch_store(store: Option<&Arc<Store>>, metrics: &Arc<Metrics>) {
    let Some(store) = store else { return metrics.store_writable(false) };
    let metrics = Arc::clone(metrics);
    store.watch_writing(move |writable| metrics.store_writable(writable));
}

/// Returns what the tenants' authorization servers share. Without a store there is none, and
/// tenants that require a login are closed.
async fn login(
    settings: &Settings,
    store: Option<&Arc<Store>>,
    parts: &Parts,
    tasks: &Tasks,
) -> Result<Option<oauth::Shared>, Error> {
    let Some(store) = store.cloned() else { return Ok(None) };
    let Parts { clock, metrics, audit, .. } = parts;
    let ledger = Ledger::start(Arc::clone(&store), Arc::clone(clock), audit.clone(), tasks).await?;
    let entra = Entra::new(settings.entra_authority.clone(), Arc::clone(clock), Arc::clone(metrics));
    Ok(Some(oauth::Shared { store, ledger, entra, documents: Documents::new(Arc::clone(clock), tasks) }))
}

/// Starts the audit. If the state folder is missing or read-only there is none, like all
/// persistence.
fn audit(settings: &Settings, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> Result<Audit, Error> {
    let Some(bytes) = settings.audit.filter(|_| settings.state.is_dir()) else { return Ok(Audit::off()) };
    let file = settings.state.join("audit.jsonl");
    let keeping = Keeping { file: file.clone(), bytes, files: settings.audit_files };
    let clock = Arc::clone(clock);
    match Audit::start(keeping, Arc::new(move || clock.now()), Arc::clone(metrics)) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            tracing::error!(file = %file.display(), %error, "serving without an audit: nothing of who calls is written down");
            Ok(Audit::off())
        }
        started => started.map_err(|cause| Error::Audit { path: file, cause }),
    }
}

/// Uses the wording of the vendor's server, because operators search for it.
fn in_vendors_words(error: &BindError) -> String {
    let address = error.address;
    match error.source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "Port {} already in use ({address}); stop what listens there, or choose another with --listen",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {} may not be used by this user ({address}); choose one above 1023 with --listen, or give the process CAP_NET_BIND_SERVICE",
            address.port()
        ),
        _ => error.to_string(),
    }
}
