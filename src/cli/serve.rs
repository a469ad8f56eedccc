//! `tenantd serve`: the gateway, until it is asked to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::settings::Settings;

/// Where the gateway serves, once it does.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    /// `https://host[:port]`, no slash at its end.
    pub(super) public_base: String,
    /// The certificate of the local CA, in self-signed mode.
    pub(super) ca: Option<PathBuf>,
}

/// Serves until a signal ends it.
pub(super) fn run(settings: Settings) -> anyhow::Result<()> {
    run_announced(settings, |_| {})
}

/// Serves until a signal ends it; `on_ready` is told the addresses once connections are taken.
pub(super) fn run_announced(
    settings: Settings,
    on_ready: impl FnOnce(&Addresses) + Send + 'static,
) -> anyhow::Result<()> {
    // The integrator puts `gateway::run` here.
    let addresses = Addresses {
        listen: settings.listen.clone(),
        admin: settings.admin,
        public_base: settings.public_base(settings.listen[0]),
        ca: Some(settings.certs.join(crate::certs::LOCAL_CA_FILE)),
    };
    on_ready(&addresses);
    anyhow::bail!("the gateway is not wired yet ({} listeners)", addresses.listen.len())
}
