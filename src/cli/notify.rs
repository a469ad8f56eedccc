//! `tenantd notify`: shows who is told of trouble, and sends test events.

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::admin_client::encode_segment;
use super::admin_request::{print_answer, send};
use super::args::{NotifyAction, NotifyArgs};
use super::{Exit, output};

pub(super) fn run(args: &NotifyArgs) -> anyhow::Result<Exit> {
    match &args.action {
        NotifyAction::Show { query } => {
            let answer = send(&query.admin, Method::GET, "/api/notify", Bytes::new())?;
            print_answer(answer, |status| output::rendered(query.format, status, show))
        }
        NotifyAction::Test { target, query } => {
            let path = match target {
                Some(target) => format!("/-/notify/test?target={}", encode_segment(target)),
                None => "/-/notify/test".to_owned(),
            };
            let answer = send(&query.admin, Method::POST, &path, Bytes::new())?;
            let all_arrived = answer.as_ref().is_ok_and(|answer| results(answer).all(has_arrived));
            let exit = print_answer(answer, |tested| output::rendered(query.format, tested, table))?;
            Ok(if all_arrived { exit } else { Exit::Findings })
        }
    }
}

fn results(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["results"].as_array().into_iter().flatten()
}

fn has_arrived(result: &Value) -> bool {
    result["ok"] == true
}

fn table(answer: &Value) -> String {
    let row = |result: &Value| {
        let outcome = if has_arrived(result) { "arrived" } else { "failed" };
        vec![text(&result["target"]), outcome.to_owned(), text(&result["answer"])]
    };
    let rows: Vec<_> = results(answer).map(row).collect();
    output::table(&["TARGET", "TEST", "ANSWER"], &rows)
}

fn to_the_second(time: &Value) -> String {
    let time = time.as_str().and_then(|time| time.parse::<Timestamp>().ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn show(status: &Value) -> String {
    let target = |target: &Value| {
        let failing = match target["failures"].as_u64() {
            None | Some(0) => "ok".to_owned(),
            Some(failures) => format!("{failures} failures: {}", text(&target["last_failure"]["why"])),
        };
        let waiting = target["waiting"].as_u64().unwrap_or_default().to_string();
        vec![
            text(&target["name"]),
            text(&target["to"]),
            to_the_second(&target["last_success"]),
            waiting,
            failing,
        ]
    };
    let targets: Vec<_> = status["targets"].as_array().into_iter().flatten().map(target).collect();
    let condition = |condition: &Value| vec![text(&condition["kind"]), text(&condition["summary"])];
    let conditions: Vec<_> = status["conditions"].as_array().into_iter().flatten().map(condition).collect();
    let targets = match targets.is_empty() {
        true => "Nobody is told: the setting notify names no target.\n".to_owned(),
        false => output::table(&["TARGET", "TO", "LAST SUCCESS", "WAITING", "STATE"], &targets),
    };
    let conditions = match conditions.is_empty() {
        true => "Nothing is wrong.\n".to_owned(),
        false => output::table(&["KIND", "NOW"], &conditions),
    };
    format!("{targets}\n{conditions}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_and_conditions_are_tables() {
        let status = json!({
            "targets": [
                { "name": "pager", "to": "/usr/local/bin/page", "last_success": "2026-11-26T08:00:00.738229258Z", "failures": 0, "waiting": 0 },
                { "name": "chat", "to": "https://chat.example.com", "failures": 3, "waiting": 2,
                  "last_failure": { "why": "it answered 500 Internal Server Error" } },
            ],
            "conditions": [{ "kind": "tenant-degraded", "summary": "tenant acme is degraded: down" }],
        });
        insta::assert_snapshot!(show(&status), @r"
        TARGET  TO                        LAST SUCCESS          WAITING  STATE
        pager   /usr/local/bin/page       2026-11-26T08:00:00Z  0        ok
        chat    https://chat.example.com  -                     2        3 failures: it answered 500 Internal Server Error

        KIND             NOW
        tenant-degraded  tenant acme is degraded: down
        ");
        let nothing = show(&json!({ "targets": [], "conditions": [] }));
        assert!(nothing.contains("Nobody is told") && nothing.contains("Nothing is wrong"), "{nothing}");
    }

    #[test]
    fn a_test_shows_what_each_target_answered() {
        let answer = json!({ "results": [
            { "target": "pager", "ok": true, "answer": "exit status: 0" },
            { "target": "chat", "ok": false, "answer": "it did not answer in time" },
        ]});
        insta::assert_snapshot!(table(&answer), @r"
        TARGET  TEST     ANSWER
        pager   arrived  exit status: 0
        chat    failed   it did not answer in time
        ");
    }
}
