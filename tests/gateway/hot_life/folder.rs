//! Changes of the folder and its files, with and without file system events.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};
use tenantd::base::clock::{Clock, SystemClock};

use super::super::harness::gateway::may_mount;
use super::super::harness::secret::secret;
use super::super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};

/// Returns the parts of each status that do not depend on when and where the gateway was started.
async fn entries(gateway: &Gateway) -> Vec<Value> {
    let (_, text) = gateway.admin("/api/tenants").await;
    let all: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let told = ["name", "stem", "state", "on_disk", "in_force", "closed", "files"];
    all.into_iter().map(|status| told.iter().map(|key| status[*key].clone()).collect()).collect()
}

/// Asserts that the gateway is in the state of a cold start.
async fn assert_like_a_cold_start(gateway: Gateway) {
    gateway.reload().await;
    let hot = entries(&gateway).await;
    let cold = entries(&gateway.kill_and_restart().await).await;
    assert_eq!(hot, cold);
}

async fn until_the_page_says(gateway: &Gateway, words: &str) {
    let client = gateway.client();
    until(words, async || client.get("/acme/").await.text.contains(words).then_some(())).await;
}

fn edition(backend: &FakeBackend, words: &str) -> Vec<u8> {
    Tenant::new("acme", backend).with(&format!("description: {words}")).yaml()
}

#[tokio::test]
async fn a_file_written_in_place_renamed_and_moved_away() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    fs::write(gateway.tenant_file("acme.yaml"), edition(&backend, "Written in place")).expect("written");
    gateway.until_state("acme", "serving").await;
    // As editors do: a draft beside the file is renamed over it.
    fs::write(gateway.tenant_file("acme.yaml~"), edition(&backend, "Renamed within")).expect("written");
    fs::rename(gateway.tenant_file("acme.yaml~"), gateway.tenant_file("acme.yaml")).expect("renamed");
    until_the_page_says(&gateway, "Renamed within").await;
    fs::rename(gateway.tenant_file("acme.yaml"), gateway.tenant_file("beta.yaml")).expect("renamed");
    gateway.until_state("beta", "serving").await;
    gateway.until_gone("acme").await;
    fs::rename(gateway.tenant_file("beta.yaml"), gateway.path().join("away")).expect("renamed");
    gateway.until_gone("beta").await;
    assert_like_a_cold_start(gateway).await;
}

#[tokio::test]
async fn a_slowly_copied_file_is_never_open_before_its_last_line() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let keys = format!("api_keys:\n  - label: ci\n    key: {}", secret("of-the-last-line"));
    let bytes = Tenant::new("acme", &backend).with(&keys).yaml();
    let end_of_the_open_part = bytes.len() - keys.len() - 1;
    let client = gateway.client();
    // The first part alone is a complete tenant that is open to everyone. It is not loaded while it
    // keeps changing.
    for _ in 0..8 {
        fs::write(gateway.tenant_file("acme.yaml"), &bytes[..end_of_the_open_part]).expect("written");
        // The pace of the copy, which is what is tested.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(client.search(Era::Modern, "/acme", "q").await.status, 404);
    }
    for end in end_of_the_open_part..=bytes.len() {
        fs::write(gateway.tenant_file("acme.yaml"), &bytes[..end]).expect("written");
        if end % 4 == 0 {
            let status = client.search(Era::Modern, "/acme", "q").await.status;
            assert!(matches!(status, 401 | 404), "it answered {status} at {end} bytes");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    gateway.until_state("acme", "serving").await;
    assert_eq!(client.search(Era::Modern, "/acme", "q").await.status, 401);
    assert_like_a_cold_start(gateway).await;
}

#[tokio::test]
async fn an_overlay_copied_after_its_zip_lands_with_it() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let overlay = format!("api_keys:\n  - label: ci\n    key: {}\n", secret("of-the-overlay"));
    let client = gateway.client();
    let clock = SystemClock;
    // On a stalled machine the overlay may arrive too late; the test then tries again with another
    // name.
    for attempt in 0..10 {
        let name = format!("acme-{attempt}");
        let began = clock.monotonic();
        gateway.put(&format!("{name}.zip"), Tenant::new(&name, &backend).zip());
        let mut statuses = Vec::new();
        while clock.monotonic() - began < Duration::from_millis(150) {
            statuses.push(client.search(Era::Modern, &format!("/{name}"), "q").await.status);
        }
        gateway.put(&format!("{name}.yaml"), &overlay);
        if clock.monotonic() - began > Duration::from_millis(400) {
            continue;
        }
        gateway.until_state(&name, "serving").await;
        statuses.push(client.search(Era::Modern, &format!("/{name}"), "q").await.status);
        assert!(
            statuses.iter().all(|status| matches!(status, 401 | 404)),
            "it let somebody in: {statuses:?}"
        );
        assert_eq!(gateway.status(&name).await.expect("there")["revision"], 1);
        return assert_like_a_cold_start(gateway).await;
    }
    panic!("this machine never put the overlay beside its zip in time");
}

