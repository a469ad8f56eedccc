use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::network::{check_addresses, probe_http};
use super::*;
use crate::certs::NO_CHALLENGE_TEXT;
use crate::certs::local_ca::LocalCa;
use crate::certs::server_certificate::ServerCertificate;

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().expect("a time")
}

fn issue(name: &str) -> String {
    LocalCa::generate(now()).expect("a CA").issue(&[name.to_owned()], now()).expect("a certificate")
}

fn problem_text(found: &CheckResult) -> &str {
    match found {
        CheckResult::Fail(text) => text,
        other => panic!("no trouble: {other:?}"),
    }
}

/// Returns the trouble found with a folder in one mode.
fn folder_problems(folder: &Path, tls: TlsMode) -> Vec<String> {
    let settings = Settings { tls, certs: folder.to_owned(), ..Settings::default() };
    let checks = folder::check_folder_and_files(&settings, false);
    let troubles = checks.into_iter().filter_map(|check| match check.result {
        CheckResult::Fail(text) => Some(format!("{}: {text}", check.subject)),
        CheckResult::Pass(_) | CheckResult::Unclear(_) => None,
    });
    troubles.collect()
}

#[test]
fn a_missing_folder_of_a_running_gateway_is_another_one() {
    let certs = tempfile::tempdir().expect("a folder").path().join("certs");
    for tls in [TlsMode::Acme, TlsMode::Manual, TlsMode::SelfSigned] {
        let settings = Settings { tls, certs: certs.clone(), ..Settings::default() };
        let checks = folder::check_folder_and_files(&settings, true);
        assert!(
            matches!(&checks[..], [DoctorCheck { result: CheckResult::Unclear(said), .. }] if said.contains("--config")),
            "{checks:?}"
        );
    }
}

/// Somebody who says `words` to whoever connects, over TLS if there is a certificate.
async fn start_fake_server(words: &'static str, pem: Option<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let acceptor = pem.map(|pem| {
        let certificate = ServerCertificate::from_pem(pem.as_bytes()).expect("a certificate");
        let resolver = rustls::sign::SingleCertAndKey::from(certificate.certified_key);
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ));
        let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_cert_resolver(Arc::new(resolver))))
    });
    crate::base::task::Tasks::new().spawn_detached("somebody", async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        match acceptor {
            Some(acceptor) => drop(acceptor.accept(stream).await),
            None => {
                // Closing with unread data resets the connection.
                let asked = stream.read(&mut [0; 4096]).await.expect("a question");
                assert!(asked > 0, "nobody asked");
                stream.write_all(words.as_bytes()).await.expect("written");
            }
        }
    });
    address
}

fn probe_knowing(pem: &str) -> EndpointProbe {
    let certificate = Arc::new(ServerCertificate::from_pem(pem.as_bytes()).expect("a certificate"));
    EndpointProbe::new(&crate::certs::status::from_certificates(&[certificate], now()), true)
}

#[tokio::test]
async fn the_server_on_port_443_is_recognized_by_its_certificate() {
    let ours = issue("a.test");
    let own = probe_knowing(&ours);
    let there = start_fake_server("", Some(ours)).await;
    assert!(matches!(own.probe_tls(there, "a.test").await, CheckResult::Pass(_)));

    // A CA of another machine.
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["cdn.test".to_owned()]).expect("names");
    params.distinguished_name.push(rcgen::DnType::CommonName, "a CDN");
    let theirs = format!("{}{}", key.serialize_pem(), params.self_signed(&key).expect("signed").pem());
    let there = start_fake_server("", Some(theirs)).await;
    let found = own.probe_tls(there, "a.test").await;
    assert!(
        problem_text(&found).contains("cdn.test") && problem_text(&found).contains("in front"),
        "{found:?}"
    );

    let found =
        own.probe_tls(start_fake_server("HTTP/1.1 400 Bad Request\r\n\r\n", None).await, "a.test").await;
    assert!(problem_text(&found).contains("does not speak TLS"), "{found:?}");
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    assert!(
        matches!(own.probe_tls(nobody, "a.test").await, CheckResult::Unclear(text) if text.contains("firewall"))
    );
}

