//! Floor 5: the public edge. Bytes in, a dispatched request, bytes out.
//!
//! [`Listeners::bind`] binds the sockets, [`Server::new`] takes the handles, [`Server::serve`]
//! starts accepting. `tenant_listeners` opens and closes those of single tenants. A request passes
//! these steps, each in a file of its own: `listener` (permit, per-IP count) → `proxy_protocol`
//! (where the listener wants it) → `tls` (handshake deadline) → `connection` (HTTP/1.1 or HTTP/2 by
//! ALPN, deadlines, graceful drain) → `dispatch` (has `precheck` refuse malformed and ambiguous
//! requests, and finds the one tenant that owns the path) → `mcp_endpoint`, `oauth_endpoint` or
//! `page` → `response` (headers common to every response). The handlers are functions over
//! [`Server`], which holds what they share. `trusted_proxies` says from which address a request
//! comes. `health` answers probes before any of that.
//!
//! The edge guarantees that no client input ends the process, holds a connection forever or reaches
//! a tenant that does not own the path; that a panic in a handler becomes a 500; and that no
//! response carries a secret. `crate::mcp` decides what a tenant answers, `crate::oauth` who may
//! call, `crate::tenants` which tenants exist.
//!
//! HTTP: RFC 9110 (semantics), 9112 (HTTP/1.1), 9113 (HTTP/2), 9457 (problem documents), and the
//! Fetch standard (CORS).

mod body;
mod budgets;
mod connection;
mod connection_limits;
mod cors;
mod dispatch;
pub(crate) mod forwarded;
mod health;
mod html;
mod http_redirect;
mod http_span;
mod listener;
mod live_settings;
mod mcp_endpoint;
mod oauth_endpoint;
mod page;
pub(crate) mod precheck;
mod proxy_protocol;
mod request;
mod response;
mod revocable;
mod tenant_listeners;
#[cfg(test)]
mod tests;
mod tls;
mod trusted_proxies;

pub use listener::{BindError, Listeners};

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use self::budgets::MemoryBudgets;
use self::connection_limits::ConnectionLimiter;
use self::live_settings::LiveSettings;
use self::tenant_listeners::OpenListeners;
use crate::base::clock::Clock;
use crate::base::log_limiter::LogLimiter;
use crate::base::sockets::SocketPool;
use crate::base::task::Tasks;
use crate::certs::{Certificates, ChallengeServer};
use crate::settings::{OpenTenants, Settings};
use crate::spec::TenantListeners;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Tracer;
use crate::tenants::registry::Registry;

/// How often to look whether connections that were asked to end have done so.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What the edge depends on.
#[derive(Clone)]
pub struct ServerDeps {
    /// The tenants' routing table.
    pub registry: Registry,
    /// Counts connections, requests and refusals.
    pub metrics: Arc<Metrics>,
    /// The clock; tests have their own.
    pub clock: Arc<dyn Clock>,
    /// Owns the tasks of listeners and connections, and signals the drain.
    pub tasks: Tasks,
    /// The audit log, for refused calls.
    pub audit: Audit,
    /// Starts the spans of steps of a login.
    pub tracer: Tracer,
    /// Without certificates, the listeners speak plain HTTP/1.1.
    pub certificates: Option<Arc<Certificates>>,
    /// The sockets of tenants' listeners.
    pub sockets: Arc<SocketPool>,
}

/// The public edge of one gateway: what all its connections and requests share.
pub struct Server {
    registry: Registry,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    audit: Audit,
    tracer: Tracer,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// The TLS configuration that answers TLS-ALPN-01 challenges.
    acme_challenge_tls: Option<ChallengeServer>,
    certificates: Option<Arc<Certificates>>,
    /// Asks the connections that were accepted so far to end.
    closing: ArcSwap<CancellationToken>,
    connection_limiter: ConnectionLimiter,
    budgets: MemoryBudgets,
    live: ArcSwap<LiveSettings>,
    allowed_origins: Vec<String>,
    open_tenants: OpenTenants,
    /// `Strict-Transport-Security`, sent on every response except under a placeholder certificate.
    hsts: Option<HeaderValue>,
    /// Limits the log line about failed handshakes.
    handshake_log_limiter: LogLimiter,
    /// Limits the log line about connections without a PROXY protocol header.
    proxy_protocol_log_limiter: LogLimiter,
    /// The sockets of tenants' listeners, which the reconciler binds before it counts on them.
    sockets: Arc<SocketPool>,
    allowed_tenant_listeners: TenantListeners,
    tenant_listeners: OpenListeners,
}

