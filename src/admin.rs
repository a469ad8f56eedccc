//! Floor 5: the admin listener, for operators and probes: health, metrics, tenants, reload and a
//! console.
//!
//! It speaks HTTP/1.1, with TLS or without. The Host header must be an IP address, `localhost` or a
//! listed name, so that no web page reaches it by DNS rebinding. Requests of other web pages are
//! refused. Without tokens (`auth`), changes are taken from this machine only.
//!
//! Probes are answered even under load, because an orchestrator restarts a process that does not
//! respond. Idle connections are closed to make room for new ones, and requests other than probes
//! cannot take all permits.

mod account;
mod api;
mod audit;
mod auth;
mod backup;
mod call;
mod clients;
mod commands;
mod console;
mod dispatch;
mod login;
mod logins;
mod notify;
mod permits;
mod request;
mod response;
mod routes;
mod signing_keys;
mod tls;
mod usage;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use self::account::Ends;
pub use self::auth::AdminAuth;
pub use self::console::ConsoleState;
use self::permits::ConnectionActivity;
pub use self::permits::RequestPermits;
pub use self::routes::{RouteInfo, list_routes};
pub use self::tls::build as build_tls;
use crate::alerts::Alerts;
use crate::base::accept::Acceptor;
use crate::base::clock::Clock;
use crate::base::evicting_limiter::EvictingLimiter;
use crate::base::inherited_sockets;
use crate::base::linger;
use crate::base::task::Tasks;
use crate::certs::Certificates;
use crate::oauth::logins::Logins;
use crate::settings::{OpenTenants, Settings, SettingsInForce, TlsMode, ZipHosts};
use crate::spec::{ListenerRange, TenantListeners};
use crate::store::Store;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::tenants::ReconcilerHandle;
use crate::tenants::cluster_view::ClusterView;
use crate::tenants::registry::Registry;
use crate::usage::Usage;

/// The maximum number of connections, kept low so that a flood does not eat into the gateway's.
/// Exceeds the number of [permits] for requests that are not probes.
const MAX_CONNECTIONS: usize = 64;
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// The longest time a connection may last, idle or not. Ordering a certificate may take five
/// minutes.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(330);

/// The admin interface of one gateway.
pub struct Admin {
    /// The tenants as published.
    pub registry: Registry,
    /// Executes operators' commands on tenants.
    pub reconciler: ReconcilerHandle,
    /// What is wrong, and who is told.
    pub alerts: Arc<Alerts>,
    /// The certificates and their renewal.
    pub certificates: Arc<Certificates>,
    /// The metrics to expose.
    pub metrics: Arc<Metrics>,
    /// Where operators' commands are recorded.
    pub audit: Audit,
    /// The usage of all tenants.
    pub usage: Arc<Usage>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The gateway's tasks, for readiness and for connections.
    pub tasks: Tasks,
    /// The persistent store, if there is one.
    pub store: Option<Store>,
    /// What is known of the other gateways, if this is one of several.
    pub cluster: Option<Arc<ClusterView>>,
    /// People's logins at the tenants; none without a store.
    pub logins: Option<Logins>,
    /// The certificate and parameters of TLS; `None` is plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Decides who may send a request.
    pub auth: Arc<AdminAuth>,
    /// Limits concurrent requests.
    pub permits: RequestPermits,
    /// Whether the gateway has only one tenant, and so is ready only while that is served.
    pub is_single_tenant: bool,
    /// The settings in force, and those that wait for a restart.
    pub settings: Arc<ArcSwap<SettingsInForce>>,
    /// What `/api/gateway` returns, with the hosts of the start.
    pub info: GatewayInfo,
    /// What was decided when the gateway started.
    pub startup: Startup,
    /// What the console keeps.
    pub console: ConsoleState,
}

/// What was decided when the gateway started: since when, where it listens, and its folders.
#[derive(Debug, Clone)]
pub struct Startup {
    /// When it started.
    pub at: Timestamp,
    /// The public listeners.
    pub listen: Vec<SocketAddr>,
    /// The listeners for plain HTTP.
    pub listen_http: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
    /// Where the tenants' files are.
    pub tenants: PathBuf,
    /// The state folder.
    pub state: PathBuf,
}

/// The gateway's self-description, with which `check` validates as the gateway does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GatewayInfo {
    /// The version of tenantd.
    pub version: String,
    /// The base of tenants' public URLs.
    pub public_base: String,
    /// The gateway's host names.
    pub hosts: Vec<String>,
    /// The source of its TLS certificates.
    pub tls: TlsMode,
    /// Where its certificates are. Earlier versions do not say.
    #[serde(default)]
    pub certs: Option<PathBuf>,
    /// Its public listeners, as they are bound. Earlier versions do not say.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// Its listeners for plain HTTP.
    #[serde(default)]
    pub listen_http: Vec<SocketAddr>,
    /// Its tenants folder, or the path of its only tenant. Earlier versions do not say.
    #[serde(default)]
    pub tenants: Option<PathBuf>,
    /// Whether it has only one tenant (`tenantd run`).
    #[serde(default)]
    pub is_single_tenant: bool,
    /// Its state folder.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// Scheme and host of the identity provider.
    #[serde(default)]
    pub login_authority: Option<String>,
    /// The setting `backend_allow`. Earlier versions do not send it.
    #[serde(default)]
    pub backend_allow: Vec<String>,
    /// The setting `backend_only`. Earlier versions do not send it.
    #[serde(default)]
    pub backend_only: Vec<String>,
    /// What else tenants' files are judged by. Earlier versions do not send it.
    #[serde(default)]
    pub tenant_rules: Option<TenantRules>,
}

