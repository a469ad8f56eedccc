//! `tenantd audit`: prints lines of the audit of a running gateway, and follows it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::admin_client::Error;
use super::admin_request::{Answer, client, print_answer};
use super::args::{AuditArgs, AuditFormat};
use super::{Exit, output};

/// How often a gateway is asked for new lines.
const PAUSE: Duration = Duration::from_secs(1);
/// How much older than one before it a line may be.
const LATENESS: SignedDuration = SignedDuration::from_secs(2);
/// The most lines that one answer has.
const MOST: usize = 1000;

/// Prints the lines that fit, oldest first.
pub(super) fn run(args: &AuditArgs) -> anyhow::Result<Exit> {
    let client = client(&args.admin)?;
    let ask = |more: &[(&str, String)]| client.send(Method::GET, &path(args, more), Bytes::new());
    let first = read(args.limit, &ask);
    if !args.follow || first.is_err() {
        return print_answer(first, |lines| format_lines(args.format, lines));
    }
    let mut printed = Printed::default();
    let mut answer = first;
    let mut is_away = false;
    loop {
        match answer {
            Ok(lines) => {
                output::print(&format_lines(args.format, &Value::Array(printed.take_new(&lines))))?;
                if std::mem::take(&mut is_away) {
                    output::print_error("the gateway answers again");
                }
            }
            Err(error @ (Error::Unreachable(..) | Error::Timeout(_))) => {
                if !std::mem::replace(&mut is_away, true) {
                    output::print_error(format!("{error}; waiting for it"));
                }
            }
            Err(error) => return print_answer(Err(error), |_| String::new()),
        }
        std::thread::sleep(PAUSE);
        let since = printed.since().map(|at| ("since", at));
        let more: Vec<_> = since.into_iter().collect();
        answer = read_with(usize::MAX, &more, &ask);
    }
}

/// Asks the gateway for one page, with these parameters besides the filters.
type AskPage<'a> = &'a dyn Fn(&[(&str, String)]) -> Answer;

/// Reads up to `limit` lines, page by page. Returns them oldest first.
fn read(limit: usize, ask: AskPage<'_>) -> Answer {
    read_with(limit, &[], ask)
}

fn read_with(limit: usize, more: &[(&str, String)], ask: AskPage<'_>) -> Answer {
    let mut lines = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let mut parameters = more.to_vec();
        parameters.push(("limit", limit.saturating_sub(lines.len()).clamp(1, MOST).to_string()));
        parameters.extend(before.map(|before| ("before", before)));
        let page = ask(&parameters)?;
        lines.extend(page["lines"].as_array().into_iter().flatten().cloned());
        before = page["next"].as_str().map(str::to_owned);
        if before.is_none() || lines.len() >= limit {
            lines.reverse();
            return Ok(Value::Array(lines));
        }
    }
}

/// What was printed of the last moments. Lines of one moment are written one after the other, and
/// not quite in the order of their times.
#[derive(Default)]
struct Printed {
    last: Option<Timestamp>,
    recent: BTreeMap<String, Timestamp>,
}

