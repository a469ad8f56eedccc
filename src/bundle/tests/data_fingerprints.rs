//! What a tenant's files give access to: the same for a copy, whatever lies beside the original.

use super::corpus::{SALES, TenantFixture};
use crate::spec::DataFingerprint;

const KEYS: &str =
    "api_keys: [{label: a, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}]\n";

/// Returns what the export alone gives access to.
fn of_a_copy() -> Vec<DataFingerprint> {
    TenantFixture::new().zip("acme copy.zip", SALES).spec().implicitly_open_data().to_vec()
}

fn restricted_data(drop: &TenantFixture) -> Vec<DataFingerprint> {
    drop.load().restricted_data.map(|restricted| restricted.all().collect()).unwrap_or_default()
}

#[test]
fn a_copy_of_an_export_gives_out_what_the_original_guards() {
    assert_eq!(of_a_copy().len(), 2);
    let original = |file: &str, text: &str| TenantFixture::new().zip("acme.zip", SALES).file(file, text);
    for (file, text) in [
        ("acme.yaml", KEYS.to_owned()),
        // The operator's files may replace what the export says.
        ("acme.yaml", format!("{KEYS}api_key: another-0002\nsearch_url: https://inner.test/nlp-search\n")),
        // Files that cannot be used may guard all the same: a typo, a missing secret, an unreadable
        // text.
        ("acme.yaml", "api_kesy: [{label: a}]\n".to_owned()),
        ("acme.env", "OAUTH_ENABLED=true\n".to_owned()),
        ("acme.yaml", "api_keys: [\n".to_owned()),
        ("acme.yaml", format!("{KEYS}deadline: soon\n")),
        ("acme.yaml", format!("{KEYS}path_prefix: ../x\n")),
        ("Acme.yaml", KEYS.to_owned()),
    ] {
        let drop = original(file, &text);
        let entry = drop.entries().into_iter().find(|entry| entry.id == "acme").expect("there");
        let restricted =
            crate::bundle::load(&entry, &drop.context).restricted_data.unwrap_or_else(|| panic!("{text}"));
        let restricted: Vec<_> = restricted.all().collect();
        assert!(of_a_copy().iter().all(|fingerprint| restricted.contains(fingerprint)), "{file}: {text}");
    }
}

#[test]
fn what_is_open_guards_nothing_and_says_what_it_opens() {
    assert!(restricted_data(&TenantFixture::new().zip("acme.zip", SALES)).is_empty());
    for broken in ["deadline: soon\n", "path_prefix: ../x\n", "search_url: nowhere\n"] {
        assert!(
            restricted_data(&TenantFixture::new().zip("acme.zip", SALES).file("acme.yaml", broken))
                .is_empty(),
            "{broken}"
        );
    }
    for meant in ["open: true\n", "public: true\n"] {
        assert!(
            TenantFixture::new()
                .zip("acme.zip", SALES)
                .file("acme.yaml", meant)
                .spec()
                .implicitly_open_data()
                .is_empty(),
            "{meant}"
        );
    }
    for not_meant in ["open: false\n", "public: false\n"] {
        let drop = TenantFixture::new().zip("acme.zip", SALES).file("acme.yaml", not_meant);
        assert_eq!(drop.spec().implicitly_open_data(), of_a_copy(), "{not_meant}");
    }
    // An export cannot open its own tenant.
    let drop = TenantFixture::export("open: true\n");
    assert_eq!((drop.codes(), drop.spec().implicitly_open_data().len()), (vec!["export-ignored"], 2));
    // Another key or another connection counts as other data.
    for other in ["api_key: another-0002\n", "connection_id: another\n"] {
        let drop = TenantFixture::new().zip("acme.zip", SALES).file("acme.yaml", other);
        assert!(
            drop.spec().implicitly_open_data().iter().all(|fingerprint| !of_a_copy().contains(fingerprint)),
            "{other}"
        );
    }
}

#[test]
fn what_opens_says_nothing_beside_what_closes() {
    for name in ["open", "public"] {
        let drop = TenantFixture::with(&format!("{KEYS}{name}: true\n"));
        assert_eq!(drop.codes(), ["public-needless"]);
        assert!(drop.spec().implicitly_open_data().is_empty() && !restricted_data(&drop).is_empty());
    }
}
