//! One gateway in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::API_KEY;
use crate::process::{self, Server};

/// The gateway, built by cargo in this bench's own profile.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tenantd");

/// One certificate for all gateways, and the folder that contains it and its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    folder: TempDir,
}

/// A running gateway with the tenants `tenant-0`, `tenant-1` and so on.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) cold_start: Duration,
    folder: TempDir,
    tenant: String,
    /// The number of tenants created so far.
    count: std::cell::Cell<usize>,
}

impl Identity {
    pub(crate) fn make() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let file = folder.path().join("localhost.pem");
        fs::write(&file, format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()))?;
        process::make_private(&file)?;
        Ok(Self { certificate: made.cert.der().clone(), folder })
    }
}

impl Site {
    /// Starts the real binary with real tenants, all its checks, and no flag that a deployment
    /// would not have.
    pub(crate) fn start(count: usize, backend: SocketAddr, identity: &Identity) -> Result<Self> {
        Self::start_with(count, backend, identity, "")
    }

    /// The same with lines that all tenants have.
    pub(crate) fn start_with(
        count: usize,
        backend: SocketAddr,
        identity: &Identity,
        lines: &str,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tenant = format!(
            "search_url: http://{backend}/nlp-search\n\
             context_url: http://{backend}/nlp-context\n\
             api_key: {API_KEY}\n\
             connection_id: bench\n{lines}"
        );
        let in_folder = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(in_folder("tenants.d"))?;
        for number in 0..count {
            fs::write(folder.path().join(format!("tenants.d/tenant-{number}.yaml")), &tenant)?;
        }
        let (server, cold_start) = launch(folder.path(), identity)?;
        Ok(Self { server, cold_start, folder, tenant, count: std::cell::Cell::new(count) })
    }

    /// Stops the gateway, does something with its state folder, and starts it again.
    pub(crate) fn restart_after(
        self,
        identity: &Identity,
        act: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let Self { server, folder, tenant, count, .. } = self;
        drop(server);
        act(&folder.path().join("state"))?;
        fs::remove_file(folder.path().join("ready.json"))?;
        let (server, cold_start) = launch(folder.path(), identity)?;
        Ok(Self { server, cold_start, folder, tenant, count })
    }

    /// Returns the address of the admin listener.
    pub(crate) fn admin(&self) -> Result<SocketAddr> {
        let ready: serde_json::Value =
            serde_json::from_slice(&fs::read(self.folder.path().join("ready.json"))?)?;
        Ok(ready["admin"].as_str().context("it has one")?.parse()?)
    }

    /// Renames one more tenant into place. Returns its number and the time.
    pub(crate) fn add(&self) -> Result<(usize, Instant)> {
        let number = self.count.replace(self.count.get() + 1);
        let draft = self.folder.path().join("draft.yaml");
        fs::write(&draft, &self.tenant)?;
        let begun = Instant::now();
        fs::rename(draft, self.file(number))?;
        Ok((number, begun))
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("tenants.d/tenant-{number}.yaml"))
    }
}

/// Starts the real binary on what is in a folder. Returns how long that took, too.
fn launch(folder: &Path, identity: &Identity) -> Result<(Server, Duration)> {
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let certs = identity.folder.path().display().to_string();
    #[rustfmt::skip]
    let arguments = [
        "serve",
        "--tenants", &in_folder("tenants.d"), "--state", &in_folder("state"), "--certs", &certs,
        "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--host", "localhost", "--tls", "manual",
        "--backend-allow", "127.0.0.0/8", "--ready-file", &in_folder("ready.json"),
    ];
    let begun = Instant::now();
    let server =
        Server::gateway(GATEWAY, &arguments, &folder.join("ready.json"), &folder.join("gateway.log"))?;
    Ok((server, begun.elapsed()))
}
