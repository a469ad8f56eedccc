//! A full disk, a read-only folder and unreadable files.

use std::fs;

use super::super::harness::gateway::may_mount;
use super::super::harness::{Era, FakeBackend, Setup, Tenant, until};

#[tokio::test]
async fn a_full_disk_costs_the_receipts_and_nothing_else() {
    if !may_mount() {
        return;
    }
    let backend = FakeBackend::start().await;
    let full = "cp -a tenants.d kept && mount -t tmpfs -o size=16k none tenants.d && cp -a kept/. tenants.d/\n\
                dd if=/dev/zero of=tenants.d/.fill bs=1k 2>&1 | true";
    let setup = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).after_mounting(full);
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    until("it is said", async || gateway.output().contains("status files cannot be written").then_some(()))
        .await;
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    assert_eq!(gateway.output().matches("status files cannot be written").count(), 1);
    gateway.among_its_mounts("! ls -A tenants.d | grep -F .tmp");
    // With space again, the next change has its receipt.
    gateway.among_its_mounts("rm tenants.d/.fill tenants.d/acme.zip");
    gateway.until_gone("acme").await;
    gateway.among_its_mounts("cp kept/acme.zip tenants.d/");
    gateway.until_state("acme", "serving").await;
    gateway.among_its_mounts(
        "for n in $(seq 300); do grep -qs serving tenants.d/acme.status.json && exit; sleep 0.1; done; exit 1",
    );
}

#[tokio::test]
async fn a_read_only_folder_is_served_without_receipts() {
    if !may_mount() {
        return;
    }
    let backend = FakeBackend::start().await;
    let lines = "mount --bind tenants.d tenants.d && mount -o remount,bind,ro tenants.d";
    let setup = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip()).after_mounting(lines);
    let gateway = setup.start().await;
    gateway.until_state("acme", "serving").await;
    until("it is said", async || gateway.output().contains("status files cannot be written").then_some(()))
        .await;
    assert!(!gateway.tenant_file("acme.status.json").exists());
    // The folder still changes from outside the mount.
    gateway.put("beta.zip", Tenant::new("beta", &backend).zip());
    gateway.until_state("beta", "serving").await;
}

/// Root can read any file, so a folder takes the file's place: nobody can read it as a file.
#[tokio::test]
async fn what_cannot_be_read_is_said_and_costs_its_own_tenant_only() {
    let backend = FakeBackend::start().await;
    let setup = Setup::new().file("acme.zip", Tenant::new("acme", &backend).zip());
    let gateway = setup.start().await;
    fs::create_dir(gateway.tenant_file("beta.yaml")).expect("made");
    let status = gateway.until_state("beta", "rejected").await;
    assert!(
        status["findings"][0]["help"].as_str().is_some_and(|help| help.contains("regular file")),
        "{status}"
    );
    assert_eq!(gateway.client().search(Era::Modern, "/acme", "q").await.data()["row_count"], 2);
    fs::remove_dir(gateway.tenant_file("beta.yaml")).expect("removed");
    gateway.put("beta.yaml", Tenant::new("beta", &backend).yaml());
    gateway.until_state("beta", "serving").await;
}
