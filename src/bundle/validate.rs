//! Layers → [`TenantSpec`]: validates every value, reports every finding, guesses nothing.

mod access;
mod address;
mod backend;
mod call;
mod credential;
mod keys;
mod login;
mod machines;
mod place;
mod registration;
mod rules;
mod texts;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::document::{Layers, Origin};
use super::fields;
use super::gather::Gathered;
use super::namesake::Namesake;
use super::reference::Resolver;
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Digest;
use crate::spec::{AccessSpec, CacheSpec, LimitsSpec, TenantName, TenantSpec};

const DEADLINE: Duration = Duration::from_secs(300);

/// The inputs that all validators share.
struct Case<'a, 'b> {
    layers: &'a Layers,
    context: &'a Context,
    dataset: &'a str,
    namesakes: &'a [Namesake],
    resolver: &'a mut Resolver<'b>,
    report: &'a mut Report,
}

impl Case<'_, '_> {
    /// Adds a finding at a place, or at the tenant as a whole.
    fn find(&mut self, diagnostic: Diagnostic, at: Option<Location>) {
        self.report.push(match at.or_else(|| self.layers.whole()) {
            Some(location) => diagnostic.at(location),
            None => diagnostic,
        });
    }
}

/// What became of a tenant's values. Whether it may be used is for the report to say.
#[derive(Default)]
pub(super) struct Verdict {
    /// Over what decides who may call, if that is certain.
    pub(super) access: Option<Digest>,
    /// It asks its callers for nothing.
    pub(super) is_open: bool,
    /// The tenant, unless something essential is missing.
    pub(super) spec: Option<TenantSpec>,
}

/// Judges all values.
pub(super) fn tenant(
    gathered: &Gathered,
    name: Option<&TenantName>,
    namesakes: &[Namesake],
    resolver: &mut Resolver<'_>,
    report: &mut Report,
) -> Verdict {
    let layers = &gathered.layers;
    let dataset = gathered.dataset.as_deref().or_else(|| layers.text(&["dataset"]));
    let dataset = dataset.or(name.map(TenantName::as_str)).unwrap_or("dataset");
    let context = resolver.context;
    let mut case = Case { layers, context, dataset, namesakes, resolver, report };

    notices(&mut case);
    let (access, digest) = access::judge(&mut case);
    let is_open = access.is_open();
    Verdict { access: digest, is_open, spec: spec(&mut case, name, access) }
}

fn spec(case: &mut Case<'_, '_>, name: Option<&TenantName>, access: AccessSpec) -> Option<TenantSpec> {
    let (layers, dataset) = (case.layers, case.dataset);
    let place = place::judge(case, name);
    let backend = backend::judge(case);
    let (place, backend, name) = (place?, backend?, name?.clone());
    let title = title(layers, dataset);
    let tools = tools::judge(case, &title, &backend);
    let limits = limits(case);
    texts::judge(case);
    texts::list(case, &tools, limits.max_result_bytes);
    Some(TenantSpec {
        name,
        dataset: dataset.into(),
        title,
        description: shared(layers, "description"),
        instructions: shared(layers, "instructions"),
        enabled: layers.flag(&["enabled"]).unwrap_or(true),
        public_url: place.public_url,
        mounts: place.mounts,
        shares_hosts: layers.flag(&["share_host"]).unwrap_or(false),
        tools: tools.into(),
        backend: backend.spec,
        access,
        limits,
        cache: cache(layers),
        deadline: span(layers, &["deadline"]).unwrap_or(DEADLINE),
    })
}

fn title(layers: &Layers, dataset: &str) -> Arc<str> {
    let title = layers.text(&["display_name"]).unwrap_or(dataset);
    title.chars().filter(|c| !c.is_control()).take(texts::MAX_TITLE).collect::<String>().into()
}

fn shared(layers: &Layers, name: &str) -> Option<Arc<str>> {
    layers.text(&[name]).map(Arc::from)
}

/// Reports fields that are ignored, since an operator may wonder about them.
fn notices(case: &mut Case<'_, '_>) {
    let port = case.layers.find(&["port"]).or_else(|| case.layers.find(&["mcp_port"]));
    if let Some(found) = port {
        let name = if found.document.source.origin == Origin::Env { "MCP_PORT" } else { "port" };
        case.find(
            Diagnostic::notice(
                "port-ignored",
                format!("{name} is ignored: all tenants share the gateway's port"),
            )
            .help("nothing to do; the tenant answers at its own path"),
            Some(found.at()),
        );
    }
}

fn span(layers: &Layers, path: &[&str]) -> Option<Duration> {
    layers.text(path).and_then(fields::duration)
}

fn limits(case: &mut Case<'_, '_>) -> LimitsSpec {
    let (layers, default) = (case.layers, LimitsSpec::default());
    let size = |name| {
        layers.text(&["limits", name]).and_then(fields::size).and_then(|size| usize::try_from(size).ok())
    };
    let number = |name| layers.text(&["limits", name]).and_then(|text| text.parse().ok());
    let limits = LimitsSpec {
        concurrent_calls: number("concurrent_calls")
            .map_or(default.concurrent_calls, |number| number as usize),
        requests_per_minute: number("requests_per_minute").or(default.requests_per_minute),
        max_request_bytes: size("max_request").unwrap_or(default.max_request_bytes),
        max_response_bytes: size("max_response").unwrap_or(default.max_response_bytes),
        max_result_bytes: size("max_result").unwrap_or(default.max_result_bytes),
    };
    warn_of_requests_without_room(case, limits.max_request_bytes);
    limits
}

/// Warns if requests of the permitted size never fit into memory: callers would be told to try
/// again forever.
fn warn_of_requests_without_room(case: &mut Case<'_, '_>, max_request: usize) {
    let largest = case.context.largest_request;
    if max_request <= largest {
        return;
    }
    let found = format!(
        "requests may have {max_request} bytes, but the gateway never has room for one of more than {largest}: such are refused with 503"
    );
    let help = "lower max_request, or raise limits.request_memory_mib of the gateway; it must be more than ten times as much";
    let place = case.layers.find(&["limits", "max_request"]).map(|found| found.at());
    case.find(Diagnostic::warning("request-room", found).help(help), place);
}

fn cache(layers: &Layers) -> CacheSpec {
    let default = CacheSpec::default();
    CacheSpec {
        context_ttl: span(layers, &["cache", "context_ttl"]).unwrap_or(default.context_ttl),
        list_ttl: span(layers, &["cache", "list_ttl"]).unwrap_or(default.list_ttl),
    }
}
