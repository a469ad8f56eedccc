//! A CA on loopback: Debian's `pebble` and `pebble-challtestsrv`, on ports and in a folder of their
//! own.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{PATIENCE, Setup};

pub(crate) const KID: &str = "kid-1";
pub(crate) const EAB_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// The behaviour of the CA.
pub(crate) struct Options {
    pub(crate) validity_seconds: u32,
    /// In percent.
    pub(crate) bad_nonces: u32,
    /// Requires external account binding.
    pub(crate) eab: bool,
    /// The CA validates TLS-ALPN-01 on a port where nothing listens.
    pub(crate) wrong_tls_port: bool,
    pub(crate) slow_validation: bool,
    /// The port on which the CA validates TLS-ALPN-01, if it is not to be a free one.
    pub(crate) tls_port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            validity_seconds: 3600,
            bad_nonces: 5,
            eab: false,
            wrong_tls_port: false,
            slow_validation: false,
            tls_port: None,
        }
    }
}

/// A running CA. Dropping it stops it.
pub(crate) struct Pebble {
    folder: TempDir,
    pub(crate) options: Options,
    port: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    /// The ports on which the CA validates, and so the gateway listens.
    pub(crate) tls_port: u16,
    pub(crate) http_port: u16,
    children: Vec<Child>,
}

