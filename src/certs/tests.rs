use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::local_ca::LocalCa;
use super::server_certificate::ServerCertificate;
use super::x509_info::X509Info;
use super::*;
use crate::base::clock::ManualClock;

const DAY: Duration = Duration::from_secs(86_400);

struct CertsFixture {
    folder: TempDir,
    clock: Arc<ManualClock>,
    tasks: Tasks,
}

impl CertsFixture {
    fn new() -> Self {
        let epoch: Timestamp = "2026-11-24T00:00:00Z".parse().expect("a moment");
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, clock: Arc::new(ManualClock::at(epoch)), tasks: Tasks::new() }
    }

    fn start(&self, mode: TlsMode, names: &[&str]) -> Arc<Certificates> {
        let settings = Settings { tls: mode, certs: self.folder.path().to_owned(), ..Settings::default() };
        Certificates::start(&settings, hosts(names), None, self.clock.clone(), Arc::default(), &self.tasks)
            .expect("started")
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("a file")
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.path(file).parent().expect("a folder")).expect("made");
        fs::write(self.path(file), text).expect("written");
    }

    fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.path(file)).expect("a file").permissions().mode() & 0o777
    }

    /// Returns a key and a certificate for `name`, issued by a new CA.
    fn issue(&self, name: &str) -> (String, String) {
        let now = self.clock.now();
        let pem = LocalCa::generate(now).expect("a CA").issue(&[name.to_owned()], now).expect("issued");
        let (key, chain) = pem.split_once("-----BEGIN CERTIFICATE").expect("key and chain");
        (key.to_owned(), format!("-----BEGIN CERTIFICATE{chain}"))
    }

    fn issue_bundle(&self, name: &str) -> String {
        let (key, chain) = self.issue(name);
        key + &chain
    }

    fn manual(&self) -> manual::ManualCertificates {
        manual::ManualCertificates::new(self.folder.path().to_owned(), self.clock.clone())
    }

    fn self_signed(&self) -> self_signed::SelfSigned {
        self_signed::SelfSigned::new(self.folder.path().to_owned(), self.clock.clone())
    }

    fn verify(&self, key: &CertifiedKey, ca_pem: &str, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM")).expect("a root");
        let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), default_provider().into());
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let now = Duration::from_secs(self.clock.now().as_second().try_into().expect("after 1970"));
        let verifier = builder.build().expect("a verifier");
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_server_cert(&key.cert[0], &key.cert[1..], &name, &[], now).map(|_| ())
    }
}

fn hosts(names: &[&str]) -> Vec<HostName> {
    names.iter().map(|name| HostName::parse(name).expect("a host name")).collect()
}

/// Returns the names of the certificate for an SNI value.
fn names_for(table: &CertificateTable, sni: Option<&str>) -> Vec<String> {
    let key = table.select(sni, None).expect("a certificate");
    X509Info::parse(&key.cert[0]).expect("readable").names
}

#[tokio::test]
async fn the_self_signed_certificate_verifies_against_the_local_ca() {
    let bench = CertsFixture::new();
    let certificates = bench.start(TlsMode::SelfSigned, &["mcp.example.com", "[2001:db8::1]"]);
    let key = certificates.table.load().select(None, None).expect("a certificate");
    let ca = bench.read(LOCAL_CA_FILE);
    for name in ["mcp.example.com", "localhost", "127.0.0.1", "::1", "2001:db8::1"] {
        bench.verify(&key, &ca, name).expect(name);
    }
    assert!(bench.verify(&key, &ca, "other.example").is_err());
    let other_ca = LocalCa::generate(bench.clock.now()).expect("a CA");
    assert!(bench.verify(&key, other_ca.certificate_pem(), "localhost").is_err());
}

