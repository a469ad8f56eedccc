//! Who may call: static keys, or nobody in particular. Doubt closes.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::Case;
use crate::base::diagnostic::{Diagnostic, Location, Severity};
use crate::base::digest::{Digest, Hasher};
use crate::bundle::document::{Document, Found};
use crate::bundle::placeholder::is_placeholder;
use crate::bundle::yaml::{Node, Value};
use crate::spec::{AccessSpec, ApiKeySpec};

const MAX_KEYS: usize = 16;
const MIN_KEY_CHARS: usize = 24;

/// The keys, and whether the tenant is open to all; and the digest of all that decides who may call, unless some of it
/// could not be read with certainty.
pub(super) fn judge(case: &mut Case<'_, '_>) -> (AccessSpec, Option<Digest>) {
    let before = errors(case);
    refuse_what_is_not_there_yet(case);
    let declared = declared(case);
    let api_keys = declared.map(|found| keys(case, &found)).unwrap_or_default();
    let public = case.layers.flag(&["public"]).unwrap_or(false);
    let access = AccessSpec { api_keys, login: None, public };
    let certain = errors(case) == before && !case.layers.0.iter().any(|document| document.in_doubt);
    let digest = certain.then(|| fingerprint(case, &access));
    if access.is_open() && declared.is_none() && case.context.require_auth {
        case.find(
            Diagnostic::error(
                "open-tenant",
                "the tenant asks for no credential, and this gateway refuses such tenants",
            )
            .help("list api_keys in its .yaml (tenantd apikey new makes one), or run without --require-auth"),
            None,
        );
    }
    if access.public && !access.is_open() {
        let at = case.layers.find(&["public"]).map(|found| found.at());
        case.find(
            Diagnostic::notice("public-needless", "public says nothing: callers need a key from anywhere")
                .help("remove one of public and api_keys"),
            at,
        );
    }
    (access, digest)
}

fn errors(case: &Case<'_, '_>) -> usize {
    case.report.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

fn fingerprint(case: &Case<'_, '_>, access: &AccessSpec) -> Digest {
    let mut hasher = Hasher::new();
    let mut field = |text: &str| hasher.field(text.as_bytes());
    field(&format!("{:?} {}", case.layers.flag(&["oauth_enabled"]), access.public));
    for name in super::login::MICROSOFT {
        field(case.layers.text(&[name]).unwrap_or_default());
        field(case.layers.text(&[&format!("{name}_file")]).unwrap_or_default());
    }
    for key in &access.api_keys {
        field(&key.label);
        field(&format!("{} {:?}", key.digest, key.expires));
    }
    hasher.finish()
}

fn refuse_what_is_not_there_yet(case: &mut Case<'_, '_>) {
    for name in ["access", "machine_clients"] {
        if let Some(found) = present(case, name) {
            case.find(
                Diagnostic::error(
                    "access-unavailable",
                    format!("{name} is not available in this version; the tenant stays closed"),
                )
                .help("use api_keys to say who may call, or remove it"),
                Some(found.at()),
            );
        }
    }
}

/// A value that was written down, even a blank one: `access:` with nothing behind it is no wish to be open.
fn present<'a>(case: &Case<'a, '_>, name: &str) -> Option<Found<'a>> {
    case.layers.0.iter().rev().find_map(|document| {
        let (_, node) = document.root.member(name)?;
        Some(Found { node, document })
    })
}

/// The list of keys that counts. A list that is there and holds nothing closes the tenant instead of opening it.
fn declared<'a>(case: &mut Case<'a, '_>) -> Option<Found<'a>> {
    let found = present(case, "api_keys")?;
    let empty = found.node.is_blank() || matches!(&found.node.value, Value::List(items) if items.is_empty());
    if empty {
        case.find(
            Diagnostic::error("api-keys-empty", "api_keys lists no key; the tenant stays closed").help(
                "add a key (tenantd apikey new makes one), or remove the line if the tenant is to be open",
            ),
            Some(found.at()),
        );
    }
    Some(found)
}

fn keys(case: &mut Case<'_, '_>, found: &Found<'_>) -> Vec<ApiKeySpec> {
    let Value::List(items) = &found.node.value else { return Vec::new() };
    if items.len() > MAX_KEYS {
        case.find(
            Diagnostic::error(
                "api-keys-many",
                format!("api_keys lists {} keys; 16 are allowed", items.len()),
            )
            .help("one key per caller and one more while it is rotated is what keys are for"),
            Some(found.at()),
        );
        return Vec::new();
    }
    let mut keys: Vec<ApiKeySpec> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if !matches!(item.value, Value::Map(_)) {
            // The shape of the list was judged before.
            continue;
        }
        let at = found.document.source.at(item.at);
        let Some(key) = key(case, found.document, item, index) else { continue };
        for (code, what) in collisions(&keys, &key) {
            case.find(
                Diagnostic::error(code, what).help("give every caller a label and a key of its own"),
                Some(at.clone()),
            );
        }
        keys.push(key);
    }
    keys
}

