//! A fingerprint of all that decides who may call, so that a refused change can be told apart: one that is surely
//! about something else leaves the last good revision serving, any other closes the tenant.

use super::document::Layers;
use super::gather::Gathered;
use super::yaml::{Node, Value};
use crate::base::diagnostic::{Report, Severity};
use crate::base::digest::{Digest, Hasher};

/// The fields that decide who may call; Microsoft's are told by their beginning.
const FIELDS: [&str; 5] = ["oauth_enabled", "api_keys", "access", "machine_clients", "public"];

/// The fingerprint, or `None` where it cannot be had with certainty: a file that was not read, a name that may be a
/// misspelt one of these fields, a value that stands elsewhere.
pub(super) fn fingerprint(gathered: &Gathered, report: &Report) -> Option<Digest> {
    let misspelt = |finding: &crate::base::diagnostic::Diagnostic| {
        finding.code == "unknown-key" && finding.severity == Severity::Error
    };
    if gathered.incomplete || report.iter().any(misspelt) {
        return None;
    }
    let mut hasher = Hasher::new();
    let Layers(documents) = &gathered.layers;
    for document in documents {
        for (key, node) in document.root.pairs().iter().filter(|(key, _)| decides(&key.text)) {
            hasher.field(key.text.as_bytes());
            add(&mut hasher, node)?;
        }
    }
    Some(hasher.finish())
}

fn decides(name: &str) -> bool {
    FIELDS.contains(&name)
        || name.starts_with("microsoft_")
        || FIELDS.iter().any(|field| is_reference(name, field))
}

/// `api_keys_file` and the like.
fn is_reference(name: &str, field: &str) -> bool {
    name.strip_prefix(field).is_some_and(|rest| rest == "_file")
}

fn add(hasher: &mut Hasher, node: &Node) -> Option<()> {
    match &node.value {
        Value::Scalar { text, .. } if text.contains("${") => return None,
        Value::Scalar { text, .. } => hasher.field(text.as_bytes()),
        Value::List(items) => {
            hasher.field(b"list");
            items.iter().try_for_each(|item| add(hasher, item))?;
            hasher.field(b"end");
        }
        Value::Map(pairs) => {
            hasher.field(b"map");
            for (key, value) in pairs {
                if key.text.ends_with("_file") {
                    return None;
                }
                hasher.field(key.text.as_bytes());
                add(hasher, value)?;
            }
            hasher.field(b"end");
        }
    }
    Some(())
}