impl Printed {
    /// Returns the lines that were not printed yet.
    fn take_new(&mut self, lines: &Value) -> Vec<Value> {
        let mut new = Vec::new();
        for line in lines.as_array().into_iter().flatten() {
            let at = line["at"].as_str().and_then(|at| at.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
            if self.recent.insert(line.to_string(), at).is_none() {
                self.last = self.last.max(Some(at));
                new.push(line.clone());
            }
        }
        if let Some(oldest) = self.last.and_then(|last| last.checked_sub(2 * LATENESS).ok()) {
            self.recent.retain(|_, at| *at >= oldest);
        }
        new
    }

    /// Returns from when on lines may not be printed yet.
    fn since(&self) -> Option<String> {
        self.last.and_then(|last| last.checked_sub(LATENESS).ok()).map(|at| at.to_string())
    }
}

fn path(args: &AuditArgs, more: &[(&str, String)]) -> String {
    let given = [
        ("tenant", &args.tenant),
        ("person", &args.person),
        ("client", &args.client),
        ("tool", &args.tool),
        ("outcome", &args.outcome),
        ("event", &args.event),
        ("since", &args.since),
        ("until", &args.until),
    ];
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in given {
        if let Some(value) = value.as_ref().filter(|_| more.iter().all(|(other, _)| *other != name)) {
            query.append_pair(name, value);
        }
    }
    query.extend_pairs(more);
    format!("/api/audit?{}", query.finish())
}

fn format_lines(format: AuditFormat, lines: &Value) -> String {
    let lines = lines.as_array().into_iter().flatten();
    match format {
        AuditFormat::Json => lines.map(|line| format!("{line}\n")).collect(),
        AuditFormat::Text => lines.map(text).collect(),
    }
}

/// Writes a line for people: time, tenant, event, what, outcome, who, from where, how long.
fn text(line: &Value) -> String {
    let first = |names: &[&str]| names.iter().find_map(|name| line[*name].as_str()).unwrap_or("-");
    let number = |name: &str, unit: &str| line[name].as_u64().map(|number| format!("  {number} {unit}"));
    let uid = line["uid"].as_u64().map(|uid| format!("uid {uid}"));
    let who = match first(&["user", "label", "operator", "oid"]) {
        "-" => uid.as_deref().unwrap_or("-"),
        known => known,
    };
    let what = first(&["tool", "resource", "order", "grant_type", "sink"]);
    let counted =
        line["left_out"].as_u64().map(|lines| format!("  {lines} lines since {}", first(&["since"])));
    let plain = format!(
        "{:<27} {:<16} {:<10} {:<16} {:<16} {:<24} {}{}{}",
        first(&["at"]),
        first(&["tenant", "certificate"]),
        first(&["event"]),
        what,
        first(&["outcome"]),
        who,
        first(&["client_addr"]),
        number("elapsed_ms", "ms").unwrap_or_default(),
        counted.unwrap_or_default()
    );
    // What people and clients are called begins no line and moves no cursor.
    let safe: String =
        plain.trim_end().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    safe + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_one_moment_are_printed_once_each() {
        let line =
            |second: u32, id: &str| json!({ "at": format!("2026-11-25T09:00:{second:02}.000Z"), "id": id });
        let mut printed = Printed::default();
        let first = json!([line(1, "a"), line(2, "b")]);
        assert_eq!(printed.take_new(&first).len(), 2);
        let second = json!([line(2, "b"), line(2, "c"), line(1, "late"), line(3, "d")]);
        assert_eq!(printed.take_new(&second), [line(2, "c"), line(1, "late"), line(3, "d")]);
        assert_eq!(printed.take_new(&json!([line(3, "d")])), [] as [Value; 0]);
        assert_eq!(printed.since().as_deref(), Some("2026-11-25T09:00:01Z"));
        assert_eq!(printed.take_new(&json!([line(30, "e")])).len(), 1);
        assert_eq!(printed.recent.len(), 1, "what is long over is forgotten");
    }

    #[test]
    fn pages_are_put_together_oldest_first() {
        let ask = |parameters: &[(&str, String)]| {
            let second = parameters.iter().any(|(name, value)| *name == "before" && value == "1-5");
            Ok(if second {
                json!({ "lines": [1], "next": null })
            } else {
                json!({ "lines": [3, 2], "next": "1-5" })
            })
        };
        assert_eq!(read(100, &ask).expect("an answer"), json!([1, 2, 3]));
        assert_eq!(read(2, &ask).expect("an answer"), json!([2, 3]));
    }

    #[test]
    fn a_line_for_people_cannot_move_their_terminal() {
        let line = json!({ "at": "2026-11-25T09:00:00Z", "event": "call", "tenant": "acme", "user": "a\u{1b}[2J\nb",
                           "outcome": "ok", "tool": "search", "elapsed_ms": 12, "client_addr": "192.0.2.1" });
        let text = text(&line);
        assert!(text.ends_with("192.0.2.1  12 ms\n") && text.contains("search"), "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    }
}
