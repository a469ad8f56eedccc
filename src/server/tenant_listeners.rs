//! The listeners of single tenants (`listen:` in their files), which open and close with them.
//!
//! The task follows the routing table. An address that cannot be bound is that tenant's trouble: it
//! is said in its status and tried again, and no other tenant is affected. Connections of a
//! listener that closes finish the requests in flight.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::request::ListenerInfo;
use super::{Server, connection, listener};
use crate::base::sync::lock;
use crate::spec::Degradation;
use crate::tenants::registry::RoutingTable;

/// When to try again to bind an address.
const RETRY: Duration = Duration::from_secs(1);

/// The listeners that are open, by address.
pub(super) type OpenListeners = Mutex<HashMap<SocketAddr, Arc<ListenerInfo>>>;

/// Keeps the open listeners in step with the tenants until the gateway drains.
pub(super) async fn follow_tenants(server: Arc<Server>) {
    let mut generation = server.registry.subscribe_generation();
    loop {
        generation.mark_unchanged();
        let is_complete = update(&server);
        tokio::select! {
            () = server.tasks.shutdown_signal().cancelled() => return,
            changed = generation.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !is_complete => {}
        }
    }
}

/// Opens and closes listeners. Returns whether all that tenants want are open.
fn update(server: &Arc<Server>) -> bool {
    let table = server.registry.load();
    let wanted: BTreeSet<SocketAddr> = table.router.listeners().collect();
    close_unwanted(server, &wanted);
    let mut is_complete = true;
    for address in wanted {
        if lock(&server.tenant_listeners).contains_key(&address) {
            continue;
        }
        let reason = open(server, address).err().map(|error| describe(address, &error));
        is_complete &= reason.is_none();
        tell_tenants(server, &table, address, reason.as_deref());
    }
    is_complete
}

fn close_unwanted(server: &Server, wanted: &BTreeSet<SocketAddr>) {
    lock(&server.tenant_listeners).retain(|address, listener| {
        let is_wanted = wanted.contains(address);
        if !is_wanted {
            tracing::info!(listener = %address, "no tenant has this listener any more; it is closed");
            listener.closed.cancel();
            server.sockets.release(*address);
        }
        is_wanted
    });
    server.sockets.close_unwanted(|address| wanted.contains(address));
}

fn open(server: &Arc<Server>, address: SocketAddr) -> io::Result<()> {
    let socket = server.sockets.take(address)?;
    let info = Arc::new(ListenerInfo {
        tenants: Some(address),
        proxy_protocol: server.allowed_tenant_listeners.has_proxy_protocol(address),
        ..ListenerInfo::default()
    });
    lock(&server.tenant_listeners).insert(address, Arc::clone(&info));
    tracing::info!(listener = %address, "a tenant's listener is open");
    let accepting = listener::accept_loop(Arc::clone(server), socket, info, "connection", connection::serve);
    server.tasks.spawn("tenant listener", server.tasks.supervise("tenant listener", accepting));
    Ok(())
}

fn describe(address: SocketAddr, error: &io::Error) -> String {
    format!("the tenant's listener {address} cannot be opened: {error}; the gateway tries again")
}

/// Says in the status of each tenant on this listener whether it is open.
fn tell_tenants(server: &Server, table: &RoutingTable, address: SocketAddr, reason: Option<&str>) {
    let since = server.clock.now();
    let tenants = table.entries.values().filter_map(|entry| entry.tenant.as_ref());
    for tenant in tenants.filter(|tenant| tenant.spec.listener() == Some(address)) {
        let degradation = reason.map(|reason| Degradation { reason: reason.to_owned(), since });
        if tenant.slot.set_listener_state(address, degradation) {
            let text = reason.unwrap_or("the tenant's listener is open now");
            tracing::warn!(tenant = tenant.spec.name.as_str(), "{text}");
        }
    }
}
