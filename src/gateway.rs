//! Floor 6: the composition root, which builds a gateway from settings, runs it and drains it.
//!
//! Building binds and creates everything without network traffic. Running starts the servers,
//! announces their addresses, and waits for signals: SIGTERM or SIGINT drains (a second one ends at
//! once), SIGHUP reads settings and tenants again.

mod addresses;
mod alerting;
mod auth_database;
mod building;
mod certificate_names;
mod cluster;
mod ending;
mod node_shares;
mod open_files;
mod progress;
mod running;
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
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use self::addresses::Addresses;
pub use self::auth_database::database_address;
pub use self::building::load_context;
pub use self::ending::Drained;
pub use self::progress::{StartProgress, WarmUp};
pub use self::succession::take_from;
use self::tenant_secrets::TenantSecrets;
pub use self::upgrade::{OrderError, Upgraded, order_upgrade};
use crate::base::descriptor_channel::ReceiveError;
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::bundle::{self, GivenValues};
use crate::certs::{self, Certificates};
use crate::server::{BindError, Listeners};
use crate::settings::{SettingSources, Settings, WrittenSettings};
use crate::store::{self, Joining, Store};
use crate::telemetry::otlp::Exporter;
use crate::tenants::cluster_view::ClusterView;
use crate::tenants::registry::{Registry, TablePublisher};
use crate::tenants::{TenantDeps, TenantsSource};

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

impl Gateway {
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
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
