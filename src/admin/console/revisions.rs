//! The stored revisions of a tenant, and the difference between two of them.

use askama::Template;

use super::frame::{Frame, Section, Visit};
use super::link;
use super::relative_time::RelativeTime;
use crate::admin::Admin;
use crate::bundle::DocumentDiff;
use crate::telemetry::printable::{printable, printable_lines};
use crate::tenants::ToolChange;
use crate::tenants::reconcile::{Revision, RevisionComparison};

/// A stored revision.
pub(super) struct RevisionView {
    pub(super) number: u64,
    pub(super) digest: String,
    pub(super) accepted: RelativeTime,
    pub(super) in_force: bool,
    /// Where it is compared with the one before it, if that is stored.
    pub(super) diff_path: Option<String>,
}

/// Returns the revisions as the page shows them, the newest first.
pub(super) fn views(tenant: &str, revisions: Vec<Revision>, visit: &Visit<'_>) -> Vec<RevisionView> {
    let earlier: Vec<_> =
        revisions.iter().skip(1).map(|revision| Some(revision.number)).chain([None]).collect();
    let view = |(revision, earlier): (Revision, Option<u64>)| RevisionView {
        diff_path: earlier.map(|from| diff_path(tenant, from, revision.number)),
        number: revision.number,
        digest: revision.digest,
        accepted: visit.relative_time(revision.accepted_at),
        in_force: revision.in_force,
    };
    revisions.into_iter().zip(earlier).map(view).collect()
}

fn diff_path(tenant: &str, from: u64, to: u64) -> String {
    let path = format!("{}/diff", link::tenant(tenant));
    link::with_query(&path, &[("from", &from.to_string()), ("to", &to.to_string())])
}

#[derive(Template)]
#[template(path = "admin/diff.html")]
struct DiffPage {
    frame: Frame,
    name: String,
    tenant_path: String,
    from: u64,
    /// The newer revision, or [`HELD`].
    to: String,
    /// What the model reads, if that differs.
    tools: Vec<ToolChangeView>,
    documents: Vec<DocumentView>,
    refusal: Option<String>,
    /// Where this very change is approved, if it waits for that.
    approve_path: Option<String>,
}

/// What differs of one part of a tool. The texts are those around the first difference.
struct ToolChangeView {
    /// The tool and the part, or only the part.
    title: String,
    before: Option<String>,
    after: Option<String>,
}

/// The differences of one document. Secrets are blanked before they come here.
struct DocumentView {
    name: String,
    lines: Vec<LineView>,
}

struct LineView {
    is_added: bool,
    number: usize,
    text: String,
}

impl From<DocumentDiff> for DocumentView {
    fn from(diff: DocumentDiff) -> Self {
        let line = |line: crate::bundle::DiffLine| LineView {
            is_added: line.sign == '+',
            number: line.number,
            text: printable(&line.text).into_owned(),
        };
        Self {
            name: printable(&diff.document).into_owned(),
            lines: diff.lines.into_iter().map(line).collect(),
        }
    }
}

/// What stands for a revision that waits for approval.
const HELD: &str = "the change that waits for approval";

/// Renders the difference between two revisions; `None` if there is no such tenant.
pub(super) async fn render_diff(admin: &Admin, name: &str, visit: &Visit<'_>) -> Option<String> {
    let shown = printable(admin.registry.load().find_entry(name)?.name()).into_owned();
    let number = |parameter| visit.parameter(parameter).and_then(|text| text.parse().ok());
    let (from, to): (Option<u64>, Option<u64>) = (number("from"), number("to"));
    let mut page = DiffPage {
        frame: Frame::new(format!("{shown}: changes"), Section::Overview, visit),
        tenant_path: link::tenant(name),
        name: shown,
        from: from.unwrap_or(0),
        to: format!("revision {}", to.unwrap_or(0)),
        tools: Vec::new(),
        documents: Vec::new(),
        refusal: None,
        approve_path: None,
    };
    match admin.reconciler.diff(name, from, to).await {
        Ok(comparison) => page.fill(comparison, name),
        Err(refusal) => page.refusal = Some(refusal.to_string()),
    }
    Some(page.render().expect("the page is written to a String"))
}

impl DiffPage {
    fn fill(&mut self, comparison: RevisionComparison, tenant: &str) {
        let RevisionComparison { from, to, held, tools, documents } = comparison;
        self.from = from;
        self.to = to.map_or_else(|| HELD.to_owned(), |to| format!("revision {to}"));
        self.tools = tools.into_iter().map(ToolChangeView::from).collect();
        self.documents = documents.into_iter().map(DocumentView::from).collect();
        let approve = format!("{}/approve", link::tenant(tenant));
        self.approve_path = held.map(|digest| link::with_query(&approve, &[("digest", &digest)]));
    }
}

impl From<ToolChange> for ToolChangeView {
    fn from(change: ToolChange) -> Self {
        let text = |text: String| printable_lines(&text).into_owned();
        let tool = change.tool.map(|tool| format!("{}: ", printable(&tool))).unwrap_or_default();
        Self {
            title: format!("{tool}{}", change.part),
            before: change.before.map(text),
            after: change.after.map(text),
        }
    }
}
