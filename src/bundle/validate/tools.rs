//! The tools: the two of every export, as the operator renames, describes, hides or extends them.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::backend::ValidatedBackend;
use super::parameters;
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::contract::{self, ToolTexts};
use crate::spec::{CallSpec, Constants, ToolKind, ToolSpec};

const MAX_TEXT_BYTES: usize = 4_096;

/// Returns the tools in the order they are listed, without hidden ones.
pub(super) fn validate(
    validation: &mut Validation<'_, '_>,
    title: &str,
    backend: &ValidatedBackend,
) -> Vec<ToolSpec> {
    let description = validation.layers.find_text(&["description"]);
    let parameters = parameters::validate(validation);
    let search_input = contract::search_input(&parameters, &find_path_arguments(backend));
    let context = contract::context_texts(validation.dataset, title);
    let context = validate_tool(
        validation,
        context,
        contract::context_input(),
        ToolKind::Context,
        &backend.spec.context,
    );
    let context_name = context.as_ref().map(|tool| &*tool.name);
    let search = contract::search_texts(validation.dataset, title, description, context_name);
    let search = validate_tool(validation, search, search_input, ToolKind::Search, &backend.search);
    let tools: Vec<ToolSpec> = [search, context].into_iter().flatten().collect();
    if let [first, second] = tools.as_slice()
        && first.name == second.name
    {
        let at = validation.locate(&["tools"]);
        validation.add_finding(
            Diagnostic::error("tool-name-twice", "both tools have the same name")
                .help("give each its own name"),
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

fn validate_tool(
    validation: &mut Validation<'_, '_>,
    texts: ToolTexts,
    input_schema: Arc<Map<String, Json>>,
    kind: ToolKind,
    call: &Arc<CallSpec>,
) -> Option<ToolSpec> {
    let key = texts.name;
    if validation.layers.find_bool(&["tools", key, "hidden"]) == Some(true) {
        return None;
    }
    Some(ToolSpec {
        name: validate_name(validation, key),
        title: validate_text(validation, key, "title").unwrap_or(texts.title).into(),
        description: validate_text(validation, key, "description").unwrap_or(texts.description).into(),
        input_schema,
        output_schema: contract::output(),
        kind,
        call: Arc::clone(call),
    })
}

fn validate_name(validation: &mut Validation<'_, '_>, key: &'static str) -> Arc<str> {
    let Some(found) = validation.layers.find(&["tools", key, "name"]) else { return key.into() };
    let text = found.text().unwrap_or(key);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if text.len() > 128 || !text.bytes().all(fits) {
        validation.add_finding(
            Diagnostic::error("bad-tool-name", format!("tools.{key}.name is not a valid name for a tool"))
                .help("use letters, digits, \"_\", \"-\" and \".\", at most 128 characters"),
            Some(found.location()),
        );
    } else if text.len() > 64 || text.contains('.') {
        validation.add_finding(
            Diagnostic::warning(
                "tool-name-refused",
                format!(
                    "tools.{key}.name is a name that Claude and Copilot refuse; they then show none of the \
                     tools"
                ),
            )
            .help("use letters, digits, \"_\" and \"-\", at most 64 characters"),
            Some(found.location()),
        );
    }
    text.into()
}

fn validate_text(validation: &mut Validation<'_, '_>, key: &str, field: &str) -> Option<String> {
    let found = validation.layers.find(&["tools", key, field])?;
    let text = found.text()?;
    if text.len() > MAX_TEXT_BYTES {
        validation.add_finding(
            Diagnostic::error("text-too-long", format!("tools.{key}.{field} is longer than 4 KiB"))
                .help("models read this before every call: a few sentences work better"),
            Some(found.location()),
        );
    }
    Some(text.to_owned())
}
