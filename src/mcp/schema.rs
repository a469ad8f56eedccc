//! Validates arguments against a tool's schema: JSON Schema 2020-12, compiled when the tenant is
//! loaded.
//!
//! Schemas come from the operator, arguments from any caller: references stay within the schema,
//! patterns run in linear time, size and depth are bounded. Equal schemas are compiled once per
//! process, however many tenants have them.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use crate::base::digest::Digest;
use crate::base::interner::Interner;
use crate::base::similarity;
use crate::base::text::clip;

const MAX_SCHEMA_BYTES: usize = 64 << 10;
const MAX_SCHEMA_DEPTH: usize = 32;
const MAX_PATTERNS: usize = 32;
/// Memory limit for a compiled pattern and for matching it: a dozen characters such as
/// `(a{999}){999}` can demand gigabytes.
const MAX_PATTERN_BYTES: usize = 128 << 10;
/// How many violations one message lists.
const MAX_LISTED_VIOLATIONS: usize = 5;
/// The maximum length of the reason for one violation.
const MAX_MESSAGE_CHARS: usize = 300;
/// A message repeats this much of the rejected value, enough to recognize it.
const MAX_VALUE_CHARS: usize = 40;
/// The maximum length of a caller's argument name in a message.
const MAX_NAME_CHARS: usize = 100;

/// Why a schema cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SchemaError {
    #[error("it does not describe an object")]
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
    /// The names of the properties.
    properties: Vec<String>,
    /// The properties that are optional and must not be null.
    non_nullable: Vec<String>,
    /// Those of them that are whole numbers.
    integers: Vec<String>,
    /// Whether other members are refused.
    is_closed: bool,
}

/// All compiled schemas of the process.
static COMPILED: LazyLock<Interner<Schema>> = LazyLock::new(Interner::new);

impl Schema {
    /// Compiles a schema, or returns the compiled form of an equal one.
    pub(super) fn get_or_compile(schema: &Map<String, Value>) -> Result<Arc<Self>, SchemaError> {
        let text = serde_json::to_vec(schema).expect("a JSON object can be written");
        COMPILED.get_or_insert(Digest::of(&text), || match text.len() {
            bytes if bytes > MAX_SCHEMA_BYTES => Err(SchemaError::TooLarge(bytes)),
            _ => Self::compile(schema),
        })
    }