#[tokio::test]
async fn the_chain_is_what_strict_clients_ask_for() {
    let bench = CertsFixture::new();
    let key = bench.start(TlsMode::SelfSigned, &[]).table.load().select(None, None).expect("a certificate");
    let (_, leaf) = X509Certificate::from_der(&key.cert[0]).expect("a leaf");
    let (_, ca) = X509Certificate::from_der(&key.cert[1]).expect("a CA");
    assert!(ca.is_ca() && ca.basic_constraints().expect("readable").expect("there").critical);
    assert!(ca.key_usage().expect("readable").expect("there").value.key_cert_sign());
    assert!(leaf.key_usage().expect("readable").expect("there").value.digital_signature());
    assert!(leaf.extended_key_usage().expect("readable").expect("there").value.server_auth);
    let identifier = |certificate: &X509Certificate<'_>, name: &str| {
        certificate
            .extensions()
            .iter()
            .any(|extension| format!("{:?}", extension.parsed_extension()).starts_with(name))
    };
    assert!(identifier(&leaf, "AuthorityKeyIdentifier") && identifier(&leaf, "SubjectKeyIdentifier"));
    assert!(identifier(&ca, "SubjectKeyIdentifier"));
    let validity = leaf.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
    assert!(days <= 397, "{days}");
}

#[tokio::test]
async fn a_restart_serves_the_same_ca_and_certificate() {
    let bench = CertsFixture::new();
    let served = || {
        bench
            .start(TlsMode::SelfSigned, &["a.example"])
            .table
            .load()
            .select(None, None)
            .expect("one")
            .cert
            .clone()
    };
    let (first, ca) = (served(), bench.read(LOCAL_CA_FILE));
    bench.clock.advance(30 * DAY);
    assert_eq!(served(), first);
    bench.clock.advance(31 * DAY);
    assert_ne!(served(), first, "a third of its life is left: it is renewed");
    assert_eq!(bench.read(LOCAL_CA_FILE), ca);
}

#[tokio::test]
async fn wanting_another_name_swaps_the_certificate_at_once() {
    let bench = CertsFixture::new();
    let certificates = bench.start(TlsMode::SelfSigned, &["a.example"]);
    let mut generation = certificates.generation();
    certificates.set_wanted_hosts(hosts(&["a.example", "b.example"]));
    generation.changed().await.expect("swapped");
    assert!(names_for(&certificates.table.load(), None).contains(&"b.example".to_owned()));
    assert_eq!(*generation.borrow(), 1);
}

