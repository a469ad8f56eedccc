//! The semantic context as a model meets it: a digest in the instructions, narrowed by topic in the tool.
//!
//! The vendor's document has no published shape, so it is searched for well-known members wherever they are.

use std::fmt::Write;

use serde_json::Value;

/// The digest is read with every conversation; so many bytes of it are enough.
const MAX_DIGEST_BYTES: usize = 2 << 10;
const MAX_DEPTH: usize = 5;

/// What a digest tells, under which names documents have it.
const SECTIONS: [(&str, &[&str]); 4] = [
    ("Entities", &["entities", "tables", "collections"]),
    ("Measures", &["measures", "metrics"]),
    ("Dimensions", &["dimensions"]),
    (
        "Sample questions",
        &["sample_questions", "sampleQuestions", "example_questions", "questions", "examples"],
    ),
];
/// Members that name an item.
const LABELS: [&str; 6] = ["name", "title", "label", "question", "text", "id"];

/// What a model is told before it asks: the operator's words, then what the dataset knows.
pub(super) fn instructions(
    own: Option<&str>,
    description: Option<&str>,
    context: Option<&Value>,
) -> Option<String> {
    let digest = context.map(digest).unwrap_or_default();
    let parts = [own.or(description).unwrap_or_default().trim(), digest.trim_end()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

fn digest(context: &Value) -> String {
    let mut text = String::new();
    for (heading, names) in SECTIONS {
        let labels = list(context, names, MAX_DEPTH).into_iter().flatten().filter_map(label);
        section(&mut text, heading, labels);
    }
    text
}

fn section<'a>(text: &mut String, heading: &str, labels: impl Iterator<Item = &'a str>) {
    let start = text.len();
    for (index, label) in labels.enumerate() {
        let lead = if index == 0 { format!("{heading}: ") } else { "; ".to_owned() };
        if text.len() + lead.len() + label.len() + 4 > MAX_DIGEST_BYTES {
            text.push_str(if index == 0 { "" } else { "; …" });
            break;
        }
        let _ = write!(text, "{lead}{label}");
    }
    if text.len() > start {
        text.push('\n');
    }
}

/// The first list under one of the names, breadth before depth.
fn list<'a>(value: &'a Value, names: &[&str], depth: usize) -> Option<&'a [Value]> {
    let members = value.as_object()?;
    if let Some(items) = names.iter().find_map(|name| members.get(*name)?.as_array()) {
        return Some(items);
    }
    let depth = depth.checked_sub(1)?;
    members.values().find_map(|member| list(member, names, depth))
}

fn label(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| LABELS.iter().find_map(|name| item.get(name)?.as_str())).map(str::trim)
}

/// The parts of a context about a topic; `None` when nothing in it is.
pub(super) fn narrowed(context: &Value, topic: &str) -> Option<Value> {
    let topic = topic.to_lowercase();
    let mut narrowed = context.clone();
    retain(&mut narrowed, &topic, MAX_DEPTH).then_some(narrowed)
}

/// Keeps the items of the known lists that mention the topic. Says whether any did.
fn retain(value: &mut Value, topic: &str, depth: usize) -> bool {
    let (Value::Object(members), Some(depth)) = (value, depth.checked_sub(1)) else { return false };
    let mut any = false;
    for (name, member) in members.iter_mut() {
        match member {
            Value::Array(items) if is_known(name) => {
                items.retain(|item| mentions(item, topic));
                any |= !items.is_empty();
            }
            other => any |= retain(other, topic, depth),
        }
    }
    any
}

fn is_known(name: &str) -> bool {
    SECTIONS.iter().any(|(_, names)| names.contains(&name))
}

fn mentions(value: &Value, topic: &str) -> bool {
    match value {
        Value::String(text) => text.to_lowercase().contains(topic),
        Value::Array(items) => items.iter().any(|item| mentions(item, topic)),
        Value::Object(members) => members
            .iter()
            .any(|(name, member)| name.to_lowercase().contains(topic) || mentions(member, topic)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({
            "version": 3,
            "sample_questions": ["How many orders were there?", "Top 10 customers"],
            "semantic_model": {
                "entities": [{"name": "orders", "attributes": ["Region"]}, {"name": "customers"}],
                "measures": [{"name": "total_amount", "expression": "SUM(amount)"}],
            },
        })
    }

    #[test]
    fn the_digest_names_what_can_be_asked() {
        assert_eq!(
            instructions(Some("Amounts are in EUR."), Some("unused"), Some(&document())).as_deref(),
            Some(
                "Amounts are in EUR.\n\nEntities: orders; customers\nMeasures: total_amount\n\
                 Sample questions: How many orders were there?; Top 10 customers"
            )
        );
        assert_eq!(instructions(None, Some("About orders."), None).as_deref(), Some("About orders."));
        assert_eq!(instructions(None, None, Some(&json!([1]))), None);
    }

    #[test]
    fn the_digest_is_bounded() {
        let many: Vec<String> = (0..5000).map(|n| format!("entity number {n}")).collect();
        let text =
            instructions(None, None, Some(&json!({"entities": many, "measures": many}))).expect("a digest");
        assert!(text.len() <= MAX_DIGEST_BYTES + 8, "{}", text.len());
        assert!(text.ends_with("; …"), "{text}");
    }

    #[test]
    fn a_topic_narrows_the_lists() {
        let narrowed = narrowed(&document(), "REGION").expect("a match");
        assert_eq!(
            narrowed["semantic_model"]["entities"],
            json!([{"name": "orders", "attributes": ["Region"]}])
        );
        assert_eq!(narrowed["sample_questions"], json!([]));
        assert_eq!(narrowed["version"], 3);
        assert_eq!(super::narrowed(&document(), "weather"), None);
    }
}
