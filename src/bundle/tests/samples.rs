//! The sample values in our own documents and manifests are refused as secrets: no tenant may serve
//! with a key that is published there.

use std::path::{Path, PathBuf};

use super::corpus::TenantFixture;

/// Fields whose values are secrets or digests of secrets.
const FIELDS: &[&str] = &[
    "api_key",
    "key",
    "secret",
    "sha256",
    "microsoft_client_secret",
    "microsoft_client_secret_next",
    "API_KEY",
    "MICROSOFT_CLIENT_SECRET",
];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        return found.push(path.to_owned());
    }
    for entry in std::fs::read_dir(path).expect("a folder") {
        files(&entry.expect("an entry").path(), found);
    }
}

/// Returns the field and value of `field: value` or `FIELD=value`, without comments and quotes.
fn sample(line: &str) -> Option<(&'static str, String)> {
    let line = line.trim_start().trim_start_matches("- ").trim_start_matches("export ");
    let (name, rest) = line.split_once([':', '='])?;
    let field = FIELDS.iter().find(|field| **field == name)?;
    let value = rest.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    // A variable's name is not a value, and an empty one is a mapping on the next lines.
    (!value.is_empty() && !value.starts_with("${")).then(|| (*field, value.to_owned()))
}

fn samples() -> Vec<(PathBuf, &'static str, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![];
    for place in ["README.md", "SECURITY.md", "docs", "deploy", "tenants.d"] {
        files(&root.join(place), &mut all);
    }
    let mut samples = Vec::new();
    for file in all {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let found = text.lines().filter_map(sample);
        samples.extend(found.map(|(field, value)| (file.clone(), field, value)));
    }
    samples
}

/// Returns a tenant that uses the value in its field.
fn tenant(field: &str, value: &str) -> TenantFixture {
    match field {
        "api_key" => TenantFixture::with(&format!("api_key: {value}\n")),
        "API_KEY" => TenantFixture::export("").file("acme.env", format!("API_KEY={value}\n")),
        "key" | "secret" | "sha256" => {
            let field = if field == "secret" { "key" } else { field };
            TenantFixture::with(&format!("api_keys:\n  - label: ci\n    {field}: {value}\n"))
        }
        _ => TenantFixture::with(&format!(
            "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n\
             microsoft_tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47\nmicrosoft_client_secret: {value}\n"
        )),
    }
}

#[test]
fn secrets_shown_in_our_documents_are_refused() {
    let samples = samples();
    assert!(samples.len() >= 6, "the documents were not understood: {samples:?}");
    for (file, field, value) in samples {
        let drop = tenant(field, &value);
        let loaded = drop.load();
        assert!(loaded.spec.is_none(), "{}: {field} {value:?} is taken for a secret", file.display());
    }
}

#[test]
fn values_of_that_kind_are_taken_when_they_are_real() {
    let digest = "0123456789abcdef".repeat(4);
    for (field, value) in [
        ("api_key", "key-of-sales-0001"),
        ("API_KEY", "key-of-sales-0001"),
        ("key", "k3y-of-a-caller-that-is-long-enough"),
        ("sha256", digest.as_str()),
        ("microsoft_client_secret", "gTx8Q~0123456789abcdefghijklmnopqrstu"),
    ] {
        let drop = tenant(field, value);
        assert!(drop.load().spec.is_some(), "{field}: {}", drop.findings());
    }
}
