//! Alerts: what is wrong now as the targets of `notify` are told of it, and how each target is.

use askama::Template;
use http::Response;
use serde_json::Value;

use super::actions::{lead_to, make_notice, read_answer};
use super::frame::{Frame, Section, Visit};
use super::link;
use super::notices::Notice;
use super::prose::Prose;
use super::relative_time::RelativeTime;
use crate::admin::Admin;
use crate::admin::call::Call;
use crate::admin::notify::test as send_test_alert;
use crate::alerts::{AlertsStatus, CurrentCondition, SubjectKind, TargetStatus};
use crate::base::body::Body;
use crate::spec::AlertKind;
use crate::telemetry::printable::printable;

/// Conditions on the page; more are only counted.
const ROWS: usize = 100;

#[derive(Template)]
#[template(path = "admin/alerts.html")]
struct AlertsPage {
    frame: Frame,
    conditions: Vec<ConditionView>,
    omitted: usize,
    targets: Vec<TargetView>,
}

/// Something that is wrong.
struct ConditionView {
    kind: &'static str,
    subject: String,
    /// Where the console says more about the subject.
    path: Option<String>,
    summary: Prose,
    action: Prose,
    /// The targets that are told of it.
    told: String,
}

/// Who is told.
struct TargetView {
    name: String,
    to: String,
    kinds: String,
    is_failing: bool,
    last_success: Option<RelativeTime>,
    last_failure: Option<(String, RelativeTime)>,
    failures: u32,
    waiting: usize,
    /// Where a test of it is ordered.
    test_path: String,
}

/// Renders the page.
pub(super) fn render(admin: &Admin, visit: &Visit<'_>) -> String {
    let AlertsStatus { targets, conditions } = admin.alerts.status();
    let page = AlertsPage {
        frame: Frame::new("Alerts", Section::Alerts, visit),
        omitted: conditions.len().saturating_sub(ROWS),
        conditions: conditions
            .iter()
            .take(ROWS)
            .map(|condition| ConditionView::new(condition, &targets))
            .collect(),
        targets: targets.into_iter().map(|target| TargetView::new(target, visit)).collect(),
    };
    page.render().expect("the page is written to a String")
}

/// Sends a test event to each target, or to the one that the form names.
pub(super) async fn test(call: Call<'_>) -> Response<Body> {
    let admin = call.admin;
    let (status, answer) = read_answer(send_test_alert(call).await).await;
    let notice = match answer["results"].as_array() {
        Some(results) if status.is_success() => describe_results(results),
        _ => make_notice(status, &answer, ""),
    };
    lead_to(admin, "/alerts", status, notice)
}

/// Says what each target answered to the test.
fn describe_results(results: &[Value]) -> Notice {
    let line = |result: &Value| {
        let text = |name: &str| printable(result[name].as_str().unwrap_or_default()).into_owned();
        let word = if result["ok"] == true { "arrived" } else { "did not arrive" };
        format!("{}: {word} ({})", text("target"), text("answer"))
    };
    let is_refusal = results.iter().any(|result| result["ok"] != true);
    let text = if is_refusal { "The test did not arrive everywhere." } else { "The test arrived." };
    Notice { is_refusal, text: text.to_owned(), findings: results.iter().map(line).collect() }
}

impl ConditionView {
    fn new(CurrentCondition { kind, condition }: &CurrentCondition, targets: &[TargetStatus]) -> Self {
        let told = targets.iter().filter(|target| target.on.contains(kind));
        let told: Vec<_> = told.map(|target| printable(&target.name).into_owned()).collect();
        Self {
            kind: kind.as_str(),
            subject: printable(&condition.subject.name).into_owned(),
            path: find_subject_page(condition.subject.kind, &condition.subject.name),
            summary: printable(&condition.summary).into(),
            action: printable(&condition.action).into(),
            told: told.join(", "),
        }
    }
}

/// Returns where the console says more about the subject of a condition.
pub(super) fn find_subject_page(kind: SubjectKind, name: &str) -> Option<String> {
    match kind {
        SubjectKind::Tenant => Some(link::tenant(name)),
        SubjectKind::Certificate => Some("/certificates".to_owned()),
        SubjectKind::Folder | SubjectKind::Gateway => None,
    }
}

impl TargetView {
    fn new(target: TargetStatus, visit: &Visit<'_>) -> Self {
        let kinds: Vec<_> = target.on.iter().map(|kind| kind.as_str()).collect();
        let are_all = AlertKind::ALL.iter().all(|kind| target.on.contains(kind));
        let why = |failure: crate::alerts::FailureRecord| {
            (printable(&failure.why).into_owned(), visit.relative_time(failure.at))
        };
        Self {
            test_path: link::with_query("/alerts/test", &[("target", &target.name)]),
            name: printable(&target.name).into_owned(),
            to: printable(&target.to).into_owned(),
            kinds: if are_all { "everything".to_owned() } else { kinds.join(", ") },
            is_failing: target.failures > 0,
            last_success: target.last_success.map(|at| visit.relative_time(at)),
            last_failure: target.last_failure.map(why),
            failures: target.failures,
            waiting: target.waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_that_did_not_arrive_is_no_success() {
        let arrived = json!({ "target": "pager", "ok": true, "answer": "204" });
        let failed = json!({ "target": "chat", "ok": false, "answer": "no answer in time" });
        let notice = describe_results(&[arrived.clone(), failed]);
        assert!(notice.is_refusal, "{notice:?}");
        assert_eq!(notice.findings, ["pager: arrived (204)", "chat: did not arrive (no answer in time)"]);
        assert!(!describe_results(&[arrived]).is_refusal);
    }
}