#[tokio::test]
async fn the_server_on_port_80_is_recognized_by_its_answer_to_an_unknown_challenge() {
    let words = "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\nthere is no such challenge in progress";
    assert!(words.ends_with(NO_CHALLENGE_TEXT));
    assert!(matches!(probe_http(start_fake_server(words, None).await, "a.test").await, CheckResult::Pass(_)));
    let other =
        start_fake_server("HTTP/1.1 301 Moved Permanently\r\nlocation: https://a.test/\r\n\r\n", None).await;
    let found = probe_http(other, "a.test").await;
    assert!(problem_text(&found).contains("301") && problem_text(&found).contains("port 80"), "{found:?}");
}

#[test]
fn a_name_that_points_elsewhere_is_distinguished_from_a_router() {
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert!(matches!(check_addresses(&[ip("8.8.8.8")], &[ip("8.8.8.8")]), CheckResult::Pass(_)));
    assert!(matches!(check_addresses(&[ip("8.8.8.8")], &[ip("10.0.0.2")]), CheckResult::Unclear(_)));
    let found = check_addresses(&[ip("8.8.8.8")], &[ip("9.9.9.9")]);
    assert!(
        problem_text(&found).contains("8.8.8.8") && problem_text(&found).contains("this machine is 9.9.9.9"),
        "{found:?}"
    );
}

#[test]
fn keys_that_others_can_read_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("closed");
    let set = folder.path().join("sets/a.test-1");
    fs::create_dir_all(&set).expect("made");
    let bundle = set.join("bundle.pem");
    fs::write(&bundle, issue("a.test")).expect("written");
    fs::set_permissions(&bundle, Permissions::from_mode(0o644)).expect("opened");
    let found = folder_problems(folder.path(), TlsMode::Acme);
    assert!(
        found.len() == 1 && found[0].contains("chmod 600") && found[0].contains("bundle.pem"),
        "{found:?}"
    );
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("opened");
    assert!(folder_problems(folder.path(), TlsMode::Acme)[0].contains("chmod 700"));
}

#[test]
fn an_unusable_folder_is_reported_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("certs");
    assert!(folder_problems(&file, TlsMode::Acme).is_empty(), "the gateway creates it at its first start");
    assert!(folder_problems(&file, TlsMode::Manual)[0].contains("create it"));
    fs::write(&file, "no folder").expect("written");
    assert!(folder_problems(&file, TlsMode::Acme)[0].contains("--certs"));
}

#[test]
fn manual_files_are_checked_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = folder_problems(folder.path(), TlsMode::Manual);
    assert!(found.len() == 1 && found[0].contains("certs import"), "{found:?}");
    let (good, other) = (issue("a.test"), issue("b.test"));
    let (key, _) = other.split_once("-----BEGIN CERT").expect("a key");
    let (_, chain) = good.split_once("-----BEGIN CERT").expect("a chain");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("written");
        fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o600)).expect("closed");
    };
    write("good.pem", &good);
    assert!(folder_problems(folder.path(), TlsMode::Manual).is_empty());
    write("a.crt", &format!("-----BEGIN CERT{chain}"));
    write("a.key", key);
    let found = folder_problems(folder.path(), TlsMode::Manual);
    assert!(found.len() == 1 && found[0].contains("does not belong to the certificate"), "{found:?}");
}

#[test]
fn a_certificate_is_checked_by_its_state() {
    let certificate =
        Arc::new(ServerCertificate::from_pem(issue("a.test").as_bytes()).expect("a certificate"));
    let status =
        |at| crate::certs::status::from_certificates(std::slice::from_ref(&certificate), at).remove(0);
    assert!(matches!(check_certificate(&status(now())).result, CheckResult::Pass(_)));
    let year = std::time::Duration::from_secs(365 * 86_400);
    let expired = check_certificate(&status(now() + year));
    assert!(
        problem_text(&expired.result).contains("expired")
            && problem_text(&expired.result).contains("replace it")
    );
    let limited = CertificateStatus {
        state: CertificateState::Backoff,
        trouble: Some("too many certificates (rateLimited). Nothing".into()),
        ..status(now())
    };
    assert!(problem_text(&check_certificate(&limited).result).contains("rateLimited"));
    let new = CertificateStatus { state: CertificateState::Placeholder, not_after: None, ..status(now()) };
    assert!(matches!(check_certificate(&new).result, CheckResult::Unclear(_)));
}