impl Pebble {
    pub(crate) async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = free_ports::<6>();
        let [port, management, dns, dns_management, tls_port, http_port] = ports;
        let tls_port = options.tls_port.unwrap_or(tls_port);
        let mut pebble = Self {
            folder,
            options,
            port,
            management,
            dns,
            dns_management,
            tls_port,
            http_port,
            children: Vec::new(),
        };
        pebble.write_certificates();
        pebble.write_configuration();
        let names = Command::new("pebble-challtestsrv")
            .args([
                "-defaultIPv4",
                "127.0.0.1",
                "-defaultIPv6",
                "",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
            ])
            .args([
                "-dns01",
                &format!("127.0.0.1:{dns}"),
                "-management",
                &format!("127.0.0.1:{dns_management}"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv starts; scripts/test.sh installs it (Debian: pebble)");
        pebble.children.push(names);
        pebble.start_again().await;
        pebble
    }

    /// Kills the CA (SIGKILL).
    pub(crate) fn kill(&mut self) {
        let mut pebble = self.children.pop().expect("it runs");
        pebble.kill().expect("killed");
        pebble.wait().expect("ended");
    }

    /// Starts the CA again. It has forgotten accounts and orders.
    pub(crate) async fn start_again(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let mut command = Command::new("pebble");
        command
            .args(["-strict", "-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{}", self.dns)])
            .env("PEBBLE_WFE_NONCEREJECT", self.options.bad_nonces.to_string())
            .env("PEBBLE_AUTHZREUSE", "0")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        match self.options.slow_validation {
            true => command.env("PEBBLE_VA_SLEEPTIME", "15"),
            false => command.env("PEBBLE_VA_NOSLEEP", "1"),
        };
        self.children
            .push(command.spawn().expect("pebble starts; scripts/test.sh installs it (Debian: pebble)"));
        for _ in 0..PATIENCE.as_millis() / 50 {
            if self.client().get(self.directory()).send().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("pebble does not answer:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
    }

    /// Sets the address to which the CA's DNS server resolves a name.
    pub(crate) async fn lead(&self, name: &str, address: &str) {
        // It would have both addresses, and after thirty of them its answer fits no packet.
        self.lead_back(name).await;
        self.tell("add-a", json!({ "host": name, "addresses": [address] })).await;
    }

    /// Resets a name to the default address.
    pub(crate) async fn lead_back(&self, name: &str) {
        self.tell("clear-a", json!({ "host": name })).await;
    }

    /// Sends a command to the CA's DNS server.
    async fn tell(&self, what: &str, body: serde_json::Value) {
        let url = format!("http://127.0.0.1:{}/{what}", self.dns_management);
        let answer = reqwest::Client::new().post(url).body(body.to_string()).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{what}");
    }

    /// Returns the root of the certificates it issues.
    pub(crate) async fn roots(&self) -> CertificateDer<'static> {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let pem = self.client().get(url).send().await.expect("an answer").bytes().await.expect("a root");
        CertificateDer::from_pem_slice(&pem).expect("a certificate")
    }

    /// Returns the number of orders placed so far.
    pub(crate) fn orders(&self) -> usize {
        self.count("orders in the db")
    }

    /// Returns the number of accounts registered so far.
    pub(crate) fn accounts(&self) -> usize {
        self.count("accounts in memory")
    }

    fn count(&self, what: &str) -> usize {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().filter(|line| line.contains("There are now") && line.contains(what)).count()
    }

    /// Returns the port of its ACME API.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns certificate, key and root of its API, for a proxy in front of it.
    pub(crate) fn identity(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let read = |name: &str| fs::read(self.folder.path().join(name)).expect("written at the start");
        (read("srv.pem"), read("srv.key"), read("minica.pem"))
    }

    /// Configures a gateway that uses this CA, with further lines of configuration.
    pub(crate) fn setup(&self, lines: &str) -> Setup {
        self.setup_asking(&self.directory(), lines)
    }

    /// The same with other directories.
    pub(crate) fn setup_asking(&self, directory: &str, lines: &str) -> Setup {
        self.setup_at(directory, &format!("listen_http: 127.0.0.1:{}\n{lines}", self.http_port))
    }

    /// The same without a plain-HTTP listener, unless `lines` configure one.
    pub(crate) fn setup_without_plain(&self, lines: &str) -> Setup {
        self.setup_at(&self.directory(), lines)
    }

    /// The same with other directories, and only these further lines.
    pub(crate) fn setup_at(&self, directory: &str, lines: &str) -> Setup {
        let root = self.root();
        let listen = if self.options.wrong_tls_port { 0 } else { self.tls_port };
        Setup::listening(listen).settings(&format!(
            "tls: acme\naccept_tos: true\nacme_directory: {directory}\nacme_ca_root: {root}\n\
             acme_contact: ops@example.com\n{lines}"
        ))
    }

    /// Returns the path of the root of its API's certificate.
    pub(crate) fn root(&self) -> String {
        self.folder.path().join("minica.pem").display().to_string()
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("pebble.log")
    }

    fn client(&self) -> reqwest::Client {
        let pem = fs::read(self.folder.path().join("minica.pem")).expect("written at the start");
        let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .timeout(PATIENCE)
            .build()
            .expect("a client")
    }

    fn write_certificates(&self) {
        let write =
            |name: &str, text: String| fs::write(self.folder.path().join(name), text).expect("written");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "acme test CA");
        write("minica.pem", ca.self_signed(&ca_key).expect("signed").pem());
        let key = KeyPair::generate().expect("a key");
        let mut server =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::new(ca, ca_key);
        write("srv.pem", server.signed_by(&key, &issuer).expect("signed").pem());
        write("srv.key", key.serialize_pem());
    }

    fn write_configuration(&self) {
        let tls_port = if self.options.wrong_tls_port { free_ports::<1>()[0] } else { self.tls_port };
        let configuration = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": "srv.pem",
            "privateKey": "srv.key",
            "httpPort": self.http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.options.eab,
            "externalAccountMACKeys": { KID: EAB_KEY },
            "certificateValidityPeriod": self.options.validity_seconds,
            "domainBlocklist": ["blocked.test"],
        }});
        fs::write(self.folder.path().join("pebble.json"), configuration.to_string()).expect("written");
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only if the process has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("the CA's log, last line first:\n{}", last.join("\n"));
        }
    }
}

/// Returns ports that are free now. They are bound at the same time, so that they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}
