//! The semantic context as models see it: a digest in the instructions, and a tool that narrows it
//! by topic.
//!
//! The vendor's document has no published schema, so well-known members are searched in its first
//! `MAX_DEPTH` levels. What is the same for all callers is computed once per document
//! ([`DerivedContext`]) and kept as long as the document is.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::result::ToolAnswer;
use crate::backend::{self, SemanticContext};
use crate::base::budget::Reservation;
use crate::base::json::{JsonDocument, JsonKind, JsonNode, JsonString};
use crate::base::sync::lock;
use crate::mcp::payload::Payload;

/// The maximum size of a digest, which is part of every conversation.
const MAX_DIGEST_BYTES: usize = 2 << 10;
const MAX_DEPTH: usize = 5;

/// The headings of the digest, with the members that hold their items.
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
const LABEL_MEMBERS: [&str; 6] = ["name", "title", "label", "question", "text", "id"];

/// A context with what is derived from it once for all callers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct DerivedContext(Arc<SemanticContext>);

/// What is derived from a context. It is kept and dropped with the context.
#[derive(Debug, Default)]
struct Derived {
    digest: OnceLock<Arc<str>>,
    full_result: Mutex<Option<FullResult>>,
}

/// The whole context as a tool result of at most `max_bytes`, which may differ between revisions.
#[derive(Debug)]
struct FullResult {
    max_bytes: usize,
    payload: Payload,
}

impl DerivedContext {
    pub(super) fn new(context: Arc<SemanticContext>) -> Self {
        Self(context)
    }

    pub(super) fn document(&self) -> &Arc<JsonDocument> {
        self.0.document()
    }

    /// Returns the whole context as an answer. If it is not kept, it counts in `reservation`.
    ///
    /// # Errors
    /// [`backend::Error::BudgetExhausted`] if the reservation has no room for it.
    pub(super) fn to_answer(&self, mut reservation: Reservation) -> Result<ToolAnswer, backend::Error> {
        let answer = ToolAnswer::from_document(Arc::clone(self.document()));
        if self.0.was_kept() {
            return Ok(answer);
        }
        let bytes = self.document().capacity() as u64;
        reservation.try_grow(bytes).map_err(backend::Error::BudgetExhausted)?;
        Ok(ToolAnswer { reservation: Some(reservation), ..answer })
    }

    /// Returns the digest: what can be asked, in a few lines.
    pub(super) fn get_or_build_digest(&self) -> Arc<str> {
        Arc::clone(self.derived().digest.get_or_init(|| build_digest(self.document().root()).into()))
    }

    /// Returns the digest if it was computed already.
    pub(super) fn cached_digest(&self) -> Option<Arc<str>> {
        self.derived().digest.get().cloned()
    }

    /// Returns the result with the whole context if it was built already.
    pub(super) fn cached_full_result(&self, max_bytes: usize) -> Option<Payload> {
        let full_result = self.full_result();
        full_result
            .as_ref()
            .filter(|full_result| full_result.max_bytes == max_bytes)
            .map(|full_result| full_result.payload.clone())
    }

    /// Stores the result with the whole context if there is room for it. If several callers build
    /// it at once, the first one is kept and returned.
    pub(super) fn cache_full_result(&self, max_bytes: usize, payload: Payload) -> Payload {
        let mut full_result = self.full_result();
        if let Some(known) = full_result.as_ref().filter(|full_result| full_result.max_bytes == max_bytes) {
            return known.payload.clone();
        }
        if self.0.reserve_derived(payload.bytes_besides(self.document())) {
            *full_result = Some(FullResult { max_bytes, payload: payload.clone() });
        }
        payload
    }

    fn full_result(&self) -> MutexGuard<'_, Option<FullResult>> {
        lock(&self.derived().full_result)
    }

    fn derived(&self) -> &Derived {
        self.0.derived()
    }
}