impl Server {
    /// Builds the edge. It serves nothing before [`Server::serve`].
    pub fn new(settings: &Settings, deps: ServerDeps) -> Arc<Self> {
        let limits = &settings.limits;
        let certificates = deps.certificates.as_ref();
        Arc::new(Self {
            registry: deps.registry,
            connection_limiter: ConnectionLimiter::new(limits, Arc::clone(&deps.metrics)),
            budgets: MemoryBudgets::new(limits, &deps.metrics),
            metrics: deps.metrics,
            clock: deps.clock,
            closing: ArcSwap::from_pointee(deps.tasks.shutdown_signal().child_token()),
            tasks: deps.tasks,
            audit: deps.audit,
            tracer: deps.tracer,
            tls: certificates.map(|certificates| tls::server_config(certificates.resolver())),
            acme_challenge_tls: certificates.and_then(|certificates| certificates.challenge_server()),
            certificates: deps.certificates,
            live: ArcSwap::from_pointee(LiveSettings::new(settings)),
            allowed_origins: settings.allowed_origins.clone(),
            open_tenants: settings.open_tenants,
            hsts: settings.hsts.map(response::strict_transport_security),
            handshake_log_limiter: LogLimiter::new(Duration::from_secs(1)),
            proxy_protocol_log_limiter: LogLimiter::new(Duration::from_secs(60)),
            sockets: deps.sockets,
            allowed_tenant_listeners: settings.tenant_listeners.clone(),
            tenant_listeners: OpenListeners::default(),
        })
    }

    /// Takes over the settings that may change while the gateway runs. Connections that are open
    /// end if other proxies are trusted now: who may speak for others was decided when they began.
    pub fn apply_settings(&self, settings: &Settings) {
        let live = LiveSettings::new(settings);
        self.connection_limiter.set_limits(&live.limits);
        self.budgets.set_limits(&live.limits);
        let previous = self.live.swap(Arc::new(live));
        if !previous.trusted_proxies.is_same_as(settings) {
            self.close_connections();
        }
    }

    /// Asks all connections to end once their requests are answered. Those that come later are
    /// served as ever.
    pub fn close_connections(&self) {
        self.closing.swap(Arc::new(self.tasks.shutdown_signal().child_token())).cancel();
    }

    /// Waits until no connection waits for its client's next request, at most so long.
    pub async fn wait_until_busy_only(&self, at_most: Duration) {
        let ending = async {
            while self.connection_limiter.has_waiting() {
                tokio::time::sleep(IDLE_POLL_INTERVAL).await;
            }
        };
        let _late = tokio::time::timeout(at_most, ending).await.is_err();
    }

    /// Starts accepting on every socket, until the soft signal of the edge's tasks. Connections
    /// then finish their requests in flight; `Tasks::drain` sets the deadline for that.
    pub fn serve(self: &Arc<Self>, listeners: Listeners) {
        for (socket, info) in listeners.into_sockets() {
            let (server, info) = (Arc::clone(self), Arc::new(info));
            let accepting = listener::accept_loop(server, socket, info, "connection", connection::serve);
            self.tasks.spawn("listener", self.tasks.supervise("listener", accepting));
        }
        let server = Arc::clone(self);
        let following = move || tenant_listeners::follow_tenants(Arc::clone(&server));
        self.tasks.spawn("tenants' listeners", self.tasks.supervise("tenants' listeners", following));
    }

    /// Starts answering on the plain listeners. Redirects lead to the port `https_port`.
    pub fn serve_http_redirect(self: &Arc<Self>, listeners: Listeners, https_port: u16) {
        for (socket, info) in listeners.into_sockets() {
            let serve =
                move |server, stream, peer, _, _| http_redirect::serve(server, stream, peer, https_port);
            let accepting =
                listener::accept_loop(Arc::clone(self), socket, Arc::new(info), "plain connection", serve);
            self.tasks.spawn("plain listener", self.tasks.supervise("plain listener", accepting));
        }
    }
}
