//! What is wrong on the machine, with the certificate, the backend and the login; and each symptom of
//! the vendor's guide.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use super::super::harness::entra::{APP, DIRECTORY, Endpoint, FakeEntra, Fault};
use super::super::harness::front::{Front, free_ports};
use super::super::harness::secret::secret;
use super::super::harness::{FakeBackend, Gateway, Reply, Setup, Tenant};
use super::{Doctor, KEY, digest, serve_with_login};

/// A gateway with the tenant "a".
async fn gateway(tenant: Tenant) -> Gateway {
    let gateway = Setup::new().file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    gateway
}

#[tokio::test]
async fn nothing_is_wrong_with_a_good_gateway() {
    let backend = FakeBackend::start().await;
    let gateway = gateway(Tenant::new("a", &backend)).await;
    let ca = gateway.ca().expect("self-signed");
    let said = Doctor::beside(&gateway, &["a"]).trusting(&ca).ask().await;
    assert_eq!((said.code, said.faults()), (Some(0), vec![]), "{:#}", said.report);
    for code in
        ["gateway-answers", "tenant-good", "name-is-here", "port-open", "certificate-good", "live-search"]
    {
        assert_eq!(said.verdict(code)["outcome"], "ok");
    }
    assert_eq!(said.verdict("sequence-good")["outcome"], "ok");
    let port = said.verdict("port-open")["found"].as_str().expect("a text").to_owned();
    assert!(port.contains(&format!("tenantd, process {}", gateway.pid())), "{port}");
    // Without the root, the gateway's own authority is recognized.
    let said = Doctor::beside(&gateway, &["a"]).ask().await;
    assert_eq!(said.verdict("certificate-local-ca")["outcome"], "warning");
    let said = Doctor::beside(&gateway, &["a", "--as", "claude"]).ask().await;
    said.assert_fault("certificate-local-ca");
    said.assert_fault("not-public");
}

#[tokio::test]
async fn a_gateway_that_does_not_run_is_told_from_a_port_that_another_has() {
    let port = free_ports(1)[0].to_string();
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["--admin", "127.0.0.1:1", "--listen", &listen];
    let said = Doctor::new(&arguments).ask().await;
    said.assert_fault("gateway-not-running");
    said.assert_fault("port-refused");
    let _other = TcpListener::bind(&listen).expect("free");
    let said = Doctor::new(&arguments).ask().await;
    let taken = said.assert_fault("port-taken")["found"].as_str().expect("a text").to_owned();
    let words = format!("Port {port} already in use (by ");
    assert!(
        taken.starts_with(&words) && taken.contains(&format!("process {}", std::process::id())),
        "{taken}"
    );
    assert!(!said.faults().contains(&"gateway-not-running"));
}

#[tokio::test]
async fn the_state_of_a_tenant_is_told_with_its_reason() {
    let backend = FakeBackend::start().await;
    let good = || Tenant::new("a", &backend);
    let setup = Setup::new()
        .file("a.yaml", good().yaml())
        .file("off.yaml", Tenant::new("off", &backend).with("enabled: false").yaml())
        .file("bad.yaml", Tenant::new("bad", &backend).with("path_prefix: /a/../b").yaml());
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    let ask = async |name: &'static str| Doctor::beside(&gateway, &[name]).ask().await;
    ask("bad").await.assert_fault("tenant-rejected");
    ask("bad").await.assert_fault("bad-prefix");
    ask("off").await.assert_fault("tenant-disabled");
    ask("nobody").await.assert_fault("tenant-unknown");
    let all = Doctor::beside(&gateway, &[]).ask().await;
    all.assert_fault("tenant-rejected");
    gateway.put("a.yaml", good().with("path_prefix: /a/../b").yaml());
    gateway.until_state("a", "stale").await;
    assert_eq!(ask("a").await.verdict("tenant-stale")["outcome"], "warning");
}

