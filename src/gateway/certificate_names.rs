//! The host names that need certificates: those of the settings and of published tenants, never one
//! that a client merely asks for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::net;
use crate::base::task::Tasks;
use crate::certs::Certificates;
use crate::settings::{AdminTls, Settings, TlsMode};
use crate::spec::HostName;
use crate::tenants::registry::Registry;

/// Returns the gateway's own names, most important first: its hosts, explicit listener addresses,
/// and the names of the admin listener if that has the gateway's certificates.
pub(super) fn own(settings: &Settings) -> Vec<HostName> {
    // A public CA is asked only for addresses reachable from the internet; operators can list
    // others as hosts.
    let by_ca = settings.tls == TlsMode::Acme;
    let fit = |ip: &IpAddr| !ip.is_unspecified() && (!by_ca || net::is_global(*ip));
    let said = settings.listen.iter().map(|listen| listen.address.ip()).filter(fit).filter_map(host);
    let admin =
        settings.admin_access.hosts.iter().filter(|_| settings.admin_access.tls == Some(AdminTls::Gateway));
    let own = settings.hosts.iter().cloned().chain(said).chain(own_public_address(settings));
    let mut own: Vec<_> = own.chain(admin.cloned()).collect();
    let mut seen = BTreeSet::new();
    own.retain(|host| seen.insert(host.clone()));
    own
}

/// Keeps the wanted certificates in step with the settings and the published tenants.
pub(super) fn follow_tenants(
    own: watch::Receiver<Arc<Vec<HostName>>>,
    registry: &Registry,
    certificates: &Arc<Certificates>,
    tasks: &Tasks,
) {
    let (registry, certificates) = (registry.clone(), Arc::clone(certificates));
    let stop = tasks.shutdown_signal().clone();
    let following = move || want_hosts(own.clone(), registry.clone(), certificates.clone(), stop.clone());
    tasks.spawn("wanted hosts", tasks.supervise("wanted hosts", following));
}

async fn want_hosts(
    mut own: watch::Receiver<Arc<Vec<HostName>>>,
    registry: Registry,
    certificates: Arc<Certificates>,
    stop: CancellationToken,
) {
    let mut generation = registry.subscribe_generation();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = generation.changed() => if changed.is_err() { return },
            changed = own.changed() => if changed.is_err() { return },
        }
        let own = Arc::clone(&own.borrow_and_update());
        let table = registry.load();
        let tenants: BTreeSet<_> = table.tenant_hosts().filter(|host| !own.contains(host)).cloned().collect();
        certificates.set_wanted_hosts(own.iter().cloned().chain(tenants).collect());
    }
}

/// Returns this machine's public address, for ACME when no host is configured. Behind NAT there is
/// none, and the operator must configure it.
fn own_public_address(settings: &Settings) -> Option<HostName> {
    let nameless = settings.hosts.iter().all(|host| host.as_str() == "localhost");
    if settings.tls != TlsMode::Acme || !nameless {
        return None;
    }
    let own = net::outbound_ipv4()?;
    if !net::is_global(own) {
        tracing::warn!(
            %own, "no host is set and this machine has no public address, so there is no name for a \
                   certificate: give its name or public address with --host"
        );
        return None;
    }
    host(own)
}

fn host(address: IpAddr) -> Option<HostName> {
    match address {
        IpAddr::V4(ip) => HostName::parse(&ip.to_string()),
        IpAddr::V6(ip) => HostName::parse(&format!("[{ip}]")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn orders_are_placed_for_public_addresses_only() {
        let names = |tls: TlsMode, listen: &str| {
            let listen = vec![listen.parse::<SocketAddr>().expect("an address").into()];
            let hosts = vec![HostName::parse("mcp.example.com").expect("a name")];
            let settings = Settings { tls, listen, hosts, ..Settings::default() };
            own(&settings).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(TlsMode::Acme, "8.8.8.8:443"), ["mcp.example.com", "8.8.8.8"]);
        assert_eq!(names(TlsMode::Acme, "[2606:4700::1]:443"), ["mcp.example.com", "[2606:4700::1]"]);
        assert_eq!(names(TlsMode::Acme, "127.0.0.1:443"), ["mcp.example.com"]);
        assert_eq!(names(TlsMode::SelfSigned, "127.0.0.1:443"), ["mcp.example.com", "127.0.0.1"]);
        assert_eq!(names(TlsMode::SelfSigned, "0.0.0.0:443"), ["mcp.example.com"]);
    }
}
