//! The vendor's wire contract and the texts of our tools: the only module that knows these
//! defaults.
//!
//! The vendor does not publish its contract, so all of it is data that `backend` and `tools` in a
//! configuration can change.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use crate::base::digest::Digest;
use crate::base::interner::Interner;
use crate::spec::{BodyTemplate, Family, TemplateError};

/// The header that carries the API key.
pub(super) const AUTH_HEADER: &str = "X-API-Key";

/// Marks that are filled from the configuration, not from arguments.
pub(super) const CONSTANT_MARKS: &[&str] = &["connection_id", "dataset"];

/// The tools' arguments before an operator adds any.
pub(super) const SEARCH_ARGUMENTS: &[&str] = &["query", "limit"];
pub(super) const CONTEXT_ARGUMENTS: &[&str] = &["topic"];

/// Returns the body template of a search: the question, the maximum number of rows, and the
/// operator's own parameters. Members without a value are omitted.
pub(super) fn search_body(parameters: &[&str]) -> String {
    let marks = ["query", "connection_id", "limit"].into_iter().chain(parameters.iter().copied());
    object(marks)
}

/// Returns the body template of a context call, for tenants that make it a POST.
pub(super) fn context_body() -> String {
    object(["connection_id", "topic"].into_iter())
}

fn object<'a>(marks: impl Iterator<Item = &'a str>) -> String {
    let members: Vec<String> = marks.map(|mark| format!("\"{mark}\": {{{{{mark}}}}}")).collect();
    format!("{{{}}}", members.join(", "))
}

/// Parses a body template; tenants with the same text share one copy.
pub(super) fn template(text: &str) -> Result<Arc<BodyTemplate>, TemplateError> {
    static KNOWN: LazyLock<Interner<BodyTemplate>> = LazyLock::new(Interner::new);
    KNOWN.get_or_insert(Digest::of(text.as_bytes()), || BodyTemplate::parse(text))
}

/// Returns the URL template of a context GET: `context_url?connection_id=…&topic=…`. Pairs without
/// a value are omitted.
pub(super) fn context_url(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}connection_id={{{{connection_id}}}}&topic={{{{topic}}}}")
}

/// Returns the family of an endpoint by the last segment of its path: `/nlp-search`,
/// `/cassandra-context`, …
pub(super) fn family(path: &str) -> Family {
    match path.trim_end_matches('/').rsplit('/').next().unwrap_or_default() {
        "nlp-search" | "nlp-context" => Family::Nlp,
        "cassandra-search" | "cassandra-context" => Family::Cassandra,
        "dynamodb-search" | "dynamodb-context" => Family::Dynamodb,
        _ => Family::Other,
    }
}

/// Returns the path with which a field's URL ends in most exports.
pub(super) fn example_path(field: &str) -> &'static str {
    if field == "search_url" { "/nlp-search" } else { "/nlp-context" }
}

/// What one of the vendor's endpoints gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointKind {
    Search,
    Context,
}

/// Returns what an endpoint gives, by the end of its path; `None` if it is none of the vendor's.
pub(super) fn endpoint_kind(path: &str) -> Option<EndpointKind> {
    match family(path) {
        Family::Other => None,
        _ if path.trim_end_matches('/').ends_with("-search") => Some(EndpointKind::Search),
        _ => Some(EndpointKind::Context),
    }
}

/// The name, title and description of a tool.
pub(super) struct ToolTexts {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) description: String,
}

/// Returns the texts of the search tool. `context` is the listed name of the context tool, unless
/// it is hidden.
pub(super) fn search_texts(
    dataset: &str,
    title: &str,
    description: Option<&str>,
    context: Option<&str>,
) -> ToolTexts {
    let about = description.map(|text| format!(" About it: {text}")).unwrap_or_default();
    let first = context.map(|name| format!(" Use {name} first if you don't know what it can be asked."));
    let first = first.unwrap_or_default();
    ToolTexts {
        name: "search",
        title: format!("Search {title}"),
        description: format!(
            "Ask the dataset \"{dataset}\" ({title}) a question in plain language and get its answer as rows. \
             Read-only.{first}{about}"
        ),
    }
}

/// Returns the texts of the context tool.
pub(super) fn context_texts(dataset: &str, title: &str) -> ToolTexts {
    ToolTexts {
        name: "get_context",
        title: format!("What {title} can answer"),
        description: format!(
            "Describes the dataset \"{dataset}\" ({title}): its entities, attributes, measures and sample questions, \
             optionally narrowed to a topic. Read-only."
        ),
    }
}

