//! Which data a tenant's files give access to, so that a copy of them is recognized.

use url::Url;

use super::document::ConfigDocument;
use super::layers::Layers;
use super::source_text::DocumentOrigin;
use crate::base::secret::Secret;
use crate::spec::{DataFingerprint, DataFingerprints};

/// Returns what the files give access to with `key`, and what the export alone gives access to.
pub(super) fn compute(layers: &Layers, key: Option<&Secret>) -> DataFingerprints {
    let text = |name: &str| layers.find_text(&[name]);
    let effective = key.map(|key| fingerprint_endpoints(text, key)).unwrap_or_default();
    let export_only = compute_export_only(layers);
    let export_only =
        export_only.into_iter().filter(|fingerprint| !effective.contains(fingerprint)).collect();
    DataFingerprints { effective, export_only }
}

/// Returns what the export alone gives access to.
pub(super) fn compute_export_only(layers: &Layers) -> Vec<DataFingerprint> {
    let is_export = |document: &&ConfigDocument| document.source.origin == DocumentOrigin::Export;
    let Some(export) = layers.0.iter().find(is_export) else { return Vec::new() };
    let text = |name: &str| export.find(&[name]).and_then(|found| found.text());
    text("api_key").map(|key| fingerprint_endpoints(text, &Secret::new(key))).unwrap_or_default()
}

fn fingerprint_endpoints<'a>(text: impl Fn(&str) -> Option<&'a str>, key: &Secret) -> Vec<DataFingerprint> {
    let connection_id = text("connection_id");
    let fingerprint =
        |name| Some(DataFingerprint::compute(&Url::parse(text(name)?).ok()?, key, connection_id));
    ["search_url", "context_url"].into_iter().filter_map(fingerprint).collect()
}
