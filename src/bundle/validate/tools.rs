//! The tools: the two of every export, as the operator renames, describes, hides or extends them.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};

use super::Validation;
use super::backend::ValidatedBackend;
use crate::base::diagnostic::{Diagnostic, Location};
use crate::bundle::contract::{self, ToolTexts};
use crate::bundle::document::Layers;
use crate::bundle::excerpt::is_name;
use crate::bundle::yaml::{YamlNode, YamlValue};
use crate::spec::{CallSpec, Constants, ToolKind, ToolSpec};

const MAX_PARAMETERS: usize = 16;
const MAX_SCHEMA_BYTES: usize = 16 << 10;
const MAX_SCHEMA_DEPTH: usize = 8;
const MAX_TEXT: usize = 4_096;

/// Returns the tools in the order they are listed, without hidden ones.
pub(super) fn validate(
    case: &mut Validation<'_, '_>,
    title: &str,
    backend: &ValidatedBackend,
) -> Vec<ToolSpec> {
    let description = case.layers.find_text(&["description"]);
    let parameters = parameters(case);
    let needed = find_path_arguments(backend);
    let inputs = (contract::search_input(&parameters, &needed), contract::context_input());
    let context = contract::context_texts(case.dataset, title);
    let context = tool(case, context, inputs.1, ToolKind::Context, &backend.spec.context);
    let context_name = context.as_ref().map(|tool| &*tool.name);
    let search = contract::search_texts(case.dataset, title, description, context_name);
    let search = tool(case, search, inputs.0, ToolKind::Search, &backend.search);
    let tools: Vec<ToolSpec> = [search, context].into_iter().flatten().collect();
    if let [first, second] = tools.as_slice()
        && first.name == second.name
    {
        let at = case.layers.find(&["tools"]).map(|found| found.location());
        case.add_finding(
            Diagnostic::error("tool-name-twice", "both tools have the same name")
                .help("give each a name of its own"),
            at,
        );
    }
    tools
}

/// Returns the arguments in the path of a search, which are required: without them there is no URL.
fn find_path_arguments(backend: &ValidatedBackend) -> Vec<&str> {
    let mut needed: Vec<&str> = Vec::new();
    for mark in backend.search.url.path_marks() {
        if !Constants::NAMES.contains(&mark) && !needed.contains(&mark) {
            needed.push(mark);
        }
    }
    needed
}

fn tool(
    case: &mut Validation<'_, '_>,
    texts: ToolTexts,
    input_schema: Arc<Map<String, Json>>,
    kind: ToolKind,
    call: &Arc<CallSpec>,
) -> Option<ToolSpec> {
    let key = texts.name;
    if case.layers.find_bool(&["tools", key, "hidden"]) == Some(true) {
        return None;
    }
    Some(ToolSpec {
        name: name(case, key),
        title: text(case, key, "title").unwrap_or(texts.title).into(),
        description: text(case, key, "description").unwrap_or(texts.description).into(),
        input_schema,
        output_schema: contract::output(),
        kind,
        call: call.clone(),
    })
}

fn name(case: &mut Validation<'_, '_>, key: &'static str) -> Arc<str> {
    let Some(found) = case.layers.find(&["tools", key, "name"]) else { return key.into() };
    let text = found.text().unwrap_or(key);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if text.len() > 128 || !text.bytes().all(fits) {
        case.add_finding(
            Diagnostic::error("bad-tool-name", format!("tools.{key}.name is no name of a tool"))
                .help("use letters, digits, \"_\", \"-\" and \".\", at most 128 of them"),
            Some(found.location()),
        );
    } else if text.len() > 64 || text.contains('.') {
        case.add_finding(
            Diagnostic::warning(
                "tool-name-refused",
                format!(
                    "tools.{key}.name is one that Claude and Copilot refuse, which then show no tool at all"
                ),
            )
            .help("use letters, digits, \"_\" and \"-\", at most 64 of them"),
            Some(found.location()),
        );
    }
    text.into()
}

fn text(case: &mut Validation<'_, '_>, key: &str, field: &str) -> Option<String> {
    let found = case.layers.find(&["tools", key, field])?;
    let text = found.text()?;
    if text.len() > MAX_TEXT {
        case.add_finding(
            Diagnostic::error("text-too-long", format!("tools.{key}.{field} is longer than 4 KiB"))
                .help("models read this before every call: a few sentences do more"),
            Some(found.location()),
        );
    }
    Some(text.to_owned())
}

/// Returns the names under `tools.search.parameters`.
pub(super) fn parameter_names(layers: &Layers) -> Vec<&str> {
    layers
        .find_named(&["tools", "search", "parameters"])
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| fits(name))
        .collect()
}

