//! What operators do about certificates, and what the gateway tells them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::pebble::{Options, Pebble};
use super::visitor::Visitor;
use super::{renew, status, until_trouble};
use crate::harness::{FakeBackend, PATIENCE, until, until_within};

/// Runs `tenantd certs` in a folder. Returns the exit code and the output.
fn certs(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantd"));
    let output =
        command.arg("certs").args(arguments).env_clear().current_dir(folder).output().expect("it runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[tokio::test]
async fn the_command_line_lists_renews_and_explains() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let admin = gateway.admin_address().to_string();
    let certs = |arguments: &[&str]| certs(gateway.path(), &[arguments, &["--admin", &admin]].concat());
    let (code, text) = certs(&["list"]);
    assert!(code == Some(0) && text.contains("mcp.test") && text.contains("valid"), "{text}");
    let (code, text) = certs(&["test", "mcp.test"]);
    assert!(code == Some(0) && text.contains("can be obtained"), "{text}");
    assert_eq!(visitor.serial("mcp.test").await, Some(first.clone()), "a rehearsal changed what is served");
    let (code, text) = certs(&["renew", "mcp.test"]);
    assert!(code == Some(0), "{text}");
    assert!(visitor.serial("mcp.test").await.is_some_and(|serial| serial != first));
    let (code, text) = certs(&["renew", "other.test"]);
    assert!(code == Some(1) && text.contains("certs list"), "{text}");
    let (code, text) = certs(&["show", "mcp.test"]);
    assert!(code == Some(0) && text.contains("tls-alpn-01"), "{text}");
    // Only the CA's DNS server knows mcp.test, and the ports are not 443 and 80.
    let config = gateway.path().join("tenantd.yaml").display().to_string();
    let (code, text) = certs(&["doctor", "--config", &config, "--host", "mcp.test"]);
    assert!(
        code == Some(1) && text.contains("ok  https://localhost") && text.contains("!!  mcp.test"),
        "{text}"
    );
}

#[tokio::test]
async fn a_certificate_that_the_ca_refuses_is_told_until_it_is_there() {
    let (pebble, receiver) = (Pebble::start(Options::default()).await, FakeBackend::start().await);
    pebble.lead("mcp.test", "127.0.0.9").await;
    let lines = format!("notify:\n  - {{name: pager, webhook: '{}'}}\n", receiver.url("/hook"));
    let gateway = pebble.setup(&lines).flag("--host", "mcp.test").start().await;
    until_trouble(&gateway, "mcp.test", "could not validate mcp.test").await;
    let told = async |state: &str| {
        until(&format!("it is {state}"), async || {
            let events = receiver.requests().into_iter().map(|request| request.json());
            events
                .filter(|event| event["subject"]["name"] == "mcp.test")
                .find(|event| event["state"] == state)
        })
        .await
    };
    let raised = told("raised").await;
    assert_eq!(raised["kind"], "certificate-not-renewing", "{raised}");
    let summary = raised["summary"].as_str().expect("a text");
    assert!(summary.contains("could not validate mcp.test"), "the CA's own reason: {summary}");
    pebble.lead_back("mcp.test").await;
    renew(&gateway, "mcp.test").await;
    told("resolved").await;
}

#[tokio::test]
async fn a_key_others_could_read_is_closed_and_replaced() {
    let pebble = Pebble::start(Options::default()).await;
    let gateway = pebble.setup("").flag("--host", "mcp.test").start().await;
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let first = until("it is certified", async || visitor.serial("mcp.test").await).await;
    let sets = fs::read_dir(gateway.path().join("certs/sets")).expect("a folder");
    let bundle = sets.flatten().next().expect("a set").path().join("bundle.pem");
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o644)).expect("changed");
    let gateway = gateway.kill_and_restart().await;
    until("another key is served", async || {
        visitor.serial("mcp.test").await.filter(|serial| *serial != first)
    })
    .await;
    assert_eq!(fs::metadata(&bundle).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(gateway.output().contains("could read the key"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_said_and_something_is_served() {
    let pebble = Pebble::start(Options::default()).await;
    let setup = pebble.setup("").flag("--host", "mcp.test");
    fs::write(setup.path().join("certs"), "not a folder").expect("written");
    let gateway = setup.start().await;
    until_trouble(&gateway, "mcp.test", "--certs").await;
    assert!(Visitor::trusting_nobody(pebble.tls_port).is_served("mcp.test").await);
    assert_eq!(pebble.orders(), 0);
    // Once repaired, the folder is used without a restart.
    fs::remove_file(gateway.path().join("certs")).expect("removed");
    let visitor = Visitor::trusting(&pebble.roots().await, pebble.tls_port);
    let what = "it is certified once the folder is mended";
    until_within(PATIENCE * 2, what, async || visitor.serial("mcp.test").await).await;
}

#[tokio::test]
async fn without_a_gateway_the_folder_is_read_and_left_as_it_is() {
    let pebble = Pebble::start(Options::default()).await;
    let setup = pebble.setup("").flag("--host", "mcp.test").flag("--host", "blocked.test");
    let gateway = setup.flag("--host", "127.0.0.1").start().await;
    for name in ["mcp.test", "127.0.0.1"] {
        until(&format!("{name} is certified"), async || {
            status(&gateway, name).await.filter(|status| status["state"] == "valid")
        })
        .await;
    }
    until_trouble(&gateway, "blocked.test", "rejectedIdentifier").await;
    let known = status(&gateway, "mcp.test").await.expect("a status");
    let gateway = gateway.killed();
    let before = listing(&gateway.path().join("certs"));

    // Nothing listens on port 1.
    let offline = ["--admin", "127.0.0.1:1", "--format", "json"];
    let (code, text) = certs(gateway.path(), &[&["list"], &offline[..]].concat());
    let (json, told) = text.split_at(text.rfind(']').expect("a list") + 1);
    assert!(code == Some(1) && told.contains("read from the certs folder"), "{text}");
    let found: Vec<Value> = serde_json::from_str(json).expect("JSON");
    let names: Vec<&str> = found.iter().filter_map(|status| status["name"].as_str()).collect();
    assert_eq!(names, ["127.0.0.1", "blocked.test", "mcp.test"]);
    assert_eq!(found[2]["serial"], known["serial"]);
    assert_eq!(found[2]["renew_at"], known["renew_at"]);
    assert_eq!((&found[1]["state"], &found[1]["serial"]), (&"refused".into(), &Value::Null));
    let (code, text) = certs(gateway.path(), &["show", "blocked.test", "--certs", "certs"]);
    assert!(
        code == Some(0) && text.contains("rejectedIdentifier") && text.contains("another name"),
        "{text}"
    );
    assert_eq!(listing(&gateway.path().join("certs")), before, "the folder was touched");
}

/// Returns every file below a folder with its contents.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        match path.is_dir() {
            true => found.extend(listing(&path)),
            false => found.push((path.clone(), fs::read(&path).expect("a file"))),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn the_doctor_explains_what_keeps_a_certificate_from_being_obtained() {
    let pebble = Pebble::start(Options::default()).await;
    let key = tempfile::tempdir().expect("a folder");
    fs::write(key.path().join("eab.key"), "no base64!").expect("written");
    let root = pebble.root();
    let doctor = |flags: &[&str]| {
        let always = ["doctor", "--tls", "acme", "--accept-tos", "--admin", "off", "--listen", "127.0.0.1:0"];
        certs(key.path(), &[&always[..], flags].concat())
    };
    let directory = ["--acme-directory", &pebble.directory()];
    let (code, text) = doctor(&[&directory[..], &["--acme-ca-root", &root]].concat());
    assert!(code == Some(0) && text.contains("ok  https://localhost"), "{text}");
    for (flags, words) in [
        (&directory[..], vec!["acme_ca_root"]),
        (
            &["--acme-directory", "https://127.0.0.1:1/dir"],
            vec!["!!  https://127.0.0.1:1/dir", "can connect"],
        ),
        (&["--acme-directory", &format!("{}x", pebble.directory()), "--acme-ca-root", &root], vec!["404"]),
        (
            &["--acme-ca-root", "missing.pem", "--acme-directory", "https://127.0.0.1:1/d"],
            vec!["acme_ca_root"],
        ),
        (
            &[
                "--acme-directory",
                "https://127.0.0.1:1/d",
                "--acme-eab-kid",
                "k",
                "--acme-eab-key-file",
                "eab.key",
            ],
            vec!["!!  external account", "not base64"],
        ),
        (
            &["--acme-directory", "https://127.0.0.1:1/d", "--host", "nobody.invalid"],
            vec!["!!  nobody.invalid", "A or AAAA"],
        ),
        (
            &["--acme-directory", "https://127.0.0.1:1/d", "--certs", "eab.key"],
            vec!["!!  certs folder", "--certs"],
        ),
    ] {
        let (code, text) = doctor(flags);
        assert_eq!(code, Some(1), "{text}");
        words.iter().for_each(|words| assert!(text.contains(words), "{flags:?} lacks {words:?}:\n{text}"));
    }
    // The port is in use.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let flags = ["doctor", "--tls", "manual", "--admin", "127.0.0.1:1", "--listen", &address];
    let (_, text) = certs(key.path(), &flags);
    assert!(text.contains("!!  listeners: Port") && text.contains("already in use"), "{text}");
}