/// Returns the instructions for a model: the operator's instructions (or else the description),
/// then the digest of the context.
pub(super) fn compose_instructions(
    own: Option<&str>,
    description: Option<&str>,
    digest: Option<&str>,
) -> Option<String> {
    let parts = [own.or(description).unwrap_or_default().trim(), digest.unwrap_or_default().trim_end()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

fn build_digest(context: JsonNode<'_>) -> String {
    let mut text = String::new();
    for (heading, names) in SECTIONS {
        let labels =
            find_list(context, names, MAX_DEPTH).into_iter().flat_map(JsonNode::items).filter_map(find_label);
        push_section(&mut text, heading, labels);
    }
    text
}

fn push_section<'a>(text: &mut String, heading: &str, labels: impl Iterator<Item = JsonString<'a>>) {
    let start = text.len();
    for (index, label) in labels.enumerate() {
        let lead = if index == 0 { format!("{heading}: ") } else { "; ".to_owned() };
        let (label, _) = label.prefix(MAX_DIGEST_BYTES);
        let label = label.trim();
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

/// Returns the first list under one of the names: the names of an object first, then the objects
/// within it.
fn find_list<'a>(value: JsonNode<'a>, names: &[&str], depth: usize) -> Option<JsonNode<'a>> {
    let member_list = |name: &&str| value.get(name).filter(|member| member.kind() == JsonKind::Array);
    if let Some(items) = names.iter().find_map(member_list) {
        return Some(items);
    }
    let depth = depth.checked_sub(1)?;
    value.members().find_map(|(_, member)| find_list(member, names, depth))
}

fn find_label(item: JsonNode<'_>) -> Option<JsonString<'_>> {
    item.string().or_else(|| item.get_many(&LABEL_MEMBERS).into_iter().flatten().find_map(JsonNode::string))
}

/// Returns the context with only the list items about a topic, as compact JSON; `None` if nothing
/// matches.
pub(super) fn narrow_to_topic(context: JsonNode<'_>, topic: &str) -> Option<String> {
    let mut text = String::with_capacity(context.raw().len());
    push_narrowed(&mut text, context, &topic.to_lowercase(), MAX_DEPTH).then_some(text)
}

/// Writes a value, keeping only those items of the known lists that mention the topic. Returns
/// whether any did.
fn push_narrowed(text: &mut String, value: JsonNode<'_>, topic: &str, depth: usize) -> bool {
    let (JsonKind::Object, Some(depth)) = (value.kind(), depth.checked_sub(1)) else {
        text.push_str(value.raw());
        return false;
    };
    let mut has_match = false;
    text.push('{');
    for (index, (name, member)) in value.members().enumerate() {
        let _ = write!(text, "{}\"{}\":", if index == 0 { "" } else { "," }, name.raw());
        has_match |= match member.kind() {
            JsonKind::Array if is_section_member(name) => push_narrowed_items(text, member, topic),
            _ => push_narrowed(text, member, topic, depth),
        };
    }
    text.push('}');
    has_match
}

fn push_narrowed_items(text: &mut String, list: JsonNode<'_>, topic: &str) -> bool {
    let mut has_match = false;
    text.push('[');
    for item in list.items().filter(|item| mentions(*item, topic)) {
        text.push_str(if has_match { "," } else { "" });
        text.push_str(item.raw());
        has_match = true;
    }
    text.push(']');
    has_match
}

fn is_section_member(name: JsonString<'_>) -> bool {
    SECTIONS.iter().flat_map(|(_, names)| names.iter()).any(|known| name.equals(known))
}

fn mentions(item: JsonNode<'_>, topic: &str) -> bool {
    item.strings().any(|text| text.decode().to_lowercase().contains(topic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn instructions(own: Option<&str>, description: Option<&str>, context: Option<&Value>) -> Option<String> {
        let digest = context.map(|context| build_digest(JsonDocument::from_value(context).root()));
        super::compose_instructions(own, description, digest.as_deref())
    }

    fn narrow(context: &Value, topic: &str) -> Option<Value> {
        let text = super::narrow_to_topic(JsonDocument::from_value(context).root(), topic)?;
        Some(serde_json::from_str(&text).expect("JSON"))
    }

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
    fn a_context_is_derived_once() {
        let fetch = || Arc::new(SemanticContext::from_document(JsonDocument::from_value(&document())));
        let context = fetch();
        let digest = DerivedContext::new(Arc::clone(&context)).get_or_build_digest();
        assert_eq!(DerivedContext::new(context).cached_digest(), Some(digest), "it was made already");
        assert_eq!(DerivedContext::new(fetch()).cached_digest(), None, "another one was fetched");
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
        let narrowed = narrow(&document(), "REGION").expect("a match");
        assert_eq!(
            narrowed["semantic_model"]["entities"],
            json!([{"name": "orders", "attributes": ["Region"]}])
        );
        assert_eq!(narrowed["sample_questions"], json!([]));
        assert_eq!(narrowed["version"], 3);
        assert_eq!(self::narrow(&document(), "weather"), None);
    }
}