/// Whether a parameter's name can also be a mark.
fn fits(name: &str) -> bool {
    is_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the operator's further arguments of a search, as JSON Schema properties.
fn parameters(case: &mut Validation<'_, '_>) -> Map<String, Json> {
    let layers = case.layers;
    let named = layers.find_named(&["tools", "search", "parameters"]);
    let mut parameters = Map::new();
    if let Some((_, found)) = named.get(MAX_PARAMETERS) {
        refuse(case, "there are more than 16 parameters", found.location());
        return parameters;
    }
    for (name, found) in named {
        let schema = json(found.node);
        let fault = match () {
            () if !fits(name) => {
                Some("a parameter's name is made of letters, digits and _, at most 40 of them")
            }
            () if name == "query" || contract::CONSTANT_MARKS.contains(&name) => Some("this name is taken"),
            () => schema_fault(&schema),
        };
        match fault {
            None => {
                warn_of_schema(case, name, &schema, found.location());
                parameters.insert(name.to_owned(), schema);
            }
            Some(fault) => refuse(case, fault, found.location()),
        }
    }
    parameters
}

fn refuse(case: &mut Validation<'_, '_>, fault: &str, at: Location) {
    case.add_finding(
        Diagnostic::error("bad-parameter", format!("tools.search.parameters cannot be used: {fault}"))
            .help("write one JSON Schema per name, such as region: {type: string, description: …}"),
        Some(at),
    );
}

fn schema_fault(schema: &Json) -> Option<&'static str> {
    if !schema.is_object() {
        return Some("a parameter's schema must be a mapping");
    }
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Some("a parameter's schema is larger than 16 KiB");
    }
    walk(schema, 0)
}

/// Warns of keywords that some clients reject, since they convert our schema to one of their own.
fn warn_of_schema(case: &mut Validation<'_, '_>, name: &str, schema: &Json, at: Location) {
    let several = |schema: &Map<String, Json>| schema.get("type").is_some_and(Json::is_array);
    let exclusive = |schema: &Map<String, Json>| {
        ["exclusiveMinimum", "exclusiveMaximum"].iter().any(|keyword| schema.contains_key(*keyword))
    };
    let found = [
        (
            any(schema, &several),
            "has a list of types, on which AutoGen fails and which Gemini and Copilot Studio do not take",
            "name one type; an argument that may be missing needs no \"null\", it can be left out",
        ),
        (
            any(schema, &exclusive),
            "has exclusiveMinimum or exclusiveMaximum, which Gemini and Copilot Studio do not take",
            "use minimum and maximum",
        ),
    ];
    for (_, what, help) in found.into_iter().filter(|(is_so, ..)| *is_so) {
        let what = format!("the schema of tools.search.parameters.{name} {what}");
        case.add_finding(Diagnostic::warning("schema-refused", what).help(help), Some(at.clone()));
    }
}

/// Whether a schema or a schema inside it satisfies `is_such`. Values of `enum`, `default` and the
/// like are not schemas, and names in `properties` are not keywords.
fn any(schema: &Json, is_such: &impl Fn(&Map<String, Json>) -> bool) -> bool {
    let Json::Object(members) = schema else { return false };
    let inside = |(keyword, value): (&String, &Json)| match (keyword.as_str(), value) {
        ("properties" | "patternProperties" | "$defs", Json::Object(named)) => {
            named.values().any(|schema| any(schema, is_such))
        }
        ("items" | "additionalProperties" | "not" | "contains", schema) => any(schema, is_such),
        ("anyOf" | "oneOf" | "allOf" | "prefixItems", Json::Array(schemas)) => {
            schemas.iter().any(|schema| any(schema, is_such))
        }
        _ => false,
    };
    is_such(members) || members.iter().any(inside)
}

fn walk(schema: &Json, depth: usize) -> Option<&'static str> {
    if depth > MAX_SCHEMA_DEPTH {
        return Some("a parameter's schema is nested more than 8 deep");
    }
    match schema {
        Json::Object(members) => {
            members.iter().find_map(|(name, value)| reference_fault(name).or_else(|| walk(value, depth + 1)))
        }
        Json::Array(items) => items.iter().find_map(|item| walk(item, depth + 1)),
        _ => None,
    }
}

/// Refuses references: a property's schema is embedded in the tool's, so even a local one would
/// resolve elsewhere than its author meant.
fn reference_fault(name: &str) -> Option<&'static str> {
    let references = ["$ref", "$dynamicRef", "$recursiveRef", "$id", "$schema", "$anchor", "$dynamicAnchor"];
    references.contains(&name).then_some("a parameter's schema must not refer to others ($ref, $id, …)")
}

/// Converts YAML to JSON (core schema): plain scalars may be numbers, booleans or null.
pub(super) fn json(node: &YamlNode) -> Json {
    match &node.value {
        YamlValue::List(items) => Json::Array(items.iter().map(json).collect()),
        YamlValue::Map(pairs) => {
            Json::Object(pairs.iter().map(|(key, node)| (key.text.to_string(), json(node))).collect())
        }
        YamlValue::Scalar { text, plain: false } => Json::String(text.to_string()),
        YamlValue::Scalar { .. } if node.is_blank() => Json::Null,
        YamlValue::Scalar { text, .. } => plain(text),
    }
}

fn plain(text: &str) -> Json {
    if let Ok(number) = text.parse::<i64>() {
        return Json::from(number);
    }
    match text {
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        _ => match text
            .parse::<f64>()
            .ok()
            .filter(|_| text.contains(|c: char| c.is_ascii_digit()))
            .and_then(Number::from_f64)
        {
            Some(number) => Json::Number(number),
            None => Json::String(text.to_owned()),
        },
    }
}