/// Returns the input schema of a search. `parameters` are the operator's, as JSON Schema
/// properties; `needed` are further required arguments.
pub(super) fn search_input(parameters: &Map<String, Value>, needed: &[&str]) -> Arc<Map<String, Value>> {
    let mut properties = map(json!({
        "query": {
            "type": "string", "minLength": 1, "maxLength": 8192, "pattern": "\\S",
            "description": "The question, in plain language",
        },
        "limit": {
            "type": "integer", "minimum": 1, "maximum": 1000,
            "description": limit_description(Some(&json!(1000))),
        },
    }));
    for (name, schema) in parameters {
        let mut schema = schema.clone();
        // An operator who changes the bounds of one of our arguments need not repeat its
        // description.
        let ours = match name.as_str() {
            "limit" => Some(json!(limit_description(schema.get("maximum")))),
            _ => properties.get(name).and_then(|ours| ours.get("description")).cloned(),
        };
        if let (Some(ours), Value::Object(theirs)) = (ours, &mut schema) {
            theirs.entry("description").or_insert(ours);
        }
        properties.insert(name.clone(), schema);
    }
    let required: Vec<&str> =
        ["query"].into_iter().chain(needed.iter().copied().filter(|name| *name != "query")).collect();
    intern(map(json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })))
}

/// Describes which limit means all rows. Some clients cannot omit an argument: OpenAI's strict
/// schemas make each one required.
fn limit_description(maximum: Option<&Value>) -> String {
    match maximum.and_then(Value::as_u64) {
        Some(maximum) => format!("At most this many rows; {maximum} for all"),
        None => "At most this many rows".into(),
    }
}

/// The input of a context call.
pub(super) fn context_input() -> Arc<Map<String, Value>> {
    static SCHEMA: LazyLock<Arc<Map<String, Value>>> = LazyLock::new(|| {
        intern(map(json!({
            "type": "object",
            "properties": {
                "topic": {
                    "type": "string", "maxLength": 1024,
                    "description": "Narrows the description to one entity or subject",
                },
            },
            "additionalProperties": false,
        })))
    });
    SCHEMA.clone()
}

/// Returns the output schema of both tools: the backend's answer as it is, and what was cut.
pub(super) fn output() -> Arc<Map<String, Value>> {
    static SCHEMA: LazyLock<Arc<Map<String, Value>>> = LazyLock::new(|| {
        intern(map(json!({
            "type": "object",
            "properties": {
                "data": { "description": "The answer" },
                "notice": { "type": "string", "description": "What to know about the answer, for instance what was cut" },
                "truncated": { "type": "boolean", "description": "Whether the answer was cut" },
            },
            "required": ["data"],
            "additionalProperties": false,
        })))
    });
    SCHEMA.clone()
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Shares one copy of each schema among all tenants that have it.
fn intern(schema: Map<String, Value>) -> Arc<Map<String, Value>> {
    static KNOWN: LazyLock<Interner<Map<String, Value>>> = LazyLock::new(Interner::new);
    let text = serde_json::to_vec(&schema).expect("a JSON object can be written");
    let copy = KNOWN.get_or_insert(Digest::of(&text), || Ok::<_, Infallible>(schema));
    copy.unwrap_or_else(|never| match never {})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::UrlTemplate;

    #[test]
    fn the_defaults_are_templates() {
        let body = BodyTemplate::parse(&search_body(&["region"])).expect("a template");
        assert_eq!(body.marks(), ["query", "connection_id", "limit", "region"]);
        let url = UrlTemplate::parse(&context_url("https://h/nlp-context")).expect("a template");
        assert_eq!(url.render(&Map::new()).as_deref(), Ok("https://h/nlp-context"));
    }

    #[test]
    fn equal_schemas_are_one() {
        assert!(Arc::ptr_eq(&search_input(&Map::new(), &[]), &search_input(&Map::new(), &["query"])));
        assert!(Arc::ptr_eq(&output(), &output()));
    }

    #[test]
    fn an_argument_of_ours_keeps_its_description_unless_it_is_given_another() {
        let described = |schema: Value| {
            let input = search_input(&map(json!({ "limit": schema })), &[]);
            (
                input["properties"]["limit"]["maximum"].clone(),
                input["properties"]["limit"]["description"].clone(),
            )
        };
        assert_eq!(described(json!({"maximum": 5})), (json!(5), json!("At most this many rows; 5 for all")));
        assert_eq!(described(json!({"minimum": 5})).1, "At most this many rows");
        assert_eq!(described(json!({"description": "Few"})).1, "Few");
    }

    #[test]
    fn families_are_told_by_their_paths() {
        assert_eq!(family("/v1/cassandra-search"), Family::Cassandra);
        assert_eq!(family("/x"), Family::Other);
    }
}
