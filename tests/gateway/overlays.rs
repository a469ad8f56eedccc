//! Files that operators put beside an export: whatever they are called, the export never serves without its guards.

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
    // The same while it serves: each comes, closes it, and goes.
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
        gateway.remove(name);
    }
    gateway.until_state("acme", "serving").await;
    // The zip may come after it.
    gateway.put("gamma.env.txt", "OAUTH_ENABLED=true\n");
    gateway.reload().await;
    gateway.put("gamma.zip", zip("gamma"));
    gateway.until_state("gamma", "rejected").await;
    std::fs::rename(gateway.tenant_file("Beta.yaml"), gateway.tenant_file("beta.yaml")).expect("renamed");
    gateway.until_state("beta", "serving").await;
    assert_eq!(anonymous(&gateway, "beta").await, 401);
}
