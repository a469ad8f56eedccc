//! The addresses of a serving gateway, logged and written to the ready file.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::net::TcpListener;

use super::Error;
use crate::base::disk;
use crate::certs::LOCAL_CA_FILE;
use crate::settings::{Settings, TlsMode};

/// The bound addresses, with port 0 resolved.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// The public listeners.
    pub listen: Vec<SocketAddr>,
    /// The listeners for plain HTTP.
    pub listen_http: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: Option<SocketAddr>,
    /// The base of tenants' public URLs, `https://host[:port]`.
    pub public_base: String,
    /// In self-signed mode, the CA certificate that clients must trust.
    pub ca: Option<PathBuf>,
}

impl Addresses {
    /// Collects the addresses of the bound listeners.
    pub(super) fn new(
        settings: &Settings,
        listen: &[SocketAddr],
        listen_http: &[SocketAddr],
        admin: Option<&TcpListener>,
    ) -> Self {
        Self {
            listen: listen.to_vec(),
            listen_http: listen_http.to_vec(),
            admin: admin.and_then(|listener| listener.local_addr().ok()),
            public_base: settings.public_base(listen[0]),
            ca: (settings.tls == TlsMode::SelfSigned).then(|| settings.certs.join(LOCAL_CA_FILE)),
        }
    }

    /// Returns the port that clients use, which differs from ours where another port is forwarded
    /// to it.
    pub(super) fn public_port(&self) -> u16 {
        let base = url::Url::parse(&self.public_base).ok();
        base.and_then(|base| base.port_or_known_default()).unwrap_or(self.listen[0].port())
    }

    /// Announces in the log and in the ready file that the gateway serves.
    pub(super) fn announce(&self, ready_file: Option<&Path>) -> Result<(), Error> {
        let listen = self.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let admin = self.admin.map_or("off".to_owned(), |address| address.to_string());
        tracing::info!(listen, admin, public_base = self.public_base, "serving");
        let Some(path) = ready_file else { return Ok(()) };
        self.write(path).map_err(|cause| Error::ReadyFile { path: path.to_owned(), cause })
    }

    /// Writes the ready file atomically, so that a waiting process never reads a partial one.
    fn write(&self, file: &Path) -> io::Result<()> {
        disk::replace(file, &serde_json::to_vec(self)?, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_clients_are_sent_to_the_port_that_is_public() {
        let settings =
            |base: Option<&str>| Settings { public_base: base.map(str::to_owned), ..Settings::default() };
        let bound = ["0.0.0.0:8443".parse().expect("an address")];
        let port = |base| Addresses::new(&settings(base), &bound, &[], None).public_port();
        assert_eq!(port(Some("https://mcp.example.com")), 443, "a container's port is published as another");
        assert_eq!(port(Some("https://mcp.example.com:9443")), 9443);
        assert_eq!(port(None), 8443);
    }

    #[test]
    fn the_ready_file_names_every_address() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("ready.json");
        let addresses = Addresses {
            listen: vec!["127.0.0.1:8443".parse().expect("an address")],
            listen_http: Vec::new(),
            admin: None,
            public_base: "https://localhost:8443".into(),
            ca: Some("certs/local-ca.pem".into()),
        };
        let other = folder.path().join("other");
        std::fs::write(&other, "theirs").expect("written");
        // In a shared folder, another user can predict the name of a draft.
        for name in ["ready.tmp", "ready.json.tmp", "ready.json"] {
            std::os::unix::fs::symlink(&other, folder.path().join(name)).expect("linked");
        }
        addresses.write(&file).expect("writable");
        assert_eq!(std::fs::read_to_string(&other).expect("there"), "theirs", "written through a link");
        let written = std::fs::read_to_string(&file).expect("there");
        assert_eq!(
            written,
            r#"{"listen":["127.0.0.1:8443"],"listen_http":[],"admin":null,"public_base":"https://localhost:8443","ca":"certs/local-ca.pem"}"#
        );
    }
}
