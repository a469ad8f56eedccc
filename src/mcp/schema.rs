//! Arguments against a tool's schema: JSON Schema 2020-12, compiled at load.
//!
//! Schemas are an operator's, arguments anybody's: no reference leaves the schema, patterns run in linear time, size and
//! depth are bounded. Equal schemas are compiled once for the process, however many tenants have them.

use std::sync::{Arc, LazyLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use crate::base::digest::Digest;
use crate::base::intern::Interner;

const MAX_SCHEMA_BYTES: usize = 64 << 10;
const MAX_SCHEMA_DEPTH: usize = 32;
const MAX_PATTERNS: usize = 32;
/// What a compiled pattern, and what matching it, may take: a dozen letters such as `(a{999}){999}` can ask for gigabytes.
const MAX_PATTERN_BYTES: usize = 128 << 10;
/// Violations that are told at once.
const MAX_TOLD: usize = 5;
/// A message repeats the value that was refused; so much of it is enough.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why a schema cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it describes something other than an object")]
    NotAnObject,
    #[error("it has {0} bytes, more than {MAX_SCHEMA_BYTES}")]
    TooLarge(usize),
    #[error("it is nested deeper than {MAX_SCHEMA_DEPTH} levels")]
    TooDeep,
    #[error("it has more than {MAX_PATTERNS} patterns")]
    TooManyPatterns,
    #[error("{0}")]
    Invalid(String),
}

/// A compiled schema.
pub(super) struct Schema {
    validator: Validator,
    /// Names of the properties, for messages.
    properties: Vec<String>,
}

/// All compiled schemas of the process.
static KNOWN: LazyLock<Interner<Schema>> = LazyLock::new(Interner::new);

impl Schema {
    /// The compiled form of a schema, shared with all who have an equal one.
    pub(super) fn compiled(schema: &Map<String, Value>) -> Result<Arc<Self>, Fault> {
        let text = serde_json::to_vec(schema).expect("a JSON object can be written");
        KNOWN.copy(Digest::of(&text), || match text.len() {
            bytes if bytes > MAX_SCHEMA_BYTES => Err(Fault::TooLarge(bytes)),
            _ => Self::compile(schema),
        })
    }

    fn compile(schema: &Map<String, Value>) -> Result<Self, Fault> {
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(Fault::NotAnObject);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties =
            properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default();
        let schema = Value::Object(schema.clone());
        if depth_exceeds(&schema, MAX_SCHEMA_DEPTH) {
            return Err(Fault::TooDeep);
        }
        if patterns(&schema) > MAX_PATTERNS {
            return Err(Fault::TooManyPatterns);
        }
        let validator = jsonschema::draft202012::options()
            .offline()
            .with_pattern_options(
                PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES),
            )
            .build(&schema)
            .map_err(|error| Fault::Invalid(clipped(&error.to_string())))?;
        Ok(Self { validator, properties })
    }

    /// Checks arguments; a violation is told in one sentence that names the argument and the reason.
    pub(super) fn check(&self, arguments: &Value) -> Result<(), String> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        let told: Vec<String> =
            self.validator.iter_errors(arguments).take(MAX_TOLD).map(|error| self.told(&error)).collect();
        Err(told.join("; "))
    }

    fn told(&self, error: &ValidationError<'_>) -> String {
        let place = error.instance_path().to_string();
        let place = place.trim_start_matches('/').replace('/', ".");
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let dot = if place.is_empty() { "" } else { "." };
                format!("argument \"{place}{dot}{name}\" is missing")
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected }
                if place.is_empty() =>
            {
                let unexpected = clipped(&unexpected.join("\", \""));
                format!("argument \"{unexpected}\" is unknown (known: {})", self.properties.join(", "))
            }
            _ if place.is_empty() => clipped(&error.to_string()),
            _ => format!("argument \"{place}\": {}", clipped(&error.to_string())),
        }
    }
}

fn depth_exceeds(value: &Value, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| depth_exceeds(item, levels)),
        Value::Object(members) => members.values().any(|member| depth_exceeds(member, levels)),
        _ => false,
    }
}

/// How many patterns a schema may have: where the word means something else, it counts as well.
fn patterns(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(patterns).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| match (name.as_str(), member) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(named)) => named.len() + patterns(member),
                _ => patterns(member),
            })
            .sum(),
        _ => 0,
    }
}

