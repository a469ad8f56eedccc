//! The log: whatever standard error is connected to, the gateway serves and stops as usual.

use std::fs::File;
use std::io::pipe;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::harness::gateway::BINARY;
use super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant};

/// Makes failing calls that are logged, with good calls in between, then stops the gateway.
async fn serves_and_ends(mut gateway: Gateway, backend: &FakeBackend, what: &str) -> u64 {
    gateway.until_state("a", "serving").await;
    for number in 0..40 {
        let good = number % 10 == 9;
        backend.answer("/nlp-search", if good { Reply::Rows } else { Reply::Status(400, json!({})) });
        let answer = gateway.client().search(Era::Modern, "/a", "q").await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
        if good {
            assert_eq!(answer.data()["row_count"], 2, "{what}");
        }
    }
    let (_, metrics) = gateway.admin("/metrics").await;
    let lost = metrics.lines().find_map(|line| line.strip_prefix("tenantd_log_lines_lost_total "));
    let lost = lost.expect("lost lines are counted").parse::<u64>().expect("a number");
    gateway.signal("TERM");
    assert_eq!(gateway.until_ended().await.code(), Some(0), "{what}");
    lost
}

async fn one_tenant() -> (FakeBackend, Setup) {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().variable("TENANTD_LOG_FILTER", "debug");
    let setup = setup.file("a.yaml", Tenant::new("a", &backend).yaml());
    (backend, setup)
}

#[tokio::test]
async fn a_full_disk_for_the_log_stops_nothing_from_the_start() {
    let (backend, setup) = one_tenant().await;
    let full = File::options().write(true).open("/dev/full").expect("this system has one");
    let gateway = setup.stderr(full).start().await;
    assert!(serves_and_ends(gateway, &backend, "full").await > 40);
}

#[tokio::test]
async fn a_reader_of_the_log_that_goes_away_while_serving_stops_nothing() {
    let (backend, setup) = one_tenant().await;
    let (reader, writer) = pipe().expect("a pipe");
    let gateway = setup.stderr(OwnedFd::from(writer).into()).start().await;
    drop(reader);
    assert!(serves_and_ends(gateway, &backend, "no reader").await > 40);
}

#[tokio::test]
async fn a_reader_of_the_log_that_sleeps_stops_nothing() {
    let (backend, setup) = one_tenant().await;
    let (reader, writer) = pipe().expect("a pipe");
    let setup = setup.variable("TENANTD_LOG_FILTER", "trace").stderr(OwnedFd::from(writer).into());
    let gateway = setup.start().await;
    serves_and_ends(gateway, &backend, "asleep").await;
    drop(reader);
}

#[tokio::test]
async fn a_closed_standard_error_stops_nothing() {
    let (backend, setup) = one_tenant().await;
    let gateway = setup.without_stderr().start().await;
    serves_and_ends(gateway, &backend, "closed").await;
}

#[tokio::test]
async fn every_line_has_the_log_s_format_from_the_first_to_the_last() {
    let (backend, setup) = one_tenant().await;
    let setup = setup.instead("--listen", "0.0.0.0:0").flag("--tls", "off");
    let setup = setup.variable("TENANTD_LOG_FILTER", "info,not=a=level");
    let mut gateway = setup.start().await;
    gateway.until_state("a", "serving").await;
    let port = gateway.address().port();
    gateway.signal("TERM");
    assert_eq!(gateway.until_ended().await.code(), Some(0));
    let lines = lines(&gateway.output());
    let said = |wanted: &str| {
        lines.iter().find(|line| line.to_string().contains(wanted)).unwrap_or_else(|| panic!("no {wanted}"))
    };
    assert_eq!(said("\"plain-http\"")["level"], "WARN");
    assert!(
        said("the log filter is not valid")["directive"]
            .as_str()
            .is_some_and(|text| text.contains("not=a=level"))
    );
    assert_eq!(said("\"serving\"")["listen"], format!("0.0.0.0:{port}"));
    assert_eq!(said("\"serving\"")["admin"], gateway.admin_address().to_string());
    said("all calls in progress finished");
    drop(backend);
}

#[tokio::test]
async fn what_keeps_it_from_serving_is_the_last_line_of_the_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let refusal = Setup::new().instead("--listen", &address).refusal().await;
    let lines = lines(&refusal);
    let last = lines.last().expect("it says why");
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().is_some_and(|why| why.contains("already in use")), "{last}");
}

#[test]
fn what_could_not_run_says_so_by_its_exit_code_where_nothing_can_be_printed() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("this system has one"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        vec!["serve", "--listen", &address, "--admin", "off"],
        vec!["serve", "--config", "/nowhere.yaml"],
        vec!["check", "/nowhere.zip"],
        vec!["tenants", "list", "--admin", "127.0.0.1:1"],
    ] {
        let mut command = Command::new(BINARY);
        command.args(&arguments).env_clear().env("TENANTD_LOG_FILTER", "not=a=level");
        let status = command.current_dir(folder.path()).stdout(full()).stderr(full()).status();
        assert_eq!(status.expect("it runs").code(), Some(2), "{arguments:?}");
    }
}

/// Parses the lines of a JSON log.
fn lines(text: &str) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(line).collect()
}