/// The settings that decide which tenants' files are accepted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TenantRules {
    /// The settings `require_auth` and `open_tenants`.
    pub open_tenants: OpenTenants,
    /// The setting `private_networks`, each as `ADDRESS/LENGTH`.
    pub private_networks: Vec<String>,
    /// The setting `zip_hosts`.
    pub zip_hosts: ZipHosts,
    /// The setting `secret_root`, as absolute paths.
    pub secret_roots: Vec<PathBuf>,
    /// The setting `tenant_listeners`; a gateway of an earlier version allows none.
    #[serde(default)]
    pub tenant_listeners: Vec<String>,
    /// The setting `confine_tenants`.
    pub confine_tenants: bool,
    /// The setting `limits.request_memory_mib`, which bounds a tenant's `max_request`.
    pub request_memory_mib: usize,
}

impl TenantRules {
    /// Returns the rules that these settings contain.
    pub fn from_settings(settings: &Settings) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self {
            open_tenants: settings.open_tenants,
            private_networks: settings.private_networks.iter().map(ToString::to_string).collect(),
            zip_hosts: settings.zip_hosts,
            secret_roots: settings.secret_roots.iter().map(absolute).collect(),
            tenant_listeners: settings.tenant_listeners.ranges().iter().map(ToString::to_string).collect(),
            confine_tenants: settings.confine_tenants,
            request_memory_mib: settings.limits.request_memory_mib,
        }
    }

    /// Replaces the rules of other settings by these.
    pub fn apply_to(&self, settings: &mut Settings) {
        settings.open_tenants = self.open_tenants;
        settings.private_networks =
            self.private_networks.iter().filter_map(|network| network.parse().ok()).collect();
        settings.zip_hosts = self.zip_hosts;
        settings.secret_roots = self.secret_roots.clone();
        settings.tenant_listeners = TenantListeners::new(
            self.tenant_listeners.iter().filter_map(|range| ListenerRange::parse(range)).collect(),
        );
        settings.confine_tenants = self.confine_tenants;
        settings.limits.request_memory_mib = self.request_memory_mib;
    }
}

impl Admin {
    /// Returns what the gateway says of itself.
    fn describe_gateway(&self) -> GatewayInfo {
        let in_force = self.settings.load();
        let hosts = in_force.settings.hosts.iter().map(ToString::to_string).collect();
        let request_memory_mib = in_force.settings.limits.request_memory_mib;
        let rules = self.info.tenant_rules.clone();
        let tenant_rules = rules.map(|rules| TenantRules { request_memory_mib, ..rules });
        GatewayInfo { hosts, tenant_rules, ..self.info.clone() }
    }

    /// Serves until the process ends, since probes need answers while the gateway drains.
    pub fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        let (tasks, listener) = (admin.tasks.clone(), Arc::new(listener));
        let accepting = move || accept_connections(Arc::clone(&admin), Arc::clone(&listener));
        tasks.spawn_detached("admin", tasks.supervise("admin", accepting));
    }
}

async fn accept_connections(admin: Arc<Admin>, listener: Arc<TcpListener>) {
    let limiter = EvictingLimiter::new(MAX_CONNECTIONS, MAX_CONNECTIONS);
    let count_failure = || admin.metrics.record_refused_connection("accept_error");
    let gate = admin.tasks.accept_gate();
    let mut acceptor = Acceptor::new(listener, gate, Arc::clone(&admin.clock), count_failure);
    loop {
        let permit = limiter.acquire(|| admin.metrics.record_refused_connection("admin_gave_way")).await;
        let (stream, peer) = acceptor.accept().await;
        let activity = Arc::new(ConnectionActivity::default());
        let Some(permit) = limiter.admit(permit, peer.ip(), Arc::clone(&activity)) else { continue };
        let connection_admin = Arc::clone(&admin);
        admin.tasks.spawn_detached("admin connection", async move {
            tokio::select! {
                () = serve_connection(&connection_admin, stream, peer, &activity) => {}
                () = permit.evicted() => {}
            }
        });
    }
}

async fn serve_connection(admin: &Admin, stream: TcpStream, peer: SocketAddr, activity: &ConnectionActivity) {
    let ends = Ends::new(&stream, peer);
    match &admin.tls {
        None => serve_stream(admin, stream, ends, activity).await,
        // A client that does not manage the handshake is no news.
        Some(config) => {
            if let Ok(stream) = tls::accept(Arc::clone(config), stream).await {
                serve_stream(admin, stream, ends, activity).await;
            }
        }
    }
}

async fn serve_stream<S>(admin: &Admin, stream: S, ends: Ends, activity: &ConnectionActivity)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let is_unread = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let active_request = activity.begin();
        let is_unread = &is_unread;
        async move {
            let (head, mut body) = request.into_parts();
            let response = permits::handle(admin, Request::from_parts(head, &mut body), ends).await;
            is_unread.store(!body.is_end_stream(), Ordering::Relaxed);
            drop(active_request);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off is no news, and one that lingers is cut.
    let _ended = tokio::time::timeout(CONNECTION_DEADLINE, &mut connection).await;
    let stream = connection.into_parts().io.into_inner();
    // It waits for its client meanwhile, so it gives way like any that does.
    if is_unread.into_inner() {
        linger::over(stream, || 1).await;
    }
}

/// Binds the admin listener, or takes the socket on its address that was inherited.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match inherited_sockets::take(address) {
        Some(inherited) => TcpListener::from_std(inherited),
        None => TcpListener::bind(address).await,
    }
}