    fn compile(schema: &Map<String, Value>) -> Result<Self, SchemaError> {
        if schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(SchemaError::NotAnObject);
        }
        let properties_schema = schema.get("properties").and_then(Value::as_object);
        let properties: Vec<String> =
            properties_schema.map(|properties| properties.keys().cloned().collect()).unwrap_or_default();
        let integers = properties_schema.into_iter().flatten().filter(|(_, property)| is_integer(property));
        let integers = integers.map(|(name, _)| name.clone()).collect();
        let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false))
            && !schema.contains_key("patternProperties");
        let schema = Value::Object(schema.clone());
        if depth_exceeds(&schema, MAX_SCHEMA_DEPTH) {
            return Err(SchemaError::TooDeep);
        }
        if count_patterns(&schema) > MAX_PATTERNS {
            return Err(SchemaError::TooManyPatterns);
        }
        let validator = jsonschema::draft202012::options()
            .offline()
            .with_pattern_options(
                PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES),
            )
            .build(&schema)
            .map_err(|error| SchemaError::Invalid(clip(&error.to_string(), MAX_MESSAGE_CHARS)))?;
        let optional = properties.iter().filter(|name| !is_required(&schema, name));
        let non_nullable = optional.filter(|name| rejects_null(&validator, name)).cloned().collect();
        Ok(Self { validator, properties, non_nullable, integers, is_closed })
    }

    /// Removes what clients add to every call: members that the tool does not have, and `null` for
    /// an omitted argument. Neither would reach a backend, and neither models nor people can change
    /// what their client adds. A member that may be a misspelled argument stays, to be refused.
    /// Whole numbers are written as integers: JSON Schema accepts `10.0` as an integer, but
    /// backends may not.
    pub(super) fn normalize_arguments(&self, mut arguments: Map<String, Value>) -> Map<String, Value> {
        let is_misspelled = |name: &str| {
            let missing = self.properties.iter().filter(|known| !arguments.contains_key(*known));
            similarity::closest(name, missing.map(|known| (known.as_str(), ()))).is_some()
        };
        let is_droppable = |name: &String, value: &Value| match self.properties.contains(name) {
            true => value.is_null() && self.non_nullable.contains(name),
            false => self.is_closed && (value.is_null() || !is_misspelled(name)),
        };
        let droppable = arguments.iter().filter(|(name, value)| is_droppable(name, value));
        let droppable: HashSet<String> = droppable.map(|(name, _)| name.clone()).collect();
        arguments.retain(|name, _| !droppable.contains(name));
        for name in &self.integers {
            if let Some(whole) = arguments.get(name).and_then(to_integer) {
                arguments.insert(name.clone(), whole);
            }
        }
        arguments
    }

    /// Validates arguments. A violation is described in one sentence that names the argument and
    /// the reason.
    pub(super) fn check(&self, arguments: &Value) -> Result<(), String> {
        if self.validator.is_valid(arguments) {
            return Ok(());
        }
        let violations: Vec<String> = self
            .validator
            .iter_errors(arguments)
            .take(MAX_LISTED_VIOLATIONS)
            .map(|error| self.describe(&error))
            .collect();
        Err(violations.join("; "))
    }

    /// Describes one violation.
    fn describe(&self, error: &ValidationError<'_>) -> String {
        let path = error.instance_path().to_string();
        let path = clip(&path.trim_start_matches('/').replace('/', "."), MAX_NAME_CHARS);
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let dot = if path.is_empty() { "" } else { "." };
                format!("argument \"{path}{dot}{name}\" is missing")
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected }
                if path.is_empty() =>
            {
                let unexpected = clip(&unexpected.join("\", \""), MAX_NAME_CHARS);
                format!("argument \"{unexpected}\" is unknown (known: {})", self.properties.join(", "))
            }
            _ if path.is_empty() => describe_reason(error),
            _ => format!("argument \"{path}\": {}", describe_reason(error)),
        }
    }
}

/// Returns why a value is rejected, followed by an excerpt of the value, which may be long.
fn describe_reason(error: &ValidationError<'_>) -> String {
    let reason = clip(&error.masked_with("the value").to_string(), MAX_MESSAGE_CHARS);
    format!("{reason} (the value was {})", excerpt(error.instance()))
}

/// Returns the beginning of a value without formatting all of a long one.
fn excerpt(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let beginning: String = text.chars().take(MAX_VALUE_CHARS).collect();
            let whole = beginning.len() == text.len();
            format!("{beginning:?}{}", if whole { "" } else { "…" })
        }
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(members) => format!("an object of {}", members.len()),
        other => clip(&other.to_string(), MAX_VALUE_CHARS),
    }
}

fn is_integer(property: &Value) -> bool {
    match &property["type"] {
        Value::Array(types) => {
            types.iter().any(|it| it == "integer") && !types.iter().any(|it| it == "number")
        }
        single => single == "integer",
    }
}

/// Returns as an integer a number that is written with a fraction or an exponent but is whole.
fn to_integer(value: &Value) -> Option<Value> {
    /// Above this, a double cannot represent every integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
    // An integer stays as it is, with all its digits.
    (value.as_i64().is_none() && value.as_u64().is_none()).then(|| Value::from(number as i64))
}

fn is_required(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|it| it.as_str() == Some(name)))
}

/// Returns whether the schema rejects `null` for a property, by whatever keyword or reference.
fn rejects_null(validator: &Validator, name: &str) -> bool {
    let null = Value::Object(Map::from_iter([(name.to_owned(), Value::Null)]));
    let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    validator.iter_errors(&null).any(|error| error.instance_path().as_str() == path)
}

fn depth_exceeds(value: &Value, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| depth_exceeds(item, levels)),
        Value::Object(members) => members.values().any(|member| depth_exceeds(member, levels)),
        _ => false,
    }
}