#[tokio::test]
async fn a_handshake_gets_the_certificate_of_its_name() {
    let bench = CertsFixture::new();
    let certificates = bench.start(TlsMode::SelfSigned, &["a.example"]);
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(bench.read(LOCAL_CA_FILE).as_bytes()).expect("PEM");
    roots.add(ca).expect("a root");
    let provider = Arc::new(default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let server = server.expect("versions").with_no_client_auth().with_cert_resolver(certificates.resolver());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    client.time_provider = Arc::new(FixedTime(bench.clock.now()));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let name = ServerName::try_from("a.example").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    client.expect("verified");
    server.expect("shaken hands");
}

#[derive(Debug)]
struct FixedTime(Timestamp);

impl rustls::time_provider::TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[test]
fn keys_are_closed_to_other_users() {
    let bench = CertsFixture::new();
    fs::set_permissions(bench.folder.path(), Permissions::from_mode(0o755)).expect("set");
    bench.self_signed().initial_table(&[]).expect("a table");
    assert_eq!(bench.mode(""), 0o700);
    assert_eq!((bench.mode("local-ca.key"), bench.mode("self-signed.pem")), (0o600, 0o600));
    fs::set_permissions(bench.path("local-ca.key"), Permissions::from_mode(0o644)).expect("set");
    bench.self_signed().initial_table(&[]).expect("a table");
    assert_eq!(bench.mode("local-ca.key"), 0o600);
}

#[test]
fn damaged_files_are_set_aside_and_made_anew() {
    for file in ["local-ca.pem", "local-ca.key", "self-signed.pem"] {
        let bench = CertsFixture::new();
        bench.self_signed().initial_table(&[]).expect("a table");
        let ca = bench.read(LOCAL_CA_FILE);
        let damaged = format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{ca}");
        fs::write(bench.path(file), damaged).expect("written");
        let table = bench.self_signed().initial_table(&[]).expect("a table");
        let key = table.select(None, None).expect("a certificate");
        bench.verify(&key, &bench.read(LOCAL_CA_FILE), "localhost").expect("a sound chain");
        assert!(bench.path(&format!("{file}.bad-20261124T000000Z")).exists(), "{file}");
        assert_eq!(ca == bench.read(LOCAL_CA_FILE), file == "self-signed.pem", "{file}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_still_gets_a_certificate() {
    let bench = CertsFixture::new();
    fs::write(bench.path("file"), "").expect("written");
    let clock: Arc<dyn Clock> = bench.clock.clone();
    let mut mode = self_signed::SelfSigned::new(bench.path("file"), clock);
    let table = mode.initial_table(&hosts(&["a.example"])).expect("a table");
    assert!(names_for(&table, None).contains(&"a.example".to_owned()));
}

#[test]
fn an_expired_ca_is_replaced() {
    let bench = CertsFixture::new();
    bench.self_signed().initial_table(&[]).expect("a table");
    let ca = bench.read(LOCAL_CA_FILE);
    bench.clock.advance(3651 * DAY);
    let table = bench.self_signed().initial_table(&[]).expect("a table");
    assert_ne!(bench.read(LOCAL_CA_FILE), ca);
    let key = table.select(None, None).expect("a certificate");
    bench.verify(&key, &bench.read(LOCAL_CA_FILE), "localhost").expect("a sound chain");
}

#[test]
fn manual_files_are_found_under_their_customary_names() {
    let bench = CertsFixture::new();
    let split = |name: &str, chain_file: &str, key_file: &str| {
        let (key, chain) = bench.issue(name);
        bench.write(chain_file, &chain);
        bench.write(key_file, &key);
    };
    bench.write("a.pem", &bench.issue_bundle("a.example"));
    split("b.example", "b.crt", "b.key");
    split("c.example", "c/fullchain.pem", "c/privkey.pem");
    split("d.example", "d/tls.crt", "d/tls.key");
    split("e.example", "e/certificate.cer", "e/secret.pem");
    bench.write("README.md", "not a certificate");
    let table = bench.manual().next_table().expect("a table");
    for name in ["a.example", "b.example", "c.example", "d.example", "e.example"] {
        assert_eq!(names_for(&table, Some(name)), [name]);
    }
    assert_eq!(names_for(&table, None), ["a.example"], "the first is the default");
    assert_eq!(names_for(&table, Some("z.example")), ["a.example"]);
}

#[test]
fn certbots_leaf_and_ca_files_are_no_certificates_of_their_own() {
    let bench = CertsFixture::new();
    let (key, chain) = bench.issue("a.example");
    let ca_starts = chain.rfind("-----BEGIN").expect("a CA");
    bench.write("fullchain.pem", &chain);
    bench.write("privkey.pem", &key);
    bench.write("cert.pem", &chain[..ca_starts]);
    bench.write("chain.pem", &chain[ca_starts..]);
    let table = bench.manual().next_table().expect("a table");
    assert_eq!(table.select(None, None).expect("a certificate").cert.len(), 2);
}

#[test]
fn names_are_matched_exactly_then_by_wildcard() {
    let bench = CertsFixture::new();
    bench.write("1.pem", &bench.issue_bundle("other.example"));
    bench.write("2.pem", &bench.issue_bundle("*.example.com"));
    bench.write("3.pem", &bench.issue_bundle("mcp.example.com"));
    let table = bench.manual().next_table().expect("a table");
    let got = |sni| names_for(&table, Some(sni)).concat();
    assert_eq!(got("mcp.example.com"), "mcp.example.com");
    assert_eq!(got("MCP.Example.com"), "mcp.example.com");
    assert_eq!(got("x.example.com"), "*.example.com");
    assert_eq!(got("x.y.example.com"), "other.example");
    assert_eq!(got("example.com"), "other.example");
}

#[test]
fn the_certificate_that_expires_last_is_served() {
    let bench = CertsFixture::new();
    bench.write("1.pem", &bench.issue_bundle("a.example"));
    bench.clock.advance(DAY);
    let newer = bench.issue_bundle("a.example");
    bench.write("2.pem", &newer);
    let table = bench.manual().next_table().expect("a table");
    let served = table.select(Some("a.example"), None).expect("a certificate");
    assert_eq!(
        served.cert,
        ServerCertificate::from_pem(newer.as_bytes()).expect("material").certified_key.cert
    );
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let bench = CertsFixture::new();
    bench.write("a.crt", &bench.issue("a.example").1);
    bench.write("a.key", &bench.issue("a.example").0);
    assert!(bench.manual().next_table().is_none());
    let gathered = ServerCertificate::from_pem((bench.read("a.key") + &bench.read("a.crt")).as_bytes());
    assert_eq!(
        gathered.expect_err("refused").to_string(),
        "the private key does not belong to the certificate"
    );
}

#[test]
fn a_broken_change_keeps_what_was_served() {
    let bench = CertsFixture::new();
    let mut manual = bench.manual();
    bench.write("a.pem", &bench.issue_bundle("a.example"));
    bench.write("b.pem", &bench.issue_bundle("b.example"));
    manual.next_table().expect("a table");
    let sound = bench.read("a.pem");
    bench.write("a.pem", &sound[..sound.len() / 2]);
    bench.write("b.pem", &bench.issue_bundle("c.example"));
    let table = manual.next_table().expect("b changed");
    assert_eq!(names_for(&table, Some("a.example")), ["a.example"]);
    assert_eq!(names_for(&table, Some("c.example")), ["c.example"]);
    fs::remove_file(bench.path("a.pem")).expect("removed");
    fs::remove_file(bench.path("b.pem")).expect("removed");
    assert!(manual.next_table().is_none(), "the last certificates stay in use");
}

#[test]
fn a_touched_file_changes_nothing() {
    let bench = CertsFixture::new();
    let mut manual = bench.manual();
    let whole = bench.issue_bundle("a.example");
    bench.write("a.pem", &whole);
    manual.next_table().expect("a table");
    assert!(manual.next_table().is_none());
    bench.write("a.pem", &whole);
    assert!(manual.next_table().is_none());
}

#[test]
fn an_expired_certificate_is_still_served() {
    let bench = CertsFixture::new();
    bench.write("a.pem", &bench.issue_bundle("a.example"));
    bench.clock.advance(100 * DAY);
    assert!(bench.manual().next_table().is_some());
}

#[tokio::test]
async fn a_manual_certificate_replaces_the_placeholder_without_a_restart() {
    let bench = CertsFixture::new();
    let certificates = bench.start(TlsMode::Manual, &["a.example"]);
    assert_eq!(names_for(&certificates.table.load(), None), ["a.example"], "something is served");
    let mut generation = certificates.generation();
    bench.write(".hidden", &bench.issue_bundle("b.example"));
    fs::rename(bench.path(".hidden"), bench.path("b.pem")).expect("renamed");
    generation.changed().await.expect("swapped");
    assert_eq!(names_for(&certificates.table.load(), None), ["b.example"]);
}

#[tokio::test]
async fn without_tls_there_is_no_certificate() {
    let bench = CertsFixture::new();
    let certificates = bench.start(TlsMode::Off, &[]);
    assert!(certificates.table.load().select(None, None).is_none());
    assert!(!bench.path(LOCAL_CA_FILE).exists());
}
