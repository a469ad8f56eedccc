//! The command line against real files and a real gateway: output and exit codes.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use super::harness::gateway::BINARY;
use super::harness::{FakeBackend, Setup, Tenant, secret};

/// Runs the binary with an empty environment.
pub(super) fn run(arguments: &[&str]) -> Output {
    let output = Command::new(BINARY).args(arguments).env_clear().output().expect("the binary runs");
    secret::assert_none(&format!("{arguments:?}"), &String::from_utf8_lossy(&output.stdout));
    secret::assert_none(&format!("{arguments:?}"), &String::from_utf8_lossy(&output.stderr));
    output
}

/// Returns standard output and standard error.
pub(super) fn printed(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[tokio::test]
async fn check_says_what_serve_would() {
    let backend = FakeBackend::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let good = file("good.zip", Tenant::new("good", &backend).zip());
    let bad = file("bad.yaml", Tenant::new("bad", &backend).with("path_prefix: /a/../b").yaml());
    let allow = ["--backend-allow", "127.0.0.0/8"];
    let check = |path: &str, more: &[&str]| run(&[&["check", path], &allow[..], more].concat());
    let fine = check(&good, &[]);
    assert_eq!(fine.status.code(), Some(0), "{}", printed(&fine));
    let refused = check(&bad, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", printed(&refused));
    assert!(printed(&refused).contains("bad.yaml:7"), "no line is named: {}", printed(&refused));
    assert!(printed(&refused).contains("help"), "{}", printed(&refused));
    let json = check(&bad, &["--format", "json"]);
    let verdict: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert!(verdict.to_string().contains("path_prefix"), "{verdict}");
    let missing = check("/nowhere/at-all.zip", &[]);
    assert_eq!(missing.status.code(), Some(2), "{}", printed(&missing));
    // Loopback backends are refused unless allowed.
    assert_eq!(run(&["check", &good]).status.code(), Some(1));
}

#[tokio::test]
async fn tenants_and_health_ask_the_running_gateway() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("a.zip", Tenant::new("a", &backend).zip()).file("bad.zip", b"x");
    let gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    let admin = gateway.admin_address().to_string();
    let ask = |arguments: &[&str]| run(&[arguments, &["--admin", &admin]].concat());
    let list = ask(&["tenants", "list"]);
    assert_eq!(list.status.code(), Some(0), "{}", printed(&list));
    for expected in ["a", "serving", "bad", "rejected", &format!("{}/a/mcp", gateway.base())] {
        assert!(printed(&list).contains(expected), "no {expected}: {}", printed(&list));
    }
    let show = ask(&["tenants", "show", "bad"]);
    assert!(printed(&show).contains("bad.zip"), "{}", printed(&show));
    assert_ne!(ask(&["tenants", "show", "nobody"]).status.code(), Some(0));
    assert_eq!(ask(&["healthcheck"]).status.code(), Some(0));
    assert_eq!(ask(&["healthcheck", "--serving"]).status.code(), Some(0));
    assert_eq!(ask(&["tenants", "pause", "a"]).status.code(), Some(0));
    let alive = ask(&["healthcheck"]);
    assert_eq!(alive.status.code(), Some(0), "{}", printed(&alive));
    let idle = ask(&["healthcheck", "--serving"]);
    assert_eq!(idle.status.code(), Some(1), "{}", printed(&idle));
    for reason in ["no tenant is served", "a is disabled", "bad is rejected"] {
        assert!(printed(&idle).contains(reason), "no {reason}: {}", printed(&idle));
    }
    drop(gateway);
    let down = ask(&["healthcheck"]);
    assert_eq!(down.status.code(), Some(1), "{}", printed(&down));
}

#[test]
fn what_cannot_start_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    fs::write(path("bad.yaml"), "tenantz: x\n").expect("written");
    let state = [
        "--tenants".to_owned(),
        path("t"),
        "--state".to_owned(),
        path("s"),
        "--certs".to_owned(),
        path("c"),
        "--admin".to_owned(),
        "off".to_owned(),
    ];
    let serve = |more: &[&str]| {
        let state: Vec<_> = state.iter().map(String::as_str).collect();
        run(&[&["serve"], &state[..], more].concat())
    };
    for (arguments, said) in [
        (vec!["--listen", port.as_str()], "already in use"),
        (vec!["--config", &path("bad.yaml"), "--listen", "127.0.0.1:0"], "tenants"),
        (vec!["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (vec!["--listen", "everywhere"], "everywhere"),
        (vec!["--tls", "acme"], "--accept-tos"),
        (vec!["--listen", "127.0.0.1:0", "--ready-file", "/nowhere/ready"], "/nowhere/ready"),
    ] {
        let output = serve(&arguments);
        let printed = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {printed}");
        assert!(printed.contains(said), "{arguments:?} should say {said}: {printed}");
        assert!(printed.matches("os error").count() <= 1, "{arguments:?} says its cause twice: {printed}");
    }
}

#[test]
fn a_tenants_folder_that_cannot_be_meant_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir_all(path("export/mcp/server/configs")).expect("made");
    fs::write(path("acme.zip"), "x").expect("written");
    for (tenants, said) in [("acme.zip", "is a file"), ("export", "is itself an unpacked export")] {
        let (tenants, state, certs) = (path(tenants), path("s"), path("c"));
        let places = ["--tenants", &tenants, "--state", &state, "--certs", &certs];
        let output = run(&[&["serve", "--listen", "127.0.0.1:0", "--admin", "off"], &places[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
        assert!(printed(&output).contains(said), "{}", printed(&output));
    }
}

#[tokio::test]
async fn a_tenants_folder_that_had_to_be_made_is_told_with_the_one_that_was_perhaps_meant() {
    let setup = super::harness::Setup::new().file("acme.zip", "x");
    let gateway = setup.instead("--tenants", "tenant.d").start().await;
    let said = gateway.output();
    for wanted in ["did not exist and was created", "a folder with a similar name", "tenants.d"] {
        assert!(said.contains(wanted), "no {wanted:?}: {said}");
    }
    let gateway = super::harness::Setup::new().instead("--tenants", "elsewhere").start().await;
    let said = gateway.output();
    assert!(said.contains("was created; it is empty\""), "nothing was meant: {said}");
}

#[test]
fn completions_and_help_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && printed(&output).contains("tenantd"), "{shell}");
    }
    for verb in ["serve", "check", "tenants", "apikey", "healthcheck", "demo", "completions"] {
        let output = run(&[verb, "--help"]);
        assert!(output.status.success() && printed(&output).contains("Usage:"), "{verb}");
    }
}
