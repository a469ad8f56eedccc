//! `tenantd demo`: a gateway with two sample tenants and the API behind them, on this machine only.
//!
//! Everything is real but the data: the exports are zips as a portal makes them, the API answers
//! over HTTP, and the gateway is the one that `serve` runs.

mod announcement;
mod answer;
mod dataset;
mod folder;
mod question;
mod sample_api;
mod words;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, bail};

use self::folder::DemoFolder;
use super::admin_client::AdminClient;
use super::args::DemoArgs;
use super::serve::{self, Announcer};
use super::{Exit, output};
use crate::base::diagnostic::Report;
use crate::gateway::Addresses;
use crate::settings::Settings;
use crate::store;
use crate::tenants::status::{TenantState, TenantStatus};

/// The number of checks whether the first tenants are loaded; then they are announced as they are.
const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the demo until it is stopped.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    port_is_free(listen)?;
    let folder = DemoFolder::prepare(args.dir.as_deref())?;
    folder_is_free(&folder)?;
    let api = sample_api::start().context("the sample API cannot be started")?;
    folder.write_exports(api).context("the sample exports cannot be written")?;
    let settings = settings(&folder, listen, args.admin);
    serve::run_announced(settings, &Report::new(), DemoAnnouncer(folder))
}

/// Announces the demo once it serves.
struct DemoAnnouncer(DemoFolder);

impl Announcer for DemoAnnouncer {
    async fn on_ready(self, addresses: &Addresses) {
        announce_soon(addresses.clone(), self.0);
    }
}

fn settings(folder: &DemoFolder, listen: SocketAddr, admin: SocketAddr) -> Settings {
    Settings {
        tenants: folder.tenants(),
        state: folder.state(),
        certs: folder.certs(),
        listen: vec![listen.into()],
        admin: Some(admin),
        backend_allow: vec!["127.0.0.0/8".parse().expect("a network")],
        ..Settings::default()
    }
}

/// Returns an error if the port is taken, before anything is written, in the vendor's words, which
/// people search for.
fn port_is_free(address: SocketAddr) -> anyhow::Result<()> {
    let port = address.port();
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "Port {port} already in use; stop the program that uses it (another demo?), or choose another \
             with --port {}",
            port.checked_add(1).unwrap_or(8443)
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("only root can use port {port}; choose one above 1023 with --port 8443")
        }
        Err(error) => Err(error).with_context(|| format!("port {port} cannot be used")),
    }
}

/// Fails if another demo uses the folder, before its exports are overwritten, and names the flag
/// that the demo has for it.
fn folder_is_free(folder: &DemoFolder) -> anyhow::Result<()> {
    match store::is_free(&folder.state()) {
        Err(store::Error::InUse { pid, .. }) => bail!(
            "the demo's folder {} is in use by another demo, process {pid}; stop that one, or give this one \
             another folder with --dir",
            folder.root.display()
        ),
        _ => Ok(()),
    }
}

/// Prints the announcement on its own thread: it waits for the gateway, which must not wait for it.
fn announce_soon(addresses: Addresses, folder: DemoFolder) {
    let announce = move || {
        let tenants = addresses.admin.map(|admin| served(&AdminClient::new(admin))).unwrap_or_default();
        let text = announcement::text(&tenants, &addresses, &folder, &program());
        // A closed terminal does not stop the demo.
        let _ = output::print(&text);
    };
    let _detached = std::thread::spawn(announce);
}

/// Returns how this program was called, so that the lines to paste also work under `cargo run`.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "tenantd".to_owned())
}

/// Waits until both tenants are loaded, up to [`ROUNDS`] checks. Returns their statuses.
fn served(admin: &AdminClient) -> Vec<TenantStatus> {
    let mut tenants = Vec::new();
    for _ in 0..ROUNDS {
        tenants = admin.tenants().unwrap_or_default();
        let loaded = |tenant: &TenantStatus| tenant.state != TenantState::Loading;
        if tenants.len() >= 2 && tenants.iter().all(loaded) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    tenants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_in_the_vendors_words() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = port_is_free(address).expect_err("it is taken").to_string();
        assert!(error.starts_with(&format!("Port {} already in use", address.port())), "{error}");
        drop(taken);
        port_is_free(address).expect("it is free again");
    }

    #[test]
    fn a_folder_in_use_is_said_with_the_demos_own_flag() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = DemoFolder::prepare(Some(temporary.path())).expect("made");
        folder_is_free(&folder).expect("nobody has it");
        let _open = store::Store::open(&folder.state(), &store::KeySource::State).expect("opened");
        let error = folder_is_free(&folder).expect_err("it is in use").to_string();
        assert!(error.contains("--dir") && error.contains(&std::process::id().to_string()), "{error}");
        assert!(!error.contains("--state"), "{error}");
    }

    #[test]
    fn the_demo_stays_on_this_machine() {
        let folder = DemoFolder { root: "/tmp/x".into() };
        let settings = settings(&folder, ([127, 0, 0, 1], 8443).into(), ([127, 0, 0, 1], 0).into());
        assert!(
            settings
                .listen
                .iter()
                .map(|listen| listen.address)
                .chain(settings.admin)
                .all(|address| address.ip().is_loopback())
        );
        assert_eq!(settings.public_base(settings.listen[0].address), "https://localhost:8443");
    }
}