/// Counts the patterns that a schema may have. Uses of the word with another meaning count as well.
fn count_patterns(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(count_patterns).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| match (name.as_str(), member) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Object(named)) => named.len() + count_patterns(member),
                _ => count_patterns(member),
            })
            .sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compile(schema: Value) -> Result<Arc<Schema>, SchemaError> {
        Schema::get_or_compile(schema.as_object().expect("an object"))
    }

    fn compile_error(schema: Value) -> SchemaError {
        compile(schema).err().expect("refused")
    }

    fn search() -> Arc<Schema> {
        compile(json!({
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
    fn a_whole_number_is_one_however_it_is_written() {
        let normalize = |limit: &str| {
            let arguments = serde_json::from_str(&format!("{{\"query\": \"q\", \"limit\": {limit}}}"));
            search().normalize_arguments(arguments.expect("an object"))["limit"].to_string()
        };
        for (written, meant) in [("10.0", "10"), ("1e2", "100"), ("10", "10"), ("2.50e1", "25")] {
            assert_eq!(normalize(written), meant, "{written}");
        }
        // These are no integers, or no double holds them: they stay, to be judged as they are.
        for other in ["10.5", "18446744073709551615", "\"10.0\""] {
            assert_eq!(normalize(other), other);
        }
    }

    #[test]
    fn violations_name_the_argument_and_the_reason() {
        let describe = |arguments: Value| search().check(&arguments).expect_err("a violation");
        assert_eq!(describe(json!({})), "argument \"query\" is missing");
        assert_eq!(
            describe(json!({"query": "q", "limit": 5000})),
            "argument \"limit\": the value is greater than the maximum of 1000 (the value was 5000)"
        );
        assert_eq!(
            describe(json!({"query": "q", "limt": 5})),
            "argument \"limt\" is unknown (known: query, limit)"
        );
        let both = describe(json!({"query": 7, "limit": "x"}));
        assert!(
            both.contains("argument \"query\": the value is not of type")
                && both.contains("; argument \"limit\""),
            "{both}"
        );
        assert!(describe(json!({"query": 7, "limit": "x".repeat(9000)})).chars().count() < 800);
        assert_eq!(search().check(&json!({"query": "q", "limit": 7})), Ok(()));
    }

    #[test]
    fn the_reason_stands_before_the_value_and_is_never_cut_off() {
        let long = "How much? ".repeat(990);
        for (arguments, expected) in [
            (
                json!({"query": ["a"]}),
                "argument \"query\": the value is not of type \"string\" (the value was a list of 1)",
            ),
            (
                json!({"query": "q", "limit": "x".repeat(400)}),
                "argument \"limit\": the value is not of type \"integer\" (the value was \"xxxx",
            ),
            (
                json!({"query": vec!["a"; 200]}),
                "the value is not of type \"string\" (the value was a list of 200)",
            ),
            (
                json!({"query": {"a": long}}),
                "the value is not of type \"string\" (the value was an object of 1)",
            ),
        ] {
            let violation = search().check(&arguments).expect_err("a violation");
            assert!(violation.contains(expected) && violation.chars().count() < 200, "{violation}");
        }
        let short =
            compile(json!({"type": "object", "properties": {"q": {"type": "string", "maxLength": 9}}}));
        let violation = short.expect("a schema").check(&json!({"q": long})).expect_err("a violation");
        let beginning = "How much? ".repeat(4);
        assert_eq!(
            violation,
            format!("argument \"q\": the value is longer than 9 characters (the value was \"{beginning}\"…)")
        );
    }

    #[test]
    fn members_added_by_clients_are_dropped() {
        let normalize = |arguments: Value| {
            Value::Object(search().normalize_arguments(arguments.as_object().expect("an object").clone()))
        };
        for (arguments, expected) in [
            (json!({"query": "q", "limit": null}), json!({"query": "q"})),
            (json!({"query": "q", "toolCallId": "call_1"}), json!({"query": "q"})),
            (
                json!({"query": "q", "sessionId": "x", "action": "sendMessage", "chatInput": "hi", "tool": "search"}),
                json!({"query": "q"}),
            ),
            (json!({"random_string": "x"}), json!({})),
            (json!({"query": "q", "querys": "x"}), json!({"query": "q"})),
            // Required arguments, and possible misspellings, stay to be rejected.
            (json!({"query": null}), json!({"query": null})),
            (json!({"query": "q", "limt": 5}), json!({"query": "q", "limt": 5})),
            (json!({"query": "q", "limt": null}), json!({"query": "q"})),
        ] {
            assert_eq!(normalize(arguments.clone()), expected, "{arguments}");
        }
        let many: Map<_, _> = (0..50_000).map(|at| (format!("x{at}"), Value::Null)).collect();
        assert_eq!(normalize(Value::Object(many)), json!({}));
    }

    #[test]
    fn null_stays_where_a_schema_admits_it() {
        let schema = compile(json!({
            "type": "object",
            "$defs": {"text": {"type": "string"}},
            "properties": {
                "any": {},
                "none": {"type": ["string", "null"]},
                "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "one": {"enum": ["a", "b"]},
                "a/b": {"$ref": "#/$defs/text"},
                "list": {"type": "array"},
            },
        }))
        .expect("a schema");
        let all = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect::<Map<_, _>>()
        };
        let normalize =
            schema.normalize_arguments(all(&["any", "none", "either", "one", "a/b", "list", "other"]));
        assert_eq!(normalize, all(&["any", "none", "either", "other"]));
    }

    #[test]
    fn equal_schemas_are_compiled_once() {
        let schema = || json!({"type": "object", "title": "only in this test"});
        let (one, two) = (compile(schema()).expect("a schema"), compile(schema()).expect("a schema"));
        assert!(Arc::ptr_eq(&one, &two));
    }

    #[test]
    fn no_reference_leaves_the_schema() {
        for target in ["https://example.com/schema.json", "file:///etc/passwd", "other.json"] {
            let fault = compile_error(json!({"type": "object", "properties": {"a": {"$ref": target}}}));
            assert!(matches!(fault, SchemaError::Invalid(_)), "{target}: {fault:?}");
        }
        let local = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}});
        assert!(compile(local).is_ok());
    }

    #[test]
    fn schemas_are_bounded() {
        assert_eq!(compile_error(json!({"type": "string"})), SchemaError::NotAnObject);
        assert_eq!(compile_error(json!({})), SchemaError::NotAnObject);
        let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
        assert_eq!(compile_error(json!({"type": "object", "not": deep})), SchemaError::TooDeep);
        let large = json!({"type": "object", "description": "x".repeat(MAX_SCHEMA_BYTES)});
        assert!(matches!(compile_error(large), SchemaError::TooLarge(_)));
        assert!(matches!(compile_error(json!({"type": "object", "required": 7})), SchemaError::Invalid(_)));
    }

    #[test]
    fn patterns_take_little_memory() {
        let with = |patterns: Vec<String>| {
            let members = patterns.into_iter().enumerate();
            let members =
                members.map(|(at, it)| (format!("p{at}"), json!({"type": "string", "pattern": it})));
            json!({"type": "object", "properties": members.collect::<Map<_, _>>()})
        };
        assert!(compile(with(vec!["^[A-Z]{2}-[0-9]{4,12}$".into(); MAX_PATTERNS])).is_ok());
        assert_eq!(compile_error(with(vec!["x".into(); MAX_PATTERNS + 1])), SchemaError::TooManyPatterns);
        for greedy in ["(a{999}){999}", "\\p{L}{99}", "(.{99}|x{99}){9}"] {
            let fault = compile(with(vec![greedy.into()])).err();
            assert!(matches!(fault, Some(SchemaError::Invalid(_))), "{greedy}: {fault:?}");
        }
        let named: Map<_, _> = (0..=MAX_PATTERNS).map(|at| (format!("^{at}"), json!({}))).collect();
        assert_eq!(
            compile_error(json!({"type": "object", "patternProperties": named})),
            SchemaError::TooManyPatterns
        );
    }

    #[test]
    fn patterns_cannot_run_away() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}});
        let schema = compile(schema).expect("a schema");
        assert!(schema.check(&json!({"a": format!("{}!", "a".repeat(50_000))})).is_err());
        assert!(matches!(
            compile_error(json!({"type": "object", "properties": {"a": {"pattern": "(?=x)"}}})),
            SchemaError::Invalid(_)
        ));
    }
}