fn collisions(keys: &[ApiKeySpec], key: &ApiKeySpec) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if keys.iter().any(|earlier| earlier.digest == key.digest) {
        found.push(("api-key-twice", "the same key is listed twice".to_owned()));
    }
    if keys.iter().any(|earlier| earlier.label == key.label) {
        found.push(("api-key-label-twice", "two keys have the same label".to_owned()));
    }
    found
}

fn key(case: &mut Case<'_, '_>, document: &Document, item: &Node, index: usize) -> Option<ApiKeySpec> {
    let at = document.source.at(item.at);
    let digest = digest(case, document, item, &at);
    let label = label(case, document, item, index);
    let expires = expires(case, document, item);
    Some(ApiKeySpec { label: label?, digest: digest?, expires: expires? })
}

fn digest(case: &mut Case<'_, '_>, document: &Document, item: &Node, at: &Location) -> Option<Digest> {
    let given = |name| item.member(name).map(|(_, node)| node).filter(|node| !node.is_blank());
    let plain = given("key").or_else(|| given("key_file"));
    match (given("sha256"), plain) {
        (Some(node), None) => sha256(case, document, node),
        (None, Some(_)) => plain_key(case, document, item),
        (Some(_), Some(_)) => refuse_key(case, at, "both sha256 and key are given"),
        (None, None) => refuse_key(case, at, "neither sha256 nor key is given"),
    }
}

fn sha256(case: &mut Case<'_, '_>, document: &Document, node: &Node) -> Option<Digest> {
    let digest = node.text().and_then(Digest::parse_hex);
    if digest.is_none() {
        refuse_key::<()>(case, &document.source.at(node.at), "sha256 must be 64 hexadecimal digits");
    }
    digest
}

fn plain_key(case: &mut Case<'_, '_>, document: &Document, item: &Node) -> Option<Digest> {
    let in_the_file = item
        .member("key")
        .is_some_and(|(_, node)| !node.is_blank() && !node.text().unwrap_or_default().starts_with("${"));
    let resolved = case.resolver.member(document, item, "key", case.report)?;
    let key = resolved.secret.expose();
    if is_placeholder(key) {
        return refuse_key(case, &resolved.at, "the key is still a placeholder");
    }
    if key.chars().count() < MIN_KEY_CHARS {
        return refuse_key(case, &resolved.at, "the key is too short to be safe: 24 characters at least");
    }
    if in_the_file {
        case.find(
            Diagnostic::warning("api-key-plain", "the key stands in the file as it is")
                .help("keep its digest instead, as sha256: (tenantd apikey new prints both)"),
            Some(resolved.at.clone()),
        );
    }
    Some(Digest::of(key.as_bytes()))
}

fn refuse_key<T>(case: &mut Case<'_, '_>, at: &Location, what: &str) -> Option<T> {
    case.find(
        Diagnostic::error("api-key-invalid", what)
            .help("tenantd apikey new makes a key and the lines for this list"),
        Some(at.clone()),
    );
    None
}

fn label(case: &mut Case<'_, '_>, document: &Document, item: &Node, index: usize) -> Option<String> {
    let node = item.member("label").map(|(_, node)| node).filter(|node| !node.is_blank());
    let Some(node) = node else { return Some(format!("key-{}", index + 1)) };
    let text = node.text()?;
    if text.chars().count() <= 64 && !text.contains(char::is_control) {
        return Some(text.to_owned());
    }
    refuse_key(
        case,
        &document.source.at(node.at),
        "the label is longer than 64 characters or has control characters",
    )
}

/// The moment a key ends. The inner `None`: never; the outer: it cannot be read.
fn expires(case: &mut Case<'_, '_>, document: &Document, item: &Node) -> Option<Option<Timestamp>> {
    let node = item.member("expires").map(|(_, node)| node).filter(|node| !node.is_blank());
    let Some(node) = node else { return Some(None) };
    let text = node.text()?;
    let moment = text.parse::<Timestamp>().ok().or_else(|| end_of_day(text));
    if moment.is_none() {
        refuse_key::<()>(
            case,
            &document.source.at(node.at),
            "expires must be a date (2027-01-31) or a time (2027-01-31T12:00:00Z)",
        );
    }
    moment.map(Some)
}

/// A date means: through that day, in UTC.
fn end_of_day(text: &str) -> Option<Timestamp> {
    let day = text.parse::<Date>().ok()?.tomorrow().ok()?;
    TimeZone::UTC.to_timestamp(day.to_datetime(Time::midnight())).ok()
}
