//! Overlay files that operators put beside an export: however they are named, the export is never
//! served without its guards.

use reqwest::Method;

use super::harness::client::read;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

const KEYS: &str =
    "api_keys: [{label: a, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}]\n";

async fn anonymous(gateway: &Gateway, name: &str) -> u16 {
    gateway.client().search(Era::Modern, &format!("/{name}"), "q").await.status
}

#[tokio::test]
async fn an_overlay_whose_name_is_not_quite_its_zips_closes_the_zip_until_it_is_named_right() {
    let backend = FakeBackend::start().await;
    let zip = |name: &str| Tenant::new(name, &backend).zip();
    let setup = Setup::new().file("Beta.yaml", KEYS).file("beta.zip", zip("beta"));
    let setup = setup.file("acme.zip", zip("acme")).file("mu\u{308}ller.yaml", KEYS);
    let gateway = setup.file("m\u{fc}ller.zip", zip("mller")).start().await;
    for closed in ["beta", "m-ller"] {
        let status = gateway.until_state(closed, "rejected").await;
        assert!(status["findings"].to_string().contains("overlay-misnamed"), "{status}");
        assert_eq!(anonymous(&gateway, closed).await, 404);
    }
    // The same while the gateway serves: each overlay appears, closes the export, and is deleted
    // again.
    for (name, text) in [
        ("ACME.yaml", KEYS),
        ("acme (1).yaml", KEYS),
        ("acme.zip.yaml", KEYS),
        ("acme.yaml.txt", KEYS),
        ("acme.yaml ", KEYS),
        ("acme.env.txt", "OAUTH_ENABLED=true\n"),
    ] {
        gateway.until_state("acme", "serving").await;
        assert_eq!(anonymous(&gateway, "acme").await, 200, "before {name}");
        gateway.put(name, text);
        let status = gateway.until_state("acme", "stale").await;
        assert!(status["findings"].to_string().contains("overlay-misnamed"), "{name}: {status}");
        assert_eq!(anonymous(&gateway, "acme").await, 503, "{name}");
        // Whoever posts messages is told in JSON-RPC, at the base as at the endpoint.
        for path in ["/acme", "/acme/", "/acme/mcp"] {
            let refused = gateway.client().request(Method::POST, path).body("{}");
            let refused = read(refused.send().await.expect("an answer")).await;
            assert_eq!(
                (refused.status, &refused.json()["jsonrpc"]),
                (503, &"2.0".into()),
                "{path}: {refused:?}"
            );
        }
        gateway.remove(name);
    }
    gateway.until_state("acme", "serving").await;
    // The overlay may arrive before its zip.
    gateway.put("gamma.env.txt", "OAUTH_ENABLED=true\n");
    gateway.reload().await;
    gateway.put("gamma.zip", zip("gamma"));
    gateway.until_state("gamma", "rejected").await;
    std::fs::rename(gateway.tenant_file("Beta.yaml"), gateway.tenant_file("beta.yaml")).expect("renamed");
    gateway.until_state("beta", "serving").await;
    assert_eq!(anonymous(&gateway, "beta").await, 401);
}

#[tokio::test]
async fn a_copy_of_a_guarded_zip_is_no_open_tenant_whatever_it_is_called() {
    let backend = FakeBackend::start().await;
    let zip = || Tenant::new("acme", &backend).zip();
    let setup = Setup::new().file("acme.zip", zip()).file("acme.yaml", KEYS).file("acme - Copy.zip", zip());
    let gateway = setup.start().await;
    let refused = async |name: &str| {
        let status = gateway.until_state(name, "rejected").await;
        assert!(status["findings"].to_string().contains("backend-guarded"), "{status}");
        assert_eq!(anonymous(&gateway, name).await, 404, "{name}");
    };
    refused("acme---copy").await;
    for (file, name) in [
        ("acme (1).zip", "acme--1"),
        ("acme.bak.zip", "acme-bak"),
        ("acme_old.zip", "acme-old"),
        ("acme.zip.zip", "acme-zip"),
        ("elsewhere.zip", "elsewhere"),
    ] {
        gateway.put(file, zip());
        refused(name).await;
    }
    assert_eq!(anonymous(&gateway, "acme").await, 401);
    // Its operator says that it is meant.
    gateway.put("elsewhere.yaml", "open: true\n");
    gateway.until_state("elsewhere", "serving").await;
    assert_eq!(anonymous(&gateway, "elsewhere").await, 200);
    // The original going away opens no copy.
    gateway.remove("acme.yaml");
    gateway.remove("acme.zip");
    gateway.until_gone("acme").await;
    gateway.reload().await;
    assert_eq!(anonymous(&gateway, "acme-bak").await, 404);
}

#[tokio::test]
async fn who_was_open_before_another_guarded_the_same_goes_on_and_is_told() {
    let backend = FakeBackend::start().await;
    let zip = || Tenant::new("acme", &backend).zip();
    let gateway = Setup::new().file("copy.zip", zip()).start().await;
    gateway.until_state("copy", "serving").await;
    gateway.put("acme.yaml", KEYS);
    gateway.put("acme.zip", zip());
    gateway.until_state("acme", "serving").await;
    let is_told = |status: &serde_json::Value| status["findings"].to_string().contains("backend-guarded");
    let status = gateway.until_state("copy", "serving").await;
    assert!(is_told(&status), "{status}");
    assert_eq!(anonymous(&gateway, "copy").await, 200);
    // It stays so over a change that is about something else, and over a restart.
    gateway.put("copy.yaml", "description: Ours\n");
    gateway.reload().await;
    let gateway = gateway.kill_and_restart().await;
    let status = gateway.until_state("copy", "serving").await;
    assert!(is_told(&status), "{status}");
    assert_eq!(anonymous(&gateway, "copy").await, 200);
    gateway.remove("acme.zip");
    gateway.remove("acme.yaml");
    gateway.until_gone("acme").await;
    assert!(!is_told(&gateway.until_state("copy", "serving").await));
}
