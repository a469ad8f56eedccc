//! What of a tenant's tools a model reads, and how one revision's texts differ from another's.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::diagnostic::Diagnostic;
use crate::base::digest::Digest;
use crate::base::text::clip;
use crate::spec::{TenantSpec, ToolKind, ToolSpec};

/// How much of a text is shown.
const EXCERPT_CHARS: usize = 160;
/// How much of what is equal is shown before it.
const LEAD_CHARS: usize = 30;
/// How many changes a finding tells.
const TOLD_CHANGES: usize = 3;

/// A change of something that the model reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolChange {
    /// The tool, by its name before the change if it had one; `None` for what all have in common.
    pub tool: Option<String>,
    /// What changed: `tool` (it is new or gone), `name`, `title`, `description`, `input schema`,
    /// `output schema` or `instructions`.
    pub part: &'static str,
    /// What it was, around the first difference; `None` if there was nothing.
    pub before: Option<String>,
    /// What it is; `None` if there is nothing any more.
    pub after: Option<String>,
}

/// A change of an entry that waits for an operator's approval.
#[derive(Debug)]
pub(super) struct HeldChange {
    /// The digest of the files.
    pub(super) revision: Digest,
    /// The encoded snapshot of what was read.
    pub(super) documents: Vec<u8>,
    /// Says what changed, and what to do.
    pub(super) finding: Diagnostic,
}

/// Returns how what the model reads differs between two revisions.
pub(super) fn compare(before: &TenantSpec, after: &TenantSpec) -> Vec<ToolChange> {
    let mut changes =
        compare_text(None, "instructions", before.instructions.as_ref(), after.instructions.as_ref());
    for kind in [ToolKind::Search, ToolKind::Context] {
        let of_kind = |spec: &TenantSpec| {
            let tools = spec.tools.iter().filter(|tool| tool.kind == kind);
            tools.cloned().collect::<Vec<_>>()
        };
        let (older, newer) = (of_kind(before), of_kind(after));
        for number in 0..older.len().max(newer.len()) {
            changes.extend(compare_tools(older.get(number), newer.get(number)));
        }
    }
    changes
}

fn compare_tools(before: Option<&ToolSpec>, after: Option<&ToolSpec>) -> Vec<ToolChange> {
    let (Some(older), Some(newer)) = (before, after) else {
        let name = before.or(after).map(|tool| tool.name.to_string());
        let text = |tool: Option<&ToolSpec>| tool.map(|tool| clip(&tool.description, EXCERPT_CHARS));
        return vec![ToolChange { tool: name, part: "tool", before: text(before), after: text(after) }];
    };
    let texts = [
        ("name", &older.name, &newer.name),
        ("title", &older.title, &newer.title),
        ("description", &older.description, &newer.description),
    ];
    let texts = texts
        .into_iter()
        .flat_map(|(part, before, after)| compare_text(Some(older), part, Some(before), Some(after)));
    let schemas = [
        ("input schema", &older.input_schema, &newer.input_schema),
        ("output schema", &older.output_schema, &newer.output_schema),
    ];
    let schemas = schemas.into_iter().filter(|(_, before, after)| before != after);
    let schemas = schemas.flat_map(|(part, before, after)| {
        let [before, after] = [before, after].map(encode);
        compare_text(Some(older), part, Some(&before), Some(&after))
    });
    texts.chain(schemas).collect()
}

fn encode(schema: &Arc<Map<String, Value>>) -> Arc<str> {
    serde_json::to_string(&**schema).expect("a schema is plain data").into()
}

fn compare_text(
    tool: Option<&ToolSpec>,
    part: &'static str,
    before: Option<&Arc<str>>,
    after: Option<&Arc<str>>,
) -> Vec<ToolChange> {
    if before == after {
        return Vec::new();
    }
    let text = |side: Option<&Arc<str>>| side.map(|text| text.to_string()).unwrap_or_default();
    let (older, newer) = excerpts(&text(before), &text(after));
    vec![ToolChange {
        tool: tool.map(|tool| tool.name.to_string()),
        part,
        before: before.map(|_| older),
        after: after.map(|_| newer),
    }]
}

/// Returns both texts from a little before their first difference.
fn excerpts(before: &str, after: &str) -> (String, String) {
    let equal = before.chars().zip(after.chars()).take_while(|(one, other)| one == other).count();
    let start = equal.saturating_sub(LEAD_CHARS);
    let excerpt = |text: &str| {
        let rest: String = text.chars().skip(start).collect();
        let cut = if start > 0 { "…" } else { "" };
        format!("{cut}{}", clip(&rest, EXCERPT_CHARS))
    };
    (excerpt(before), excerpt(after))
}

