//! Fuzzes the parsing of a backend's answer into a `JsonDocument`.
//!
//! The result is compared with two other readings of the same bytes: serde_json's, and a plain walk
//! over a text that serde_json has accepted as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::FuzzOutcome;
use crate::base::json::{JsonDocument, JsonKind, JsonLimits, JsonNode, JsonString, Repairs};

/// Limits that inputs of the fuzzer's size reach.
const LIMITS: JsonLimits = JsonLimits { bytes: 2_048, depth: 24, values: 256 };

/// Checks that input which serde_json accepts within the limits is accepted, unchanged except for
/// white space; and that an accepted document is JSON within the limits, is unchanged by a second
/// parse, and has the same values as serde_json's tree.
pub(super) fn json(bytes: &[u8]) -> FuzzOutcome {
    let strict = serde_json::from_slice::<&RawValue>(bytes).ok().map(|raw| Plain::of(raw.get()));
    let Ok(document) = JsonDocument::parse(bytes.to_vec(), &LIMITS) else {
        assert!(!strict.is_some_and(|plain| plain.is_within_bounds()), "JSON within the bounds was refused");
        return FuzzOutcome::Rejected;
    };
    let is_repaired = document.repairs() != Repairs::default();
    match strict {
        Some(plain) if !is_repaired => assert_eq!(document.as_str(), plain.compact),
        Some(_) => assert!(!document.repairs().numbers, "JSON has no number that is none"),
        None => assert!(
            is_repaired || bytes.iter().any(|byte| *byte < b' '),
            "what is no JSON was taken, and nothing of it changed"
        ),
    }
    assert_keeps(&document);
    if let Ok(value) = serde_json::from_str::<Value>(document.as_str()) {
        assert_says(document.root(), &value);
    }
    FuzzOutcome::Accepted
}

/// Asserts that the text is JSON within the limits and is unchanged by a second parse.
fn assert_keeps(document: &JsonDocument) {
    let text = document.as_str();
    let raw: &RawValue = serde_json::from_str(text).expect("a document is JSON");
    assert!(Plain::of(raw.get()).is_within_bounds(), "a document beyond its bounds");
    let again = JsonDocument::parse(text.into(), &LIMITS).expect("a document is read again");
    assert_eq!((again.as_str(), again.repairs()), (text, Repairs::default()));
    assert!(document.capacity() >= document.size());
    let written = document.root().strings().map(|text| text.raw().len() + 2).sum::<usize>();
    assert!(written <= text.len(), "more strings than text");
}

fn assert_says(node: JsonNode<'_>, value: &Value) {
    match (node.kind(), value) {
        (JsonKind::Object, Value::Object(members)) => {
            let kept: BTreeMap<Cow<'_, str>, JsonNode<'_>> =
                node.members().map(|(name, value)| (name.decode(), value)).collect();
            assert_eq!(kept.len(), members.len(), "{}", node.raw());
            for (name, found) in kept {
                assert_eq!(node.get(&name), Some(found), "the last of a name counts");
                assert_says(found, members.get(&*name).expect("a member that serde_json has"));
            }
            node.members().for_each(|(name, _)| assert_text(name, &name.decode()));
        }
        (JsonKind::Array, Value::Array(items)) => {
            assert_eq!(node.items().count(), items.len(), "{}", node.raw());
            node.items().zip(items).for_each(|(found, item)| assert_says(found, item));
        }
        (JsonKind::String, Value::String(said)) => assert_text(node.string().expect("a string"), said),
        (JsonKind::Null, Value::Null)
        | (JsonKind::Bool, Value::Bool(_))
        | (JsonKind::Number, Value::Number(_)) => {
            assert_eq!(&serde_json::from_str::<Value>(node.raw()).expect("a value"), value);
        }
        (kind, _) => panic!("{} was taken for {kind:?}", node.raw()),
    }
}

fn assert_text(text: JsonString<'_>, said: &str) {
    assert_eq!(text.decode(), said);
    assert!(text.equals(said) && text.same_as(text) && text.chars().eq(said.chars()), "{said}");
    for bytes in [0, 1, 2, 5, 17, said.len()] {
        let (beginning, is_all) = text.prefix(bytes);
        assert!(beginning.len() <= bytes && said.starts_with(&*beginning), "{said}");
        let next = said[beginning.len()..].chars().next();
        assert_eq!(is_all, next.is_none(), "{said}");
        assert!(next.is_none_or(|c| beginning.len() + c.len_utf8() > bytes), "{said} could begin longer");
    }
}

/// The measures of a JSON text, found without a parser.
struct Plain {
    compact: String,
    depth: usize,
    values: usize,
}

impl Plain {
    fn of(text: &str) -> Self {
        let mut plain = Self { compact: String::new(), depth: 0, values: 1 };
        let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
        for c in text.chars() {
            if in_string {
                in_string = is_escaped || c != '"';
                is_escaped = !is_escaped && c == '\\';
            } else {
                let begins = plain.compact.ends_with(['[', '{', ',']) && !c.is_ascii_whitespace();
                match c {
                    ' ' | '\t' | '\n' | '\r' => continue,
                    '"' => in_string = true,
                    '[' | '{' => depth += 1,
                    ']' | '}' => depth -= 1,
                    _ => {}
                }
                plain.values += usize::from(begins && !matches!(c, ']' | '}'));
                plain.depth = plain.depth.max(depth);
            }
            plain.compact.push(c);
        }
        plain
    }

    fn is_within_bounds(&self) -> bool {
        self.compact.len() <= LIMITS.bytes && self.depth <= LIMITS.depth && self.values <= LIMITS.values
    }
}