#[tokio::test]
async fn a_mounted_secret_changes_places() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let folder = gateway.tenant_file("acme");
    // As the kubelet does: files are links through `..data`, a link that is replaced by renaming.
    let publish = |version: &str, words: &str| {
        fs::create_dir_all(folder.join(version)).expect("made");
        fs::write(folder.join(version).join("tenant.yaml"), edition(&backend, words)).expect("written");
        symlink(version, folder.join("..data_tmp")).expect("linked");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renamed");
    };
    publish("..2026_1", "First edition");
    symlink("..data/tenant.yaml", folder.join("tenant.yaml")).expect("linked");
    gateway.until_state("acme", "serving").await;
    publish("..2026_2", "Second edition");
    fs::remove_dir_all(folder.join("..2026_1")).expect("removed");
    until_the_page_says(&gateway, "Second edition").await;
    assert_like_a_cold_start(gateway).await;
}

#[tokio::test]
async fn the_target_of_a_link_changes() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let target = gateway.path().join("elsewhere.yaml");
    fs::write(&target, edition(&backend, "First edition")).expect("written");
    symlink(&target, gateway.tenant_file("acme.yaml")).expect("linked");
    gateway.until_state("acme", "serving").await;
    // No event reports this change; a full scan finds it.
    fs::write(&target, edition(&backend, "Second edition")).expect("written");
    gateway.signal("HUP");
    until_the_page_says(&gateway, "Second edition").await;
    assert_like_a_cold_start(gateway).await;
}

#[tokio::test]
async fn the_folder_is_deleted_and_made_again() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("acme.yaml", edition(&backend, "First edition")).start().await;
    fs::remove_dir_all(gateway.tenant_file("")).expect("removed");
    until("it is said", async || gateway.output().contains("cannot be read").then_some(())).await;
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    fs::create_dir(gateway.tenant_file("")).expect("made");
    gateway.put("acme.yaml", edition(&backend, "Second edition"));
    until_the_page_says(&gateway, "Second edition").await;
    // The new folder is watched like the old one.
    gateway.put("acme.yaml", edition(&backend, "Third edition"));
    until_the_page_says(&gateway, "Third edition").await;
    assert_like_a_cold_start(gateway).await;
}

#[tokio::test]
async fn another_folder_takes_its_place() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("old.yaml", Tenant::new("old", &backend).yaml()).start().await;
    let next = gateway.path().join("next");
    fs::create_dir(&next).expect("made");
    fs::write(next.join("acme.yaml"), edition(&backend, "In the new folder")).expect("written");
    fs::rename(gateway.tenant_file(""), gateway.path().join("former")).expect("renamed");
    fs::rename(next, gateway.tenant_file("")).expect("renamed");
    until_the_page_says(&gateway, "In the new folder").await;
    gateway.until_gone("old").await;
    assert_like_a_cold_start(gateway).await;
}

#[tokio::test]
async fn an_empty_volume_over_the_folder_removes_nobody() {
    if !may_mount() {
        return;
    }
    let backend = FakeBackend::start().await;
    let setup = Setup::new().after_mounting("mount --make-rprivate /");
    let gateway = setup.file("acme.yaml", edition(&backend, "Below the mount")).start().await;
    let before = entries(&gateway).await;
    gateway.among_its_mounts("mount -t tmpfs none tenants.d");
    gateway.reload().await;
    assert!(gateway.output().contains("replaced by an empty one"), "it was not noticed");
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    gateway.among_its_mounts("umount tenants.d");
    gateway.reload().await;
    assert_eq!(entries(&gateway).await, before);
    // A mounted volume that contains tenants takes effect at once.
    let beta = gateway.path().join("beta.yaml");
    fs::write(&beta, Tenant::new("beta", &backend).yaml()).expect("written");
    gateway.among_its_mounts("mount -t tmpfs none tenants.d && cp beta.yaml tenants.d");
    gateway.reload().await;
    let stems: Vec<_> = entries(&gateway).await.into_iter().map(|entry| entry[1].clone()).collect();
    assert_eq!(stems, [json!("beta")]);
}
