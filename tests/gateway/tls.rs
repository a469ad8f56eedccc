//! Certificates: self-signed at start, read from files, and replaced without a restart.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;

use super::harness::{Gateway, Setup, until};

/// Writes a new certificate for `localhost` and its key into `folder`.
fn certificate(folder: &Path) -> rustls::pki_types::CertificateDer<'static> {
    fs::create_dir_all(folder).expect("made");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("signed");
    fs::write(folder.join("localhost.key"), key.serialize_pem()).expect("written");
    fs::write(folder.join("localhost.pem"), certificate.pem()).expect("written");
    certificate.der().clone()
}

/// Returns a client that trusts only `root`.
pub(super) fn trusting(
    root: &rustls::pki_types::CertificateDer<'static>,
    alpn: &[&str],
) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

/// Makes a handshake that trusts only `root`. Returns whether it succeeded, and what was
/// negotiated.
async fn handshake(
    gateway: &Gateway,
    root: &rustls::pki_types::CertificateDer<'static>,
    alpn: &[&str],
) -> Option<Option<String>> {
    let stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = trusting(root, alpn).connect(name, stream).await.ok()?;
    let agreed = stream.get_ref().1.alpn_protocol();
    Some(agreed.map(|name| String::from_utf8_lossy(name).into_owned()))
}

#[tokio::test]
async fn a_self_signed_gateway_keeps_its_ca_and_agrees_on_a_protocol() {
    let gateway = Setup::new().start().await;
    let file = gateway.ca().expect("a local CA");
    let ca = rustls::pki_types::CertificateDer::from_pem_file(&file).expect("a certificate");
    assert_eq!(handshake(&gateway, &ca, &["h2", "http/1.1"]).await, Some(Some("h2".into())));
    assert_eq!(handshake(&gateway, &ca, &["http/1.1"]).await, Some(Some("http/1.1".into())));
    assert_eq!(handshake(&gateway, &ca, &[]).await, Some(None));
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(
        handshake(&gateway, &ca, &["h2"]).await,
        Some(Some("h2".into())),
        "the CA changed with a restart"
    );
}

#[tokio::test]
async fn manual_files_are_served_and_taken_over_when_they_change() {
    let setup = Setup::new().flag("--tls", "manual");
    let first = certificate(&setup.path().join("certs"));
    let gateway = setup.start().await;
    assert!(handshake(&gateway, &first, &[]).await.is_some());
    let second = certificate(&gateway.path().join("certs"));
    until("the new certificate is served", async || handshake(&gateway, &second, &[]).await.map(drop)).await;
    // A garbage file in place of the certificate changes nothing.
    fs::write(gateway.path().join("certs/localhost.pem"), "garbage").expect("written");
    until("it is seen", async || {
        gateway
            .output()
            .contains("a certificate file cannot be used; its previous certificate stays")
            .then_some(())
    })
    .await;
    assert!(handshake(&gateway, &second, &[]).await.is_some());
}

#[tokio::test]
async fn who_names_no_host_or_an_unknown_one_gets_the_default_certificate() {
    let gateway = Setup::new().start().await;
    let ca = rustls::pki_types::CertificateDer::from_pem_file(gateway.ca().expect("a local CA"));
    let connector = trusting(&ca.expect("a certificate"), &[]);
    let stream = async || TcpStream::connect(gateway.address()).await.expect("connected");
    // A client sends no SNI for an IP address (RFC 6066, section 3); the default certificate lists
    // the address among its names.
    let by_address = ServerName::from(gateway.address().ip());
    connector.connect(by_address, stream().await).await.expect("the default certificate");
    let unknown = ServerName::try_from("unknown.example").expect("a name");
    let refused = connector.connect(unknown, stream().await).await.expect_err("another name's certificate");
    assert!(refused.to_string().contains("not valid for name"), "no alert, but a certificate: {refused}");
}

#[tokio::test]
async fn browsers_are_told_to_stay_with_https_if_the_operator_says_so() {
    let told = Setup::new().variable("TENANTD_HSTS", "1d").start().await;
    assert_eq!(told.client().get("/nothing").await.header("strict-transport-security"), "max-age=86400");
    let untold = Setup::new().start().await;
    assert!(!untold.client().get("/nothing").await.headers.contains_key("strict-transport-security"));
}

/// A process that ends with its test.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A volume of a pod with `fsGroup` belongs to root and is given to the pod by its group.
#[tokio::test]
async fn a_certs_folder_that_belongs_to_root_is_used_by_its_group() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::process::CommandExt;

    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    if fs::metadata(folder.path()).expect("there").uid() != 0 {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
    for name in ["tenants", "state", "certs"] {
        fs::create_dir(path(name)).expect("made");
        chown(path(name), Some(0), Some(65532)).expect("given away");
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o2775)).expect("changed");
    }
    let mut command = std::process::Command::new(super::harness::gateway::BINARY);
    command.current_dir(folder.path()).uid(65532).gid(65532).env_clear();
    command.args(["serve", "--tls", "self-signed", "--listen", "127.0.0.1:0", "--admin", "off"]);
    command.args(["--tenants", "tenants", "--state", "state", "--certs", "certs"]);
    let log = fs::File::create(path("log")).expect("made");
    let started = match command.stderr(log).spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: another user cannot run the program");
            return;
        }
        started => started.expect("it starts"),
    };
    let _running = Process(started);
    let log = || fs::read_to_string(path("log")).unwrap_or_default();
    until("it serves", async || log().contains("serving").then_some(())).await;
    assert!(path("certs/local-ca.key").exists() && !log().contains("certs folder"), "{}", log());
}
