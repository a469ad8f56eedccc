//! The operator's further arguments of a search: one JSON Schema for each name.

use serde_json::{Map, Value as Json};

use super::validation::Validation;
use crate::base::diagnostic::{Diagnostic, Location};
use crate::bundle::contract;
use crate::bundle::fields::is_field_name;
use crate::bundle::layers::Layers;

const PATH: &[&str] = &["tools", "search", "parameters"];
const MAX_PARAMETERS: usize = 16;
const MAX_SCHEMA_BYTES: usize = 16 << 10;
const MAX_SCHEMA_DEPTH: usize = 8;
/// Keywords that refer to other schemas, or that others could refer to.
const REFERENCE_KEYWORDS: [&str; 7] =
    ["$ref", "$dynamicRef", "$recursiveRef", "$id", "$schema", "$anchor", "$dynamicAnchor"];

/// Returns the names under `tools.search.parameters` that can also be marks.
pub(super) fn parameter_names(layers: &Layers) -> Vec<&str> {
    let names = layers.find_named(PATH).into_iter().map(|(name, _)| name);
    names.filter(|name| is_valid_name(name)).collect()
}

/// Whether a parameter's name can also be a mark.
fn is_valid_name(name: &str) -> bool {
    is_field_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the parameters as JSON Schema properties.
pub(super) fn validate(validation: &mut Validation<'_, '_>) -> Map<String, Json> {
    let named = validation.layers.find_named(PATH);
    let mut parameters = Map::new();
    if let Some((_, found)) = named.get(MAX_PARAMETERS) {
        reject(validation, "there are more than 16 parameters", found.location());
        return parameters;
    }
    for (name, found) in named {
        let schema = found.node.to_json();
        match find_parameter_error(name, &schema) {
            None => {
                warn_of_schema(validation, name, &schema, &found.location());
                parameters.insert(name.to_owned(), schema);
            }
            Some(what) => reject(validation, what, found.location()),
        }
    }
    parameters
}

fn reject(validation: &mut Validation<'_, '_>, what: &str, at: Location) {
    validation.add_finding(
        Diagnostic::error("bad-parameter", format!("tools.search.parameters cannot be used: {what}"))
            .help("write one JSON Schema per name, such as region: {type: string, description: …}"),
        Some(at),
    );
}

fn find_parameter_error(name: &str, schema: &Json) -> Option<&'static str> {
    if !is_valid_name(name) {
        return Some("a parameter's name consists of letters, digits and _, at most 40 characters");
    }
    if name == "query" || contract::CONSTANT_MARKS.contains(&name) {
        return Some("this name is already used");
    }
    if !schema.is_object() {
        return Some("a parameter's schema must be a mapping");
    }
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Some("a parameter's schema is larger than 16 KiB");
    }
    find_schema_error(schema, 0)
}

/// Refuses deep schemas, and references: a property's schema is embedded in the tool's, so even a
/// local one would resolve elsewhere than its author meant.
fn find_schema_error(schema: &Json, depth: usize) -> Option<&'static str> {
    if depth > MAX_SCHEMA_DEPTH {
        return Some("a parameter's schema is nested more than 8 levels deep");
    }
    match schema {
        Json::Object(members) => {
            members.iter().find_map(|(keyword, value)| match REFERENCE_KEYWORDS.contains(&keyword.as_str()) {
                true => Some("a parameter's schema must not refer to other schemas ($ref, $id, …)"),
                false => find_schema_error(value, depth + 1),
            })
        }
        Json::Array(items) => items.iter().find_map(|item| find_schema_error(item, depth + 1)),
        _ => None,
    }
}

/// Warns of keywords that some clients reject, since they convert our schema to one of their own.
fn warn_of_schema(validation: &mut Validation<'_, '_>, name: &str, schema: &Json, at: &Location) {
    let has_type_list = |schema: &Map<String, Json>| schema.get("type").is_some_and(Json::is_array);
    let has_exclusive_bound = |schema: &Map<String, Json>| {
        ["exclusiveMinimum", "exclusiveMaximum"].iter().any(|keyword| schema.contains_key(*keyword))
    };
    let found = [
        (
            contains_schema(schema, &has_type_list),
            "has a list of types; AutoGen fails on it, and Gemini and Copilot Studio do not accept it",
            "use one type; an optional argument needs no \"null\", callers can leave it out",
        ),
        (
            contains_schema(schema, &has_exclusive_bound),
            "has exclusiveMinimum or exclusiveMaximum, which Gemini and Copilot Studio do not accept",
            "use minimum and maximum",
        ),
    ];
    for (_, what, help) in found.into_iter().filter(|(is_so, ..)| *is_so) {
        let what = format!("the schema of tools.search.parameters.{name} {what}");
        validation.add_finding(Diagnostic::warning("schema-refused", what).help(help), Some(at.clone()));
    }
}

/// Whether a schema or a schema inside it satisfies `is_such`. Values of `enum`, `default` and the
/// like are not schemas, and names in `properties` are not keywords.
fn contains_schema(schema: &Json, is_such: &impl Fn(&Map<String, Json>) -> bool) -> bool {
    let Json::Object(members) = schema else { return false };
    let has_inside = |(keyword, value): (&String, &Json)| match (keyword.as_str(), value) {
        ("properties" | "patternProperties" | "$defs", Json::Object(named)) => {
            named.values().any(|schema| contains_schema(schema, is_such))
        }
        ("items" | "additionalProperties" | "not" | "contains", schema) => contains_schema(schema, is_such),
        ("anyOf" | "oneOf" | "allOf" | "prefixItems", Json::Array(schemas)) => {
            schemas.iter().any(|schema| contains_schema(schema, is_such))
        }
        _ => false,
    };
    is_such(members) || members.iter().any(has_inside)
}
