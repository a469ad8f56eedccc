//! The live probe of `check --live`: calls a tenant's backend once and reports what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use url::Url;

use super::{BackendClient, BackendState, CallContext, Error, Pool};
use crate::base::diagnostic::Diagnostic;
use crate::base::dns::{DnsResolver, LookupError};
use crate::base::json::{JsonKind, JsonNode};
use crate::spec::{TemplateValues, TenantSpec, ToolKind, UrlTemplate};

/// A question that any dataset can answer cheaply.
const QUESTION: &str = "How many rows are there?";

/// Fetches the context and asks each search tool one harmless question, each within `timeout`.
///
/// Returns one finding per call: a notice that describes the response, or an error that says what
/// to do. Neither keys nor values of the data are shown.
pub async fn probe(pool: &Pool, spec: &TenantSpec, timeout: Duration) -> Vec<Diagnostic> {
    let state = Arc::new(BackendState::new());
    let client = BackendClient::new(pool.clone(), &spec.backend, &spec.limits, spec.cache.context_ttl, state);
    let call = || CallContext::internal(pool.clock().monotonic() + timeout);
    let mut findings = Vec::new();

    let started = pool.clock().monotonic();
    let context = client.context(&call()).await;
    let url = &spec.backend.context.url;
    let outcome = ProbeOutcome::new(
        pool,
        "context",
        url,
        started,
        context.as_deref().map(|context| describe_shape(context.document().root())),
    );
    findings.push(outcome.finding("live-context").await);

    for tool in spec.tools.iter().filter(|tool| tool.kind == ToolKind::Search) {
        let started = pool.clock().monotonic();
        let answer = client.call(&tool.call, &sample_arguments(), &call()).await;
        let answer = answer.as_ref().map(|answer| describe_shape(answer.document.root()));
        let outcome = ProbeOutcome::new(pool, &tool.name, &tool.call.url, started, answer);
        findings.push(outcome.finding("live-search").await);
    }
    findings
}

fn sample_arguments() -> TemplateValues {
    TemplateValues::from_iter([("query".to_owned(), json!(QUESTION)), ("limit".to_owned(), json!(1))])
}

/// The outcome of one call.
struct ProbeOutcome<'a> {
    pool: &'a Pool,
    subject: &'a str,
    url: Option<Url>,
    elapsed: Duration,
    /// The shape of the response.
    answer: Result<String, Error>,
}

impl<'a> ProbeOutcome<'a> {
    fn new(
        pool: &'a Pool,
        subject: &'a str,
        url: &UrlTemplate,
        started: Instant,
        answer: Result<String, &Error>,
    ) -> Self {
        let elapsed = pool.clock().monotonic().saturating_duration_since(started);
        Self {
            pool,
            subject,
            url: Url::parse(url.head()).ok(),
            elapsed,
            answer: answer.map_err(Clone::clone),
        }
    }

    async fn finding(&self, code: &'static str) -> Diagnostic {
        let (subject, after) = (self.subject, format!("after {} ms", self.elapsed.as_millis()));
        let origin = self.url.as_ref().map_or("the backend".to_owned(), origin);
        let origin = match self.proxy() {
            Some(proxy) => format!("{origin} through the proxy {proxy}"),
            None => origin,
        };
        match &self.answer {
            Ok(shape) => {
                Diagnostic::notice(code, format!("{subject}: {origin} answered {after} with {shape}"))
            }
            Err(error) => {
                let (message, help) = self.explain(error).await;
                Diagnostic::error(code, format!("{subject}: {message} ({origin}, {after})")).help(help)
            }
        }
    }

    /// Returns a sentence and advice, with more detail on an unreachable backend than callers are
    /// given.
    async fn explain(&self, error: &Error) -> (String, String) {
        let plain = || (error.to_string(), operator_advice(error).to_owned());
        let (Error::Unreachable, None, Some(url)) = (error, self.proxy(), &self.url) else { return plain() };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return plain() };
        match DnsResolver::global().lookup(strip_brackets(host)).await {
            Err(LookupError::TimedOut) => (
                format!("the DNS lookup of {host} took too long"),
                "check this machine's name servers (/etc/resolv.conf)".to_owned(),
            ),
            Err(LookupError::Failed(_)) => (
                format!("DNS has no address for {host}"),
                "check the spelling of the host in the tenant's URL, and this machine's name servers \
                 (/etc/resolv.conf); if connections need a proxy, set HTTPS_PROXY"
                    .to_owned(),
            ),
            Ok(addresses) => {
                let target =
                    addresses.first().map_or(host.to_owned(), |&ip| SocketAddr::new(ip, port).to_string());
                let secured = if url.scheme() == "https" { " and secured with TLS" } else { "" };
                (
                    format!("no connection to {target} can be opened{secured}"),
                    "check that the service runs, the host and port of the tenant's URL, and firewalls on \
                     the way; if connections need a proxy, set HTTPS_PROXY"
                        .to_owned(),
                )
            }
        }
    }

    fn proxy(&self) -> Option<String> {
        self.pool.proxy_for(self.url.as_ref()?)
    }
}

/// Returns what an operator can do. [`Error::advice`] also speaks to people who ask questions, and
/// a probe has no question.
fn operator_advice(error: &Error) -> &'static str {
    match error {
        Error::TimedOut => {
            "check the service's load and log; if it needs longer, give `check --live` a longer --timeout, \
             and the tenant a longer `deadline:`"
        }
        Error::Refused { status: 404 | 405, .. } => {
            "check the path of the tenant's search_url and context_url: the service has nothing there"
        }
        Error::Refused { status: 400 | 422, .. } => {
            "check the tenant's connection_id (export the dataset again), and that its URLs are of the same \
             family as its database (nlp, cassandra, dynamodb)"
        }
        Error::Refused { .. } => "check the tenant's URLs and its connection_id, and the service's log",
        Error::Failed { .. } | Error::BrokenOff => "check the service's log at this moment",
        other => other.advice(),
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Removes the brackets of an IPv6 address, which the resolver does not accept.
fn strip_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Describes the shape of a response, without its data.
fn describe_shape(value: JsonNode<'_>) -> String {
    const MAX_NAMES: usize = 12;
    const MAX_NAME_CHARS: usize = 64;
    match value.kind() {
        JsonKind::Object => {
            let names = value.members().take(MAX_NAMES).map(|(name, _)| name.prefix(MAX_NAME_CHARS).0);
            let names: Vec<_> = names.collect();
            let more = if value.members().nth(MAX_NAMES).is_some() { ", …" } else { "" };
            format!(
                "a JSON object of {}{more}",
                if names.is_empty() { "nothing".into() } else { names.join(", ") }
            )
        }
        JsonKind::Array => format!("a JSON array of {} items", value.items().count()),
        _ => "a single JSON value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::base::json::JsonDocument;

    #[test]
    fn a_shape_names_members_and_no_values() {
        let shape_of = |value: Value| super::describe_shape(JsonDocument::from_value(&value).root());
        assert_eq!(shape_of(json!({"rows": [1], "secret": "canary"})), "a JSON object of rows, secret");
        assert_eq!(shape_of(json!([1, 2])), "a JSON array of 2 items");
        assert_eq!(shape_of(json!("canary")), "a single JSON value");
        let many: Value =
            (0..20).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
        assert!(shape_of(many).ends_with("k11, …"));
    }
}
