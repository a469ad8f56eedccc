//! The actions of the pages' forms. Each has the API do what the command line has it do, and then
//! leads back to a page that says what came of it.

use futures_util::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use super::link;
use super::notices::Notice;
use crate::admin::Admin;
use crate::admin::call::Call;
use crate::admin::response::OrderStatus;
use crate::base::body::{self, Body};
use crate::telemetry::printable::printable;

/// A handler of the API.
pub(super) type Order = for<'a> fn(Call<'a>) -> BoxFuture<'a, Response<Body>>;

/// Has a handler of the API do it, and leads back to the page at `path`. `done` says what that page
/// says of success.
pub(super) async fn perform(
    call: Call<'_>,
    order: Order,
    path: &str,
    done: impl FnOnce(&Value) -> String,
) -> Response<Body> {
    let admin = call.admin;
    let response = order(call).await;
    let extensions = response.extensions().clone();
    let (status, answer) = read_answer(response).await;
    let done = if status.is_success() { done(&answer) } else { String::new() };
    let mut response = lead_to(admin, path, status, make_notice(status, &answer, &done));
    // The handler may have left what the audit says.
    response.extensions_mut().extend(extensions);
    response.extensions_mut().insert(OrderStatus(status));
    response
}

/// Leads to a page that shows a notice.
pub(super) fn lead_to(admin: &Admin, path: &str, status: StatusCode, notice: Notice) -> Response<Body> {
    let id = admin.console.notices.add(notice);
    let mut response = body::empty_response(StatusCode::SEE_OTHER);
    let location = link::with_query(path, &[("notice", &id)]);
    let location = HeaderValue::try_from(location).expect("links are encoded");
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(OrderStatus(status));
    response
}

/// Returns the status of the API's answer and its JSON.
pub(super) async fn read_answer(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let Ok(collected) = response.into_body().collect().await;
    (status, serde_json::from_slice(&collected.to_bytes()).unwrap_or_default())
}

/// Makes a notice of the API's answer: the refusal with its reason and findings, or success.
pub(super) fn make_notice(status: StatusCode, answer: &Value, done: &str) -> Notice {
    if status.is_success() {
        let kept = match answer["kept"] == Value::Bool(false) {
            true => " It is in force, but could not be written to the store: a restart forgets it.",
            false => "",
        };
        return Notice { is_refusal: false, text: format!("{done}{kept}"), findings: Vec::new() };
    }
    let detail = answer["detail"].as_str().unwrap_or("the gateway refused it");
    let findings = answer["findings"].as_array().map(|all| all.iter().map(describe_finding).collect());
    Notice {
        is_refusal: true,
        text: format!("Refused: {}.", printable(detail)),
        findings: findings.unwrap_or_default(),
    }
}

fn describe_finding(finding: &Value) -> String {
    let text = |value: &Value| printable(value.as_str().unwrap_or_default()).into_owned();
    let mut line = text(&finding["severity"]);
    let place = &finding["location"];
    if place.is_object() {
        line += &format!(", {}", text(&place["file"]));
        for (sign, part) in [('!', "entry"), (':', "line"), (':', "column")] {
            match &place[part] {
                Value::String(name) => line += &format!("{sign}{}", printable(name)),
                Value::Number(number) => line += &format!("{sign}{number}"),
                _ => {}
            }
        }
    }
    line += &format!(": {}", text(&finding["message"]));
    if finding["help"].is_string() {
        line += &format!(" ({})", text(&finding["help"]));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_why_with_the_findings() {
        let answer = json!({ "detail": "the tenant would be refused", "findings": [{
            "code": "x", "severity": "error", "message": "no key", "help": "add one",
            "location": { "file": "a.zip", "entry": "config.yaml", "line": 3, "column": 7 } }] });
        let notice = make_notice(StatusCode::UNPROCESSABLE_ENTITY, &answer, "Done.");
        assert_eq!(notice.text, "Refused: the tenant would be refused.");
        assert_eq!(notice.findings, ["error, a.zip!config.yaml:3:7: no key (add one)"]);
        let done = make_notice(StatusCode::OK, &json!({ "kept": false }), "Paused.");
        assert!(!done.is_refusal && done.text.starts_with("Paused. It is in force, but"), "{done:?}");
    }
}
