//! Files whose names are almost a tenant's: a restriction on who may call is never overlooked
//! because of its file's name.

use super::corpus::{SALES, TenantFixture};
use crate::bundle::{LoadOutcome, load};

const KEYS: &str =
    "api_keys: [{label: a, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}]\n";

fn loaded(drop: &TenantFixture, stem: &str) -> LoadOutcome {
    let entries = drop.entries();
    let entry = entries.iter().find(|entry| entry.id == stem).unwrap_or_else(|| panic!("{entries:?}"));
    load(entry, &drop.context)
}

fn codes(loaded: &LoadOutcome) -> Vec<&'static str> {
    loaded.report.iter().map(|finding| finding.code).collect()
}

#[test]
fn a_zip_does_not_open_beside_a_guard_that_is_named_almost_like_it() {
    for (name, text) in [
        ("Beta.yaml", KEYS),
        ("beta (1).yaml", KEYS),
        ("beta.zip.yaml", KEYS),
        ("beta.yaml.txt", KEYS),
        ("beta.yaml ", KEYS),
        ("beta.env.txt", "OAUTH_ENABLED=true\n"),
        ("BETA.env", "MICROSOFT_CLIENT_ID=x\n"),
        ("Beta.yml", "access:\n"),
        ("Beta.yaml", "acess: {roles: [a]}\n"),
        // An unreadable file may restrict who may call.
        ("Beta.yaml", "api_keys: [\n"),
        ("beta.yaml ", "a: \u{7f}\0"),
    ] {
        let drop = TenantFixture::new().zip("beta.zip", SALES).file(name, text);
        let loaded = loaded(&drop, "beta");
        assert_eq!(codes(&loaded), ["overlay-misnamed"], "{name}");
        assert!(loaded.spec.is_none() && loaded.access_fingerprint.is_none(), "{name}");
        let finding = loaded.report.iter().next().expect("one");
        let file = finding.location.as_ref().expect("a place").file.clone();
        assert_eq!(file, drop.path().join(name));
    }
}

#[test]
fn a_folder_and_a_yaml_of_its_own_do_not_open_beside_one_either() {
    let drop = TenantFixture::new().file("beta.yaml", SALES).file("Beta.env", "OAUTH_ENABLED=1\n");
    assert_eq!(codes(&loaded(&drop, "beta")), ["overlay-misnamed"]);
    let drop = TenantFixture::new().zip("beta/server.zip", SALES).file("beta/.env.txt", "OAUTH_ENABLED=1\n");
    assert_eq!(codes(&loaded(&drop, "beta")), ["overlay-misnamed"]);
    let drop = TenantFixture::new().zip("beta/server.zip", SALES).file("Beta.yaml", KEYS);
    assert_eq!(codes(&loaded(&drop, "beta")), ["overlay-misnamed"]);
}

#[test]
fn what_restricts_nobody_or_comes_too_late_closes_nothing() {
    for (name, text, expected) in [
        ("beta.yaml.txt", "description: Ours\n", vec!["overlay-misnamed"]),
        ("Beta.yaml", "description: Ours\n", vec!["overlay-misnamed"]),
        ("Beta.env", "OAUTH_ENABLED=false\nMICROSOFT_CLIENT_ID=\n", vec!["overlay-misnamed"]),
        ("beta (1).yaml", SALES, vec![]),
    ] {
        let drop = TenantFixture::new().zip("beta.zip", SALES).file(name, text);
        let loaded = loaded(&drop, "beta");
        assert!(loaded.spec.is_some(), "{name}");
        assert_eq!(codes(&loaded), expected, "{name}");
    }
    let guarded = TenantFixture::new().zip("beta.zip", SALES).file("beta.yaml", KEYS);
    let loaded = loaded(&guarded.file("beta.yaml.txt", KEYS).file("Beta.yaml", KEYS), "beta");
    assert!(loaded.spec.is_some());
    assert_eq!(codes(&loaded), ["overlay-misnamed"], "the stray is named");
}
