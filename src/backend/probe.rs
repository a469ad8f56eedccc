//! `check --live`: tries a tenant's backend once and says what it saw.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Client, Error, Lasting, Pool};
use crate::base::diagnostic::Diagnostic;
use crate::spec::{TenantSpec, ToolKind, Values};

const PATIENCE: Duration = Duration::from_secs(30);
/// A question that any dataset can answer cheaply.
const QUESTION: &str = "How many rows are there?";

/// Fetches the context and asks one harmless question. One finding for each: a notice with what came back, or an error
/// with what to do. Keys are never shown, nor values of the data.
pub async fn probe(pool: &Pool, spec: &TenantSpec) -> Vec<Diagnostic> {
    let lasting = Arc::new(Lasting::new());
    let client = Client::new(pool.clone(), &spec.backend, &spec.limits, spec.cache.context_ttl, lasting);
    let mut findings = Vec::new();

    let started = pool.clock().monotonic();
    let context = client.context(&call(pool)).await;
    let elapsed = pool.clock().monotonic() - started;
    let seen = context.as_deref().map(keys).map_err(Clone::clone);
    findings.push(finding(("live-context", "context"), origin(&spec.backend.context.url), seen, elapsed));

    for tool in spec.tools.iter().filter(|tool| tool.kind == ToolKind::Search) {
        let started = pool.clock().monotonic();
        let answer = client.call(&tool.call, &question(), &call(pool)).await;
        let elapsed = pool.clock().monotonic() - started;
        let seen = answer.as_ref().map(|answer| keys(&answer.value)).map_err(Clone::clone);
        findings.push(finding(("live-search", &tool.name), origin(&tool.call.url), seen, elapsed));
    }
    findings
}

fn call(pool: &Pool) -> Call {
    Call::of_our_own(pool.clock().monotonic() + PATIENCE)
}

fn question() -> Values {
    Values::from_iter([("query".to_owned(), json!(QUESTION)), ("limit".to_owned(), json!(1))])
}

fn finding(
    (code, what): (&'static str, &str),
    origin: String,
    seen: Result<String, Error>,
    elapsed: Duration,
) -> Diagnostic {
    let after = format!("after {} ms", elapsed.as_millis());
    match seen {
        Ok(keys) => Diagnostic::notice(code, format!("{what}: {origin} answered {after} with {keys}")),
        Err(error) => {
            let detail = match &error {
                Error::Refused { detail: Some(detail), .. } => format!(": {detail}"),
                _ => String::new(),
            };
            Diagnostic::error(code, format!("{what}: {error}{detail} ({origin}, {after})"))
                .help(error.advice())
        }
    }
}

/// The shape of an answer, without its data.
fn keys(value: &Value) -> String {
    const SHOWN: usize = 12;
    match value {
        Value::Object(members) => {
            let names: Vec<_> = members.keys().take(SHOWN).map(String::as_str).collect();
            let more = if members.len() > SHOWN { ", …" } else { "" };
            format!(
                "a JSON object of {}{more}",
                if names.is_empty() { "nothing".into() } else { names.join(", ") }
            )
        }
        Value::Array(items) => format!("a JSON array of {} items", items.len()),
        _ => "a single JSON value".to_owned(),
    }
}

fn origin(template: &crate::spec::UrlTemplate) -> String {
    match url::Url::parse(template.head()) {
        Ok(url) => url.origin().ascii_serialization(),
        Err(_) => "the backend".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_names_members_and_no_values() {
        assert_eq!(keys(&json!({"rows": [1], "secret": "canary"})), "a JSON object of rows, secret");
        assert_eq!(keys(&json!([1, 2])), "a JSON array of 2 items");
        assert_eq!(keys(&json!("canary")), "a single JSON value");
        let many: Value =
            (0..20).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
        assert!(keys(&many).ends_with("k11, …"));
    }
}