#[tokio::test]
async fn each_trouble_with_an_export_is_found_before_it_runs() {
    let backend = FakeBackend::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let export = |name: &str, bytes: &[u8]| {
        fs::write(at(name), bytes).expect("written");
        at(name).display().to_string()
    };
    let placeholder =
        export("placeholder.zip", &Tenant::new("a", &backend).zip_with_key("paste-your-api-key-here"));
    let no_yaml = export("no-yaml.zip", &zip_without_configs());
    let no_zip = export("no-zip.zip", b"<html>Sign in</html>");
    let before_mcp =
        format!("search_url: {0}/nlp-search\napi_key: k-0123456789\nconnection_id: c\n", backend.url(""));
    let before_mcp = export("before-mcp.zip", &Tenant::new("a", &backend).zip_with_yaml(&before_mcp));
    let lacking = export("lacking.zip", &Tenant::new("a", &backend).zip_with_yaml("connection_id: c\n"));
    fs::create_dir(at("empty")).expect("made");
    let empty = at("empty").display().to_string();
    for (path, code, words) in [
        (&placeholder, "api-key-placeholder", "is still a placeholder"),
        (&no_yaml, "config-missing", "No .yaml config files found in zip"),
        (&no_zip, "zip-other-format", "not a zip file"),
        (&lacking, "missing-fields", "Missing required env vars"),
        (&before_mcp, "no-context-url", "there is no context_url"),
        (&"/nowhere/server.zip".to_owned(), "export-refused", "No server.zip found at /nowhere/server.zip"),
        (&empty, "export-refused", "No server.zip found at"),
    ] {
        let said = Doctor::new(&[path, "--admin", "127.0.0.1:1"]).ask().await;
        let found = said.assert_fault(code)["found"].to_string();
        assert!(found.contains(words), "{path}: {found}");
    }
    // A variable of the container counts, as for `tenantd run`.
    let said = Doctor::new(&[&placeholder, "--admin", "127.0.0.1:1"])
        .variable("API_KEY", "your-api-key")
        .ask()
        .await;
    let found = said.assert_fault("api-key-placeholder")["found"].to_string();
    assert!(found.contains("API_KEY looks like a placeholder"), "{found}");
}

#[tokio::test]
async fn a_script_that_may_not_be_executed_is_not_needed() {
    let backend = FakeBackend::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let configs = folder.path().join("mcp/server/configs");
    fs::create_dir_all(&configs).expect("made");
    fs::write(configs.join("a.yaml"), Tenant::new("a", &backend).yaml()).expect("written");
    fs::write(folder.path().join("mcp/run.sh"), "#!/bin/sh\n").expect("written");
    let path = folder.path().display().to_string();
    let said = Doctor::new(&[&path, "--admin", "127.0.0.1:1"]).ask().await;
    let verdict = said.verdict("script-not-executable");
    assert!(verdict["advice"].as_str().is_some_and(|text| text.contains("tenantd run")), "{verdict}");
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let said = Doctor::new(&["--host", "no-such-host.invalid", "--admin", "127.0.0.1:1"]).ask().await;
    said.assert_fault("name-unresolved");
}

#[tokio::test]
async fn a_backend_that_refuses_the_key_is_told() {
    let backend = FakeBackend::start().await;
    let gateway = gateway(Tenant::new("a", &backend)).await;
    backend.answer("/nlp-search", Reply::Status(401, json!({})));
    let said = Doctor::beside(&gateway, &["a"]).ask().await;
    let found = said.assert_fault("live-search")["found"].to_string();
    assert!(found.contains("refused this server's API key"), "{found}");
}

#[tokio::test]
async fn each_trouble_with_the_login_is_told_apart() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let tenant = Tenant::new("a", &backend).with(&entra.lines());
    let lost = Tenant::new("lost", &backend).with(&entra.lines_of(APP, "nowhere.example"));
    let gateway = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", tenant.yaml())
        .file("lost.yaml", lost.with("path_prefix: /lost").yaml())
        .start()
        .await;
    gateway.until_state("a", "serving").await;
    let uri = format!("{}/a/auth/ms-callback", gateway.base());
    entra.redirect_uris(&[&uri]);
    let ask = async |name: &'static str| Doctor::beside(&gateway, &[name]).ask().await;
    let said = ask("a").await;
    for code in ["provider-answers", "secret-right", "redirect-uri-registered", "clock-right"] {
        assert_eq!(said.verdict(code)["outcome"], "ok", "{code}");
    }
    ask("lost").await.assert_fault("directory-unknown");
    entra.redirect_uris(&["https://mcp.example.com/other"]);
    let missing = ask("a").await.assert_fault("redirect-uri-missing").to_string();
    assert!(missing.contains("AADSTS50011") && missing.contains(&uri), "{missing}");
    for (code, verdict) in
        [(7_000_215, "secret-wrong"), (7_000_222, "secret-expired"), (700_016, "app-unknown")]
    {
        entra.fault(Endpoint::Token, Fault::Refusal("invalid_client", code));
        let said = ask("a").await;
        let found = said.assert_fault(verdict)["found"].to_string();
        assert!(found.contains(&format!("AADSTS{code}")), "{found}");
    }
    entra.fault(Endpoint::Token, None);
    for (seconds, outcome, code) in [(-120, "warning", "clock-off"), (900, "fault", "clock-wrong")] {
        entra.clock_offset(seconds);
        assert_eq!(ask("a").await.verdict(code)["outcome"], outcome);
    }
    entra.fault(Endpoint::Discovery, Fault::Answer(503, "{}"));
    ask("a").await.assert_fault("provider-down");
    assert_eq!(entra.forms().iter().filter(|form| form["grant_type"] != "client_credentials").count(), 0);
    let _directory = DIRECTORY;
}

