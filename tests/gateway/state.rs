//! The state folder: whose it is, and what a gateway does when something is wrong with it.

use std::fs;
use std::process::{Command, Output};

use super::harness::gateway::BINARY;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

/// Runs a verb of the binary in the gateway's folder.
fn run(gateway: &Gateway, arguments: &[&str]) -> Output {
    let state = gateway.path().join("state").display().to_string();
    let output = Command::new(BINARY).args(arguments).args(["--state", &state]).env_clear().output();
    output.expect("the binary runs")
}

fn printed(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_the_folder() {
    let gateway = Setup::new().start().await;
    let state = gateway.path().join("state").display().to_string();
    let refusal = Setup::new().state(&state).refusal().await;
    assert!(refusal.contains(&format!("process {}", gateway.pid())), "{refusal}");
    assert!(refusal.contains(&state), "{refusal}");
    assert!(gateway.client().get("/nobody/").await.status == 404, "the first one serves on");
}

#[tokio::test]
async fn a_store_that_is_damaged_newer_or_without_its_key_is_refused_and_restored() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.until_state("a", "serving").await;
    let copy = gateway.path().join("copy.db");
    let admin = gateway.admin_address().to_string();
    let backup = run(&gateway, &["store", "backup", &copy.display().to_string(), "--admin", &admin]);
    assert_eq!(backup.status.code(), Some(0), "{}", printed(&backup));
    assert!(printed(&backup).contains("master key is not in it"), "{}", printed(&backup));
    let while_running = run(&gateway, &["store", "check"]);
    assert_eq!(while_running.status.code(), Some(2), "{}", printed(&while_running));
    let mut gateway = gateway.killed();
    let sound = run(&gateway, &["store", "check"]);
    assert_eq!(sound.status.code(), Some(0), "{}", printed(&sound));

    let store = gateway.path().join("state/tenantd.db");
    let whole = fs::read(&store).expect("read");
    fs::write(&store, vec![0x5a; whole.len()]).expect("written");
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("damaged") && refusal.contains("store restore"), "{refusal}");
    assert_eq!(run(&gateway, &["store", "check"]).status.code(), Some(1));
    // The schema's version is at byte 60 of an SQLite file.
    let newer = [&whole[..60], &99u32.to_be_bytes(), &whole[64..]].concat();
    let _none = fs::remove_file(gateway.path().join("state/tenantd.db-wal"));
    fs::write(&store, newer).expect("written");
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("newer"), "{refusal}");

    let restored = run(&gateway, &["store", "restore", &copy.display().to_string()]);
    assert_eq!(restored.status.code(), Some(0), "{}", printed(&restored));
    let key = gateway.path().join("state/master.key");
    let hidden = gateway.path().join("hidden.key");
    fs::rename(&key, &hidden).expect("moved");
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("master key") && refusal.contains("gone"), "{refusal}");
    fs::rename(&hidden, &key).expect("moved");
    let gateway = gateway.start_again().await;
    assert_eq!(gateway.client().search(Era::Modern, "/a", "q").await.data()["row_count"], 2);
}