/// Returns the finding about a change that is live.
pub(super) fn live_finding(changes: &[ToolChange]) -> Diagnostic {
    Diagnostic::warning("tool-text-changed", format!("a new export or file changed {}", describe(changes))).help(
        "if you did not expect this, put the last revision back (tenantd tenants history, rollback); hold_changes: \
         tools in your own file makes such changes wait for you",
    )
}

/// Returns the finding about a change that waits.
pub(super) fn held_finding(changes: &[ToolChange], name: &str) -> Diagnostic {
    let what =
        format!("the files change {}; the last revision serves until you approve it", describe(changes));
    let help = format!(
        "\"tenantd tenants diff {name}\" shows the change, \"tenantd tenants approve {name}\" puts it in force"
    );
    Diagnostic::warning("tool-text-changed", what).help(help)
}

fn describe(changes: &[ToolChange]) -> String {
    let told: Vec<String> = changes.iter().take(TOLD_CHANGES).map(describe_one).collect();
    let more = match changes.len().saturating_sub(TOLD_CHANGES) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("what the model reads: {}{more}", told.join("; "))
}

fn describe_one(change: &ToolChange) -> String {
    let tool = change.tool.as_ref().map(|name| format!(" of the tool {name}")).unwrap_or_default();
    match (change.part, &change.before, &change.after) {
        ("tool", None, _) => format!("a new tool {}", change.tool.as_deref().unwrap_or_default()),
        ("tool", ..) => format!("the tool {} is gone", change.tool.as_deref().unwrap_or_default()),
        (part, None, Some(after)) => format!("{part}{tool}, new: {after:?}"),
        (part, Some(before), None) => format!("{part}{tool}, gone: {before:?}"),
        (part, before, after) => {
            let text = |side: &Option<String>| side.clone().unwrap_or_default();
            format!("{part}{tool}, from {:?} to {:?}", text(before), text(after))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{self, sample::sample_context};
    use crate::tenants::scan::scan_folder;
    use crate::tenants::source::TenantsSource;

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let long = "x".repeat(5_000);
        let (before, after) = excerpts(&format!("{long}a{long}"), &format!("{long}b{long}"));
        assert!(before.starts_with(&format!("…{}a", "x".repeat(LEAD_CHARS))), "{before}");
        assert!(after.contains('b') && after.chars().count() <= EXCERPT_CHARS + 2, "{after}");
        assert_eq!(excerpts("ä", "ö"), ("ä".to_owned(), "ö".to_owned()));
    }

    /// Returns a tenant as its files would make it.
    fn spec() -> TenantSpec {
        let folder = tempfile::tempdir().expect("a folder");
        let fields = "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\n\
                      connection_id: c\napi_key: key-0001\npath_prefix: /a\ninstructions: Ask for sales.\n";
        std::fs::write(folder.path().join("a.yaml"), fields).expect("written");
        let source = TenantsSource::Folder(folder.path().to_owned());
        let entries = scan_folder(&source, None, &Default::default()).expect("listed").entries;
        bundle::load(&entries[0].files, &sample_context()).spec.expect("usable")
    }

    fn with_first_tool(spec: &TenantSpec, change: impl FnOnce(&mut ToolSpec)) -> TenantSpec {
        let mut tools = spec.tools.to_vec();
        change(&mut tools[0]);
        TenantSpec { tools: tools.into(), ..spec.clone() }
    }

    #[test]
    fn everything_that_a_model_reads_is_compared() {
        let before = spec();
        let schema = || Arc::new(Map::from_iter([("type".to_owned(), "object".into())]));
        let cases = [
            ("instructions", TenantSpec { instructions: Some("Ask for returns.".into()), ..before.clone() }),
            ("instructions", TenantSpec { instructions: None, ..before.clone() }),
            ("name", with_first_tool(&before, |tool| tool.name = "other".into())),
            ("title", with_first_tool(&before, |tool| tool.title = "Other".into())),
            ("description", with_first_tool(&before, |tool| tool.description = "Other".into())),
            ("input schema", with_first_tool(&before, |tool| tool.input_schema = schema())),
            ("output schema", with_first_tool(&before, |tool| tool.output_schema = schema())),
            ("tool", TenantSpec { tools: before.tools[..1].into(), ..before.clone() }),
        ];
        assert_eq!(compare(&before, &before), []);
        for (part, after) in &cases {
            for (older, newer) in [(&before, after), (after, &before)] {
                let parts: Vec<_> = compare(older, newer).iter().map(|change| change.part).collect();
                assert_eq!(parts, [*part]);
            }
        }
    }
}