#[tokio::test]
async fn an_old_secret_beside_a_right_one_is_a_warning() {
    let (entra, backend) = (FakeEntra::start(&secret("new")).await, FakeBackend::start().await);
    let old = entra.lines().replace(&secret("new"), &secret("old"));
    let lines = format!("{old}microsoft_client_secret_next: {}", secret("new"));
    let gateway = Setup::new()
        .flag("--entra-authority", &entra.authority())
        .file("a.yaml", Tenant::new("a", &backend).with(&lines).yaml())
        .start()
        .await;
    gateway.until_state("a", "serving").await;
    let said = Doctor::beside(&gateway, &["a"]).ask().await;
    assert_eq!(said.verdict("secret-old")["outcome"], "warning");
    assert!(!said.faults().contains(&"secret-wrong"), "{:#}", said.report);
}

/// A certificate by an authority of this name, and the authority's.
fn issue(authority: &str, subject: &str, names: &[&str], until: (i32, u8, u8)) -> [String; 3] {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let keys = [(); 2].map(|()| KeyPair::generate().expect("a key"));
    let mut above = CertificateParams::default();
    above.distinguished_name.push(DnType::CommonName, authority);
    above.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = above.self_signed(&keys[0]).expect("a root").pem();
    let mut leaf = CertificateParams::new(names).expect("names");
    leaf.distinguished_name.push(DnType::CommonName, subject);
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let leaf = leaf.signed_by(&keys[1], &Issuer::new(above, &keys[0])).expect("a certificate").pem();
    [leaf, keys[1].serialize_pem(), root]
}

#[tokio::test]
async fn each_fault_of_the_certificate_is_told_as_a_stranger_sees_it() {
    let backend = FakeBackend::start().await;
    let port = free_ports(1)[0];
    let url = format!("public_url: https://localhost:{port}/a");
    // Nobody watches the streams of a tenant whose key is not given.
    let key = format!("api_keys: [{{label: c, sha256: {}}}]", digest(KEY));
    let tenant = Tenant::new("a", &backend).with(&url).with(&key);
    let gateway = Setup::new().flag("--tls", "off").file("a.yaml", tenant.yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let lines = format!(
        "location / {{ proxy_pass http://{}; proxy_set_header Host $http_host; }}",
        gateway.address()
    );
    let servers = [(port, lines)];
    let far = (2090, 1, 1);
    for (chain, trusts, code) in [
        (issue("Good CA", "leaf", &["localhost"], far), true, "certificate-good"),
        (issue("Good CA", "leaf", &["localhost"], (2026, 1, 1)), true, "certificate-expired"),
        (issue("Good CA", "leaf", &["other.test"], far), true, "certificate-wrong-name"),
        (issue("Some CA", "leaf", &["localhost"], far), false, "chain-incomplete"),
        (issue("(STAGING) Wannabe", "leaf", &["localhost"], far), false, "certificate-staging"),
    ] {
        let [leaf, key, root] = chain;
        let front = Front::start_with(&servers, &leaf, &key).await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), root).expect("written");
        let doctor = Doctor::beside(&gateway, &["a"]);
        let doctor = if trusts { doctor.trusting(file.path()) } else { doctor };
        let said = doctor.ask().await;
        match code {
            "certificate-good" => assert_eq!(said.verdict(code)["outcome"], "ok"),
            code => drop(said.assert_fault(code)),
        }
        drop(front);
    }
    let front = Front::start(&servers).await;
    Doctor::beside(&gateway, &["a"]).ask().await.assert_fault("certificate-self-signed");
    drop(front);
    let _plain = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("free again");
    Doctor::beside(&gateway, &["a"]).ask().await.assert_fault("no-tls");
}

#[tokio::test]
async fn a_wrong_public_url_is_told_by_the_documents_that_name_it() {
    let (entra, backend) = (FakeEntra::start(&secret("entra")).await, FakeBackend::start().await);
    let gateway = serve_with_login(&entra, &backend).await;
    // People use another name than the settings have.
    let other = format!("https://127.0.0.1:{}", gateway.address().port());
    let said = Doctor::beside(&gateway, &["a", "--url", &other]).ask().await;
    said.assert_fault("public-url-differs");
}

#[tokio::test]
async fn folders_that_the_gateway_may_not_use_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let said = Doctor::new(&["--tenants", &path("none"), "--state", &path("s"), "--admin", "127.0.0.1:1"])
        .ask()
        .await;
    said.assert_fault("folder-missing");
    if Path::new("/dev/shm").is_dir() {
        let said = Doctor::new(&["--state", "/dev/shm", "--admin", "127.0.0.1:1"]).ask().await;
        assert_eq!(said.verdict("folder-volatile")["outcome"], "warning");
    }
}

fn zip_without_configs() -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("readme.txt", zip::write::SimpleFileOptions::default()).expect("begun");
    zip.write_all(b"nothing here").expect("written");
    zip.finish().expect("a zip").into_inner()
}
