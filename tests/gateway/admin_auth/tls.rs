//! The admin listener's certificate from files: good, unusable, expired, and put in place anew.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::harness::{Gateway, Setup, until};

/// An authority, and what it issues for `localhost`.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Returns a certificate that ends in a year, and its key.
    fn issue(&self, year: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }

    /// Whether a client that trusts only this authority gets an answer from the gateway.
    async fn is_trusted(&self, gateway: &Gateway) -> bool {
        let root = reqwest::Certificate::from_pem(self.pem.as_bytes()).expect("PEM");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().expect("a client");
        let url = format!("https://localhost:{}/healthz", gateway.admin_address().port());
        http.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }
}

/// Puts a certificate and its key into a folder, each at once, the key first.
fn place(folder: &Path, (certificate, key): &(String, String)) {
    for (name, text) in [("admin.key", key), ("admin.pem", certificate)] {
        fs::write(folder.join("new"), text).expect("written");
        fs::rename(folder.join("new"), folder.join(name)).expect("replaced");
    }
}

fn setup(pair: &(String, String)) -> Setup {
    let setup = Setup::new();
    place(setup.path(), pair);
    let path = |name: &str| setup.path().join(name).display().to_string();
    let (certificate, key) = (path("admin.pem"), path("admin.key"));
    setup.flag("--admin-tls", &certificate).flag("--admin-tls", &key)
}

#[tokio::test]
async fn files_are_served_and_taken_anew_and_broken_ones_change_nothing() {
    let (first, second) = (Authority::new(), Authority::new());
    let gateway = setup(&first.issue(2100)).start().await;
    assert!(first.is_trusted(&gateway).await && !second.is_trusted(&gateway).await);
    place(gateway.path(), &second.issue(2100));
    until("the new certificate is served", async || second.is_trusted(&gateway).await.then_some(())).await;
    assert!(!first.is_trusted(&gateway).await);
    place(gateway.path(), &(first.issue(2100).0, "no key".to_owned()));
    assert!(second.is_trusted(&gateway).await, "the last good one is served");
    assert!(gateway.output().contains("it goes on with the last one"), "{}", gateway.output());
    place(gateway.path(), &first.issue(2100));
    until("it is mended", async || first.is_trusted(&gateway).await.then_some(())).await;
}

#[tokio::test]
async fn a_key_that_does_not_fit_keeps_the_gateway_from_starting() {
    let authority = Authority::new();
    let (certificate, _) = authority.issue(2100);
    let (_, key) = authority.issue(2100);
    let said = setup(&(certificate.clone(), key)).refusal().await;
    assert!(said.contains("admin.pem (admin_tls) cannot be used"), "{said}");
    let said = setup(&(certificate, "no key".to_owned())).refusal().await;
    assert!(said.contains("admin.key (admin_tls) cannot be used"), "{said}");
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_told_and_clients_refuse_it() {
    let authority = Authority::new();
    let gateway = setup(&authority.issue(2020)).start().await;
    assert!(
        gateway.output().contains("the admin listener's certificate has expired"),
        "{}",
        gateway.output()
    );
    assert!(!authority.is_trusted(&gateway).await);
    let ca = gateway.path().join("ca.pem");
    fs::write(&ca, &authority.pem).expect("written");
    let url = format!("https://localhost:{}", gateway.admin_address().port());
    let mut command = std::process::Command::new(crate::harness::gateway::BINARY);
    command.args(["healthcheck", "--admin", &url, "--admin-ca"]).arg(&ca).env_clear();
    let said = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("TLS with the gateway") && said.contains("xpired"), "{said}");
    place(gateway.path(), &authority.issue(2100));
    until("the new certificate is served", async || authority.is_trusted(&gateway).await.then_some(())).await;
}