fn clipped(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compiled(schema: Value) -> Result<Arc<Schema>, Fault> {
        Schema::compiled(schema.as_object().expect("an object"))
    }

    fn refused(schema: Value) -> Fault {
        compiled(schema).err().expect("refused")
    }

    fn search() -> Arc<Schema> {
        compiled(json!({
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 1, "pattern": "\\S"},
                "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
            },
            "required": ["query"],
            "additionalProperties": false,
        }))
        .expect("a schema")
    }

    #[test]
    fn violations_name_the_argument_and_the_reason() {
        let told = |arguments: Value| search().check(&arguments).expect_err("a violation");
        assert_eq!(told(json!({})), "argument \"query\" is missing");
        assert_eq!(
            told(json!({"query": "q", "limit": 5000})),
            "argument \"limit\": 5000 is greater than the maximum of 1000"
        );
        assert_eq!(
            told(json!({"query": "q", "limt": 5})),
            "argument \"limt\" is unknown (known: query, limit)"
        );
        let both = told(json!({"query": 7, "limit": "x"}));
        assert!(
            both.contains("argument \"query\": 7 is not of type") && both.contains("; argument \"limit\""),
            "{both}"
        );
        assert!(told(json!({"query": 7, "limit": "x".repeat(9000)})).chars().count() < 800);
        assert_eq!(search().check(&json!({"query": "q", "limit": 7})), Ok(()));
    }

    #[test]
    fn equal_schemas_are_compiled_once() {
        let schema = || json!({"type": "object", "title": "only in this test"});
        let (one, two) = (compiled(schema()).expect("a schema"), compiled(schema()).expect("a schema"));
        assert!(Arc::ptr_eq(&one, &two));
    }

    #[test]
    fn no_reference_leaves_the_schema() {
        for target in ["https://example.com/schema.json", "file:///etc/passwd", "other.json"] {
            let fault = refused(json!({"type": "object", "properties": {"a": {"$ref": target}}}));
            assert!(matches!(fault, Fault::Invalid(_)), "{target}: {fault:?}");
        }
        let local = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}});
        assert!(compiled(local).is_ok());
    }

    #[test]
    fn schemas_are_bounded() {
        assert_eq!(refused(json!({"type": "string"})), Fault::NotAnObject);
        assert_eq!(refused(json!({})), Fault::NotAnObject);
        let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
        assert_eq!(refused(json!({"type": "object", "not": deep})), Fault::TooDeep);
        let large = json!({"type": "object", "description": "x".repeat(MAX_SCHEMA_BYTES)});
        assert!(matches!(refused(large), Fault::TooLarge(_)));
        assert!(matches!(refused(json!({"type": "object", "required": 7})), Fault::Invalid(_)));
    }

    #[test]
    fn patterns_take_little_memory() {
        let with = |patterns: Vec<String>| {
            let members = patterns.into_iter().enumerate();
            let members =
                members.map(|(at, it)| (format!("p{at}"), json!({"type": "string", "pattern": it})));
            json!({"type": "object", "properties": members.collect::<Map<_, _>>()})
        };
        assert!(compiled(with(vec!["^[A-Z]{2}-[0-9]{4,12}$".into(); MAX_PATTERNS])).is_ok());
        assert_eq!(refused(with(vec!["x".into(); MAX_PATTERNS + 1])), Fault::TooManyPatterns);
        for greedy in ["(a{999}){999}", "\\p{L}{99}", "(.{99}|x{99}){9}"] {
            let fault = compiled(with(vec![greedy.into()])).err();
            assert!(matches!(fault, Some(Fault::Invalid(_))), "{greedy}: {fault:?}");
        }
        let named: Map<_, _> = (0..=MAX_PATTERNS).map(|at| (format!("^{at}"), json!({}))).collect();
        assert_eq!(refused(json!({"type": "object", "patternProperties": named})), Fault::TooManyPatterns);
    }

    #[test]
    fn patterns_cannot_run_away() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}});
        let schema = compiled(schema).expect("a schema");
        assert!(schema.check(&json!({"a": format!("{}!", "a".repeat(50_000))})).is_err());
        assert!(matches!(
            refused(json!({"type": "object", "properties": {"a": {"pattern": "(?=x)"}}})),
            Fault::Invalid(_)
        ));
    }
}
