//! `machine_clients:`: programs that obtain tokens of their own, such as the Teams agent.

use std::sync::Arc;

use super::credential::Credential;
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::document::FoundValue;
use crate::bundle::tree::ConfigValue;
use crate::spec::MachineClientSpec;

const MAX_CLIENTS: usize = 16;
const MAX_KEYS: usize = 8;
/// Members of private keys (RFC 7518 section 6).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// The id of another client, which no program may have.
pub(super) struct ReservedId {
    pub(super) id: Option<Arc<str>>,
    /// What is wrong with it.
    pub(super) why: &'static str,
}

/// Returns the valid machine clients.
pub(super) fn validate(validation: &mut Validation<'_, '_>, reserved: &ReservedId) -> Vec<MachineClientSpec> {
    let Some(found) = validation.layers.find(&["machine_clients"]) else { return Vec::new() };
    let ConfigValue::List(items) = &found.node.value else { return Vec::new() };
    if items.len() > MAX_CLIENTS {
        let what =
            format!("machine_clients lists {} programs; at most {MAX_CLIENTS} are allowed", items.len());
        let help = "use one entry per program";
        validation.add_finding(
            Diagnostic::error("machine-client-invalid", what).help(help),
            Some(found.location()),
        );
        return Vec::new();
    }
    let mut clients: Vec<MachineClientSpec> = Vec::new();
    // The shape of the list was checked before.
    for item in items.iter().filter(|item| matches!(item.value, ConfigValue::Map(_))) {
        let entry = Credential {
            document: found.document,
            item,
            plain_field: "secret",
            code: "machine-client-invalid",
            help: "give each program an id, and a secret (as sha256: or secret_file:) or jwks",
        };
        let Some(client) = validate_client(validation, &entry, reserved) else { continue };
        if clients.iter().any(|earlier| earlier.id == client.id) {
            entry.report_error(validation, entry.location(), "two programs have the same id");
        }
        clients.push(client);
    }
    clients
}

fn validate_client(
    validation: &mut Validation<'_, '_>,
    entry: &Credential<'_>,
    reserved: &ReservedId,
) -> Option<MachineClientSpec> {
    let id = validate_id(validation, entry, reserved);
    let jwks = validate_jwks(validation, entry);
    let has_keys = entry.member("jwks").is_some();
    let secret = match has_keys && !entry.is_given() {
        true => Some(None),
        false => entry.digest(validation).map(Some),
    };
    let roles = validate_roles(validation, entry);
    let id = id?;
    let label = entry.label(validation, id.to_string())?.into();
    Some(MachineClientSpec { id, label, secret: secret?, jwks: jwks?, roles: roles? })
}

/// Parses a client id without dots and slashes: generated ids, and those that are URLs, have them.
fn validate_id(
    validation: &mut Validation<'_, '_>,
    entry: &Credential<'_>,
    reserved: &ReservedId,
) -> Option<Arc<str>> {
    let Some(node) = entry.member("id") else {
        return entry.reject(validation, entry.location(), "the id is missing");
    };
    let text = node.text()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let at = entry.document.source.location_at(node.at);
    if !plain || text.len() > 64 {
        return entry.reject(validation, at, "the id must have 1 to 64 characters of A-Z a-z 0-9 _ -");
    }
    if reserved.id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(text)) {
        return entry.reject(validation, at, reserved.why);
    }
    Some(text.into())
}

/// Returns the public keys: `None` if they are refused, `Some(None)` if there are none.
fn validate_jwks(validation: &mut Validation<'_, '_>, entry: &Credential<'_>) -> Option<Option<Arc<str>>> {
    let Some(node) = entry.member("jwks") else { return Some(None) };
    let set = node.to_json();
    let at = entry.document.source.location_at(node.at);
    let keys = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return entry.reject(validation, at, format!("jwks must contain 1 to {MAX_KEYS} public keys"));
    }
    if keys.iter().any(|key| PRIVATE.iter().any(|member| key.get(member).is_some())) {
        return entry.reject(
            validation,
            at,
            "jwks contains a private or symmetric key; write only the public key here",
        );
    }
    let usable = |key: &serde_json::Value| match key["kty"].as_str() {
        Some("RSA") => key["n"].is_string() && key["e"].is_string(),
        Some("EC") => key["crv"] == "P-256" && key["x"].is_string() && key["y"].is_string(),
        _ => false,
    };
    match keys.iter().all(usable) {
        true => Some(Some(set.to_string().into())),
        false => {
            entry.reject(validation, at, "jwks contains a key that is neither RSA (n, e) nor EC P-256 (x, y)")
        }
    }
}

fn validate_roles(validation: &mut Validation<'_, '_>, entry: &Credential<'_>) -> Option<Vec<Arc<str>>> {
    let Some(node) = entry.member("roles") else { return Some(Vec::new()) };
    let found = FoundValue { node, document: entry.document };
    let roles: Vec<Arc<str>> = found.list_items().into_iter().map(Arc::from).collect();
    match roles.len() <= 32 && roles.iter().all(|role| role.len() <= 120) {
        true => Some(roles),
        false => entry.reject(
            validation,
            found.location(),
            "roles has more than 32 items, or one that is too long",
        ),
    }
}
