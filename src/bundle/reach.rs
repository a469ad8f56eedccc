//! Which data a tenant's files give access to, so that a copy of them is recognized.

use url::Url;

use super::document::ConfigDocument;
use super::layers::Layers;
use super::source_text::DocumentOrigin;
use crate::base::secret::Secret;
use crate::spec::{Reach, Reaches};

/// Returns what the files give access to with `key`, and what the export alone gives access to.
pub(super) fn of(layers: &Layers, key: Option<&Secret>) -> Reaches {
    let text = |name: &str| layers.find_text(&[name]);
    let own = key.map(|key| reaches(text, key)).unwrap_or_default();
    let bare = bare(layers).into_iter().filter(|reach| !own.contains(reach)).collect();
    Reaches { own, bare }
}

/// Returns what the export alone gives access to.
pub(super) fn bare(layers: &Layers) -> Vec<Reach> {
    let of_export = |document: &&ConfigDocument| document.source.origin == DocumentOrigin::Export;
    let Some(export) = layers.0.iter().find(of_export) else { return Vec::new() };
    let text = |name: &str| export.find(&[name]).and_then(|found| found.text());
    text("api_key").map(|key| reaches(text, &Secret::new(key))).unwrap_or_default()
}

fn reaches<'a>(text: impl Fn(&str) -> Option<&'a str>, key: &Secret) -> Vec<Reach> {
    let connection_id = text("connection_id");
    let reach = |name| Some(Reach::of(&Url::parse(text(name)?).ok()?, key, connection_id));
    ["search_url", "context_url"].into_iter().filter_map(reach).collect()
}
