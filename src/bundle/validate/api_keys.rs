//! Static keys of programs that call a tenant without login.

use jiff::Timestamp;

use super::credential::Credential;
use super::moment;
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::document::{ConfigDocument, FoundValue};
use crate::bundle::tree::{ConfigNode, ConfigValue};
use crate::spec::ApiKeySpec;

const MAX_KEYS: usize = 16;

/// Returns the list of keys in force. An empty list closes the tenant instead of opening it.
pub(super) fn find_declared<'a>(validation: &mut Validation<'a, '_>) -> Option<FoundValue<'a>> {
    let found = validation.find_written(&["api_keys"])?;
    let empty =
        found.node.is_blank() || matches!(&found.node.value, ConfigValue::List(items) if items.is_empty());
    if empty {
        validation.add_finding(
            Diagnostic::error("api-keys-empty", "api_keys lists no key; the tenant stays closed").help(
                "add a key (tenantd apikey new creates one), or remove the line if the tenant should be open",
            ),
            Some(found.location()),
        );
    }
    Some(found)
}

/// Returns the valid keys of a list.
pub(super) fn validate(validation: &mut Validation<'_, '_>, found: &FoundValue<'_>) -> Vec<ApiKeySpec> {
    let ConfigValue::List(items) = &found.node.value else { return Vec::new() };
    if items.len() > MAX_KEYS {
        validation.add_finding(
            Diagnostic::error(
                "api-keys-many",
                format!("api_keys lists {} keys; at most {MAX_KEYS} are allowed", items.len()),
            )
            .help("use one key per caller, and a second one only while you rotate it"),
            Some(found.location()),
        );
        return Vec::new();
    }
    let mut keys: Vec<ApiKeySpec> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if !matches!(item.value, ConfigValue::Map(_)) {
            // The shape of the list was checked before.
            continue;
        }
        let at = found.document.source.location_at(item.at);
        let Some(key) = validate_key(validation, found.document, item, index) else { continue };
        for (code, what) in find_collisions(&keys, &key) {
            validation.add_finding(
                Diagnostic::error(code, what).help("give every caller its own label and key"),
                Some(at.clone()),
            );
        }
        keys.push(key);
    }
    keys
}

fn find_collisions(keys: &[ApiKeySpec], key: &ApiKeySpec) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if keys.iter().any(|earlier| earlier.digest == key.digest) {
        found.push(("api-key-twice", "the same key is listed twice".to_owned()));
    }
    if keys.iter().any(|earlier| earlier.label == key.label) {
        found.push(("api-key-label-twice", "two keys have the same label".to_owned()));
    }
    found
}

fn validate_key(
    validation: &mut Validation<'_, '_>,
    document: &ConfigDocument,
    item: &ConfigNode,
    index: usize,
) -> Option<ApiKeySpec> {
    let key = Credential {
        document,
        item,
        plain_field: "key",
        code: "api-key-invalid",
        help: "tenantd apikey new creates a key and the lines for this list",
    };
    let digest = key.digest(validation);
    let label = key.label(validation, format!("key-{}", index + 1));
    let expires = validate_expiry(validation, &key);
    Some(ApiKeySpec { label: label?, digest: digest?, expires: expires? })
}

/// Returns when a key expires: `None` if the text is invalid, `Some(None)` for never.
fn validate_expiry(validation: &mut Validation<'_, '_>, key: &Credential<'_>) -> Option<Option<Timestamp>> {
    let Some(node) = key.member("expires") else { return Some(None) };
    let text = node.text()?;
    let moment = moment::parse_end(text);
    if moment.is_none() {
        let at = key.document.source.location_at(node.at);
        key.report_error(
            validation,
            at,
            "expires must be a date (2027-01-31) or a time (2027-01-31T12:00:00Z)",
        );
    }
    moment.map(Some)
}
