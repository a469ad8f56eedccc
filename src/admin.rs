//! Floor 5: the second listener, for operators and probes: health, metrics, tenants, reload, a status page.
//!
//! It speaks plain HTTP/1.1 and belongs on loopback or a management network. Its Host header must be an address or
//! `localhost`, so that no web page can reach it by rebinding a name; what changes anything refuses browsers, and
//! whoever is not on this machine.
//!
//! Probes are always answered, whoever else asks for what and however slowly: an orchestrator that hears nothing ends the
//! process. Connections that wait for their client give way to new ones, and requests that are no probes never take all
//! places.

mod account;
mod api;
mod clients;
mod keys;
mod orders;
mod page;
mod reply;
mod request;
mod state;
mod turns;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use self::account::Ends;
use self::turns::Talk;
pub use self::turns::Turns;

use crate::base::accept::Acceptor;
use crate::base::clock::Clock;
use crate::base::linger;
use crate::base::places::Places;
use crate::base::task::Tasks;
use crate::certs::Certificates;
use crate::settings::TlsMode;
use crate::store::Store;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::tenants::Reconciler;
use crate::tenants::registry::Registry;

/// Operators and probes need few connections; a flood of them must not eat the gateway's. More than there are
/// [turns] for what is no probe.
const CONNECTIONS: usize = 64;
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// An answer or an idle connection that takes longer is cut. An order of a certificate may take five minutes.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(330);

/// The admin interface of one gateway.
pub struct Admin {
    pub registry: Registry,
    pub reconciler: Reconciler,
    pub certificates: Arc<Certificates>,
    pub metrics: Arc<Metrics>,
    pub audit: Audit,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    /// What outlives the process, if anything does.
    pub store: Option<Arc<Store>>,
    pub turns: Turns,
    pub about: About,
}

/// What a gateway says of itself, so that `check` can judge as it does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct About {
    pub version: String,
    /// What tenants' URLs begin with.
    pub public_base: String,
    pub hosts: Vec<String>,
    pub tls: TlsMode,
    /// Where its certificates are. Earlier versions do not say.
    #[serde(default)]
    pub certs: Option<PathBuf>,
    /// Which addresses backends may have: the settings of these names. A gateway of an earlier version says nothing of them.
    #[serde(default)]
    pub backend_allow: Vec<String>,
    #[serde(default)]
    pub backend_only: Vec<String>,
}

impl Admin {
    /// Serves until the gateway is drained; probes want an answer until the very end.
    pub fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        let (tasks, listener) = (admin.tasks.clone(), Arc::new(listener));
        let accepting = move || Arc::clone(&admin).accept(Arc::clone(&listener));
        tasks.spawn_detached("admin", tasks.supervised("admin", accepting));
    }

    async fn accept(self: Arc<Self>, listener: Arc<TcpListener>) {
        let places = Places::new(CONNECTIONS, CONNECTIONS);
        let mut acceptor = Acceptor::new(listener, Arc::clone(&self.clock), Arc::clone(&self.metrics));
        loop {
            let permit = places.permit(|| self.metrics.connection_refused("admin_gave_way")).await;
            let (stream, peer) = acceptor.accept().await;
            let talk = Arc::new(Talk::default());
            let Some(place) = places.admit(permit, peer.ip(), Arc::clone(&talk)) else { continue };
            let admin = Arc::clone(&self);
            self.tasks.spawn_detached("admin connection", async move {
                tokio::select! {
                    () = admin.converse(stream, peer, &talk) => {}
                    () = place.taken_away() => {}
                }
            });
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, talk: &Talk) {
        let ends = Ends::of(&stream, peer);
        let is_unread = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            let (admin, answering) = (Arc::clone(&self), talk.begin());
            let is_unread = &is_unread;
            async move {
                let (head, mut body) = request.into_parts();
                let answer = admin.answer_in_turn(Request::from_parts(head, &mut body), ends).await;
                is_unread.store(!body.is_end_stream(), Ordering::Relaxed);
                drop(answering);
                Ok::<_, Infallible>(answer)
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
}

/// Binds the admin listener.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
