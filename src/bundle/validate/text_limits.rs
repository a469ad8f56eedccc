//! Limits on the texts from a tenant's file that the gateway sends: each text, and the list of
//! tools as a whole.
//!
//! Models read these texts in every conversation, and every caller receives them; the author of the
//! file, which may be a vendor's zip, decides how long they are.

use serde_json::json;

use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::spec::ToolSpec;

/// In characters, not bytes.
pub(super) const MAX_TITLE: usize = 200;
const MAX_DATASET: usize = 256;
const MAX_DESCRIPTION: usize = 4 << 10;
const MAX_INSTRUCTIONS: usize = 16 << 10;
/// The size that a list of tools may always have, in bytes, however small `limits.max_result` is.
const LEAST_LIST: usize = 16 << 10;

/// Validates the texts about the whole tenant.
pub(super) fn check_texts(validation: &mut Validation<'_, '_>) {
    check_length(
        validation,
        "description",
        MAX_DESCRIPTION,
        "every caller gets this text: a few sentences work better",
    );
    check_length(
        validation,
        "instructions",
        MAX_INSTRUCTIONS,
        "models read them before every conversation: one page works better",
    );
    check_dataset(validation);
    check_title(validation);
}

fn check_length(validation: &mut Validation<'_, '_>, field: &str, limit: usize, why: &str) {
    let Some(found) = validation.layers.find(&[field]) else { return };
    let bytes = found.text().map_or(0, str::len);
    if bytes > limit {
        let help = format!("{why}; write a shorter {field} into the .yaml beside the zip");
        validation.add_finding(too_long_error(field, bytes, limit).help(help), Some(found.location()));
    }
}

/// Checks the length of the dataset's name, which names the resource and is in each tool's text. It
/// may come from the name of the configuration's file.
fn check_dataset(validation: &mut Validation<'_, '_>) {
    let bytes = validation.dataset.len();
    if bytes > MAX_DATASET {
        let at = validation.locate(&["dataset"]);
        let help = "give the dataset a shorter name in the portal and export it again, or write dataset: \
                    into the .yaml beside the zip";
        validation.add_finding(too_long_error("the name of the dataset", bytes, MAX_DATASET).help(help), at);
    }
}

fn check_title(validation: &mut Validation<'_, '_>) {
    let Some(found) = validation.layers.find(&["display_name"]) else { return };
    if found.text().is_some_and(|text| text.chars().nth(MAX_TITLE).is_some()) {
        validation.add_finding(
            Diagnostic::warning(
                "text-too-long",
                format!("display_name is longer than {MAX_TITLE} characters; the rest is cut off"),
            )
            .help("write a shorter display_name into the .yaml beside the zip"),
            Some(found.location()),
        );
    }
}

fn too_long_error(what: &str, bytes: usize, limit: usize) -> Diagnostic {
    Diagnostic::error("text-too-long", format!("{what} has {bytes} bytes; at most {limit} are allowed"))
}

/// Checks the size of the list of tools as sent. It is a result like others, so `limits.max_result`
/// applies.
pub(super) fn check_tool_list(validation: &mut Validation<'_, '_>, tools: &[ToolSpec], max_result: usize) {
    let limit = max_result.max(LEAST_LIST);
    let bytes: usize = tools.iter().map(count_listed_bytes).sum();
    if bytes <= limit {
        return;
    }
    let at = validation.locate(&["tools"]);
    validation.add_finding(
        Diagnostic::error(
            "list-too-large",
            format!("the list of tools has {bytes} bytes, but limits.max_result allows {limit}"),
        )
        .help("shorten the texts and schemas under tools:, or raise limits.max_result"),
        at,
    );
}

/// Returns the size of a tool in the list, in bytes.
fn count_listed_bytes(tool: &ToolSpec) -> usize {
    let listed = json!({
        "name": tool.name, "title": tool.title, "description": tool.description,
        "inputSchema": *tool.input_schema, "outputSchema": *tool.output_schema,
        "annotations": {
            "title": tool.title,
            "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false,
        },
    });
    listed.to_string().len() + 1
}
