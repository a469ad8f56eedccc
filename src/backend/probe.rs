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

/// Fetches the context and asks each search tool one harmless question, each within `patience`.
///
/// Returns one finding per call: a notice that describes the response, or an error that says what
/// to do. Neither keys nor values of the data are shown.
pub async fn probe(pool: &Pool, spec: &TenantSpec, patience: Duration) -> Vec<Diagnostic> {
    let lasting = Arc::new(BackendState::new());
    let client =
        BackendClient::new(pool.clone(), &spec.backend, &spec.limits, spec.cache.context_ttl, lasting);
    let call = || CallContext::internal(pool.clock().monotonic() + patience);
    let mut findings = Vec::new();

    let started = pool.clock().monotonic();
    let context = client.context(&call()).await;
    let url = &spec.backend.context.url;
    let seen = ProbeOutcome::new(
        pool,
        "context",
        url,
        started,
        context.as_deref().map(|context| keys(context.document().root())),
    );
    findings.push(seen.finding("live-context").await);

    for tool in spec.tools.iter().filter(|tool| tool.kind == ToolKind::Search) {
        let started = pool.clock().monotonic();
        let answer = client.call(&tool.call, &question(), &call()).await;
        let answer = answer.as_ref().map(|answer| keys(answer.document.root()));
        let seen = ProbeOutcome::new(pool, &tool.name, &tool.call.url, started, answer);
        findings.push(seen.finding("live-search").await);
    }
    findings
}

fn question() -> TemplateValues {
    TemplateValues::from_iter([("query".to_owned(), json!(QUESTION)), ("limit".to_owned(), json!(1))])
}

/// The outcome of one call.
struct ProbeOutcome<'a> {
    pool: &'a Pool,
    what: &'a str,
    url: Option<Url>,
    elapsed: Duration,
    /// The shape of the response.
    answer: Result<String, Error>,
}

impl<'a> ProbeOutcome<'a> {
    fn new(
        pool: &'a Pool,
        what: &'a str,
        url: &UrlTemplate,
        started: Instant,
        answer: Result<String, &Error>,
    ) -> Self {
        let elapsed = pool.clock().monotonic().saturating_duration_since(started);
        Self { pool, what, url: Url::parse(url.head()).ok(), elapsed, answer: answer.map_err(Clone::clone) }
    }

    async fn finding(&self, code: &'static str) -> Diagnostic {
        let (what, after) = (self.what, format!("after {} ms", self.elapsed.as_millis()));
        let origin = self.url.as_ref().map_or("the backend".to_owned(), origin);
        let origin = match self.proxy() {
            Some(proxy) => format!("{origin} through the proxy {proxy}"),
            None => origin,
        };
        match &self.answer {
            Ok(keys) => Diagnostic::notice(code, format!("{what}: {origin} answered {after} with {keys}")),
            Err(error) => {
                let (message, help) = self.explain(error).await;
                Diagnostic::error(code, format!("{what}: {message} ({origin}, {after})")).help(help)
            }
        }
    }

    /// Returns a sentence and advice, with more detail on an unreachable backend than callers are
    /// given.
    async fn explain(&self, error: &Error) -> (String, String) {
        let plain = || (error.to_string(), error.advice().to_owned());
        let (Error::Unreachable, None, Some(url)) = (error, self.proxy(), &self.url) else { return plain() };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return plain() };
        match DnsResolver::global().lookup(unbracketed(host)).await {
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
                let at =
                    addresses.first().map_or(host.to_owned(), |&ip| SocketAddr::new(ip, port).to_string());
                let secured = if url.scheme() == "https" { " and secured with TLS" } else { "" };
                (
                    format!("no connection to {at} can be opened{secured}"),
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

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Removes the brackets of an IPv6 address, which the resolver does not accept.
fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Describes the shape of a response, without its data.
fn keys(value: JsonNode<'_>) -> String {
    const SHOWN: usize = 12;
    const LONGEST: usize = 64;
    match value.kind() {
        JsonKind::Object => {
            let names = value.members().take(SHOWN).map(|(name, _)| name.prefix(LONGEST).0);
            let names: Vec<_> = names.collect();
            let more = if value.members().nth(SHOWN).is_some() { ", …" } else { "" };
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
        let keys = |value: Value| super::keys(JsonDocument::from_value(&value).root());
        assert_eq!(keys(json!({"rows": [1], "secret": "canary"})), "a JSON object of rows, secret");
        assert_eq!(keys(json!([1, 2])), "a JSON array of 2 items");
        assert_eq!(keys(json!("canary")), "a single JSON value");
        let many: Value =
            (0..20).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
        assert!(keys(many).ends_with("k11, …"));
    }
}
