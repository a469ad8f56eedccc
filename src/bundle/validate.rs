//! Layers → [`TenantSpec`]: validates every value, reports every finding, guesses nothing.

mod access;
mod access_rules;
mod api_keys;
mod backend;
mod backend_address;
mod backend_call;
mod credential;
mod entra;
mod fingerprint;
mod guid;
mod headers;
mod login;
mod machine_clients;
mod moment;
mod mounts;
mod parameters;
mod presentation;
mod registration;
mod text_limits;
mod tools;
mod url;
mod usage_limits;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use self::validation::Validation;
use super::fields;
use super::layers::{GatheredLayers, Layers};
use super::load_state::LoadState;
use super::lookalike::Lookalike;
use super::source_text::DocumentOrigin;
use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::digest::Digest;
use crate::spec::{AccessSpec, CacheSpec, HoldChanges, LimitsSpec, TenantName, TenantSpec, ToolSpec};

const DEADLINE: Duration = Duration::from_secs(300);

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
pub(super) fn validate_tenant(
    gathered: &GatheredLayers,
    name: Option<&TenantName>,
    namesakes: &[Lookalike],
    state: &mut LoadState<'_>,
    report: &mut Report,
) -> Verdict {
    let layers = &gathered.layers;
    let dataset = gathered.dataset.as_deref().or_else(|| layers.find_text(&["dataset"]));
    let dataset = dataset.or(name.map(TenantName::as_str)).unwrap_or("dataset");
    let context = state.context;
    let mut validation = Validation { layers, context, dataset, lookalikes: namesakes, state, report };

    report_ignored_port(&mut validation);
    let (access, digest) = access::validate(&mut validation);
    let is_open = access.is_open();
    Verdict { access: digest, is_open, spec: validate_spec(&mut validation, name, access) }
}

fn validate_spec(
    validation: &mut Validation<'_, '_>,
    name: Option<&TenantName>,
    access: AccessSpec,
) -> Option<TenantSpec> {
    let (layers, dataset) = (validation.layers, validation.dataset);
    let tenant_mounts = mounts::validate(validation, name);
    let backend = backend::validate(validation);
    let (tenant_mounts, backend, name) = (tenant_mounts?, backend?, name?.clone());
    let title = read_title(layers, dataset);
    let tools = tools::validate(validation, &title, &backend);
    let limits = validate_limits(validation, &tools);
    let presentation = presentation::validate(validation);
    text_limits::check_texts(validation);
    text_limits::check_tool_list(validation, &tools, limits.max_result_bytes);
    Some(TenantSpec {
        name,
        dataset: dataset.into(),
        title,
        description: read_shared_text(layers, "description"),
        instructions: read_shared_text(layers, "instructions"),
        enabled: layers.find_bool(&["enabled"]).unwrap_or(true),
        public_url: tenant_mounts.public_url,
        mounts: tenant_mounts.mounts,
        shares_hosts: layers.find_bool(&["share_host"]).unwrap_or(false),
        tools: tools.into(),
        backend: backend.spec,
        access,
        limits,
        usage_file: layers.find_bool(&["usage_file"]).unwrap_or(false),
        cache: read_cache(layers),
        call_timeout: read_duration(layers, &["deadline"]).unwrap_or(DEADLINE),
        slow_answers: presentation.slow_answers,
        sample_questions: presentation.sample_questions,
        icon_url: presentation.icon_url,
        hold_changes: validate_hold(validation),
    })
}

/// Returns which changes wait for approval. An unknown word warns and counts as the strictest.
fn validate_hold(validation: &mut Validation<'_, '_>) -> HoldChanges {
    let default = validation.context.hold_changes;
    let Some(found) = validation.layers.find(&["hold_changes"]) else { return default };
    let (text, at) = (found.text().unwrap_or_default().to_owned(), found.location());
    HoldChanges::parse(&text).unwrap_or_else(|| {
        let finding = Diagnostic::warning("bad-hold-changes", "hold_changes must be tools or off");
        validation
            .add_finding(finding.help("write `hold_changes: tools`; until then changes wait"), Some(at));
        HoldChanges::Tools
    })
}

fn read_title(layers: &Layers, dataset: &str) -> Arc<str> {
    let title = layers.find_text(&["display_name"]).unwrap_or(dataset);
    title.chars().filter(|c| !c.is_control()).take(text_limits::MAX_TITLE).collect::<String>().into()
}

fn read_shared_text(layers: &Layers, name: &str) -> Option<Arc<str>> {
    layers.find_text(&[name]).map(Arc::from)
}

/// Reports fields that are ignored, since an operator may wonder about them.
fn report_ignored_port(validation: &mut Validation<'_, '_>) {
    let port = validation.layers.find(&["port"]).or_else(|| validation.layers.find(&["mcp_port"]));
    if let Some(found) = port {
        let name = if found.document.source.origin == DocumentOrigin::Env { "MCP_PORT" } else { "port" };
        let (why, help) = match validation.context.has_single_tenant() {
            true => ("the command decides about the port", "give it as --port or as the variable MCP_PORT"),
            false => (
                "tenants share the gateway's port, unless their files say `listen`",
                "nothing to do; the tenant answers at its own path. To keep a port, write `listen` into your own .yaml",
            ),
        };
        validation.add_finding(
            Diagnostic::notice("port-ignored", format!("{name} is ignored: {why}")).help(help),
            Some(found.location()),
        );
    }
}

fn read_duration(layers: &Layers, path: &[&str]) -> Option<Duration> {
    layers.find_text(path).and_then(fields::parse_duration)
}

fn validate_limits(validation: &mut Validation<'_, '_>, tools: &[ToolSpec]) -> LimitsSpec {
    let (layers, default) = (validation.layers, LimitsSpec::default());
    let size = |name| {
        layers
            .find_text(&["limits", name])
            .and_then(fields::parse_size)
            .and_then(|size| usize::try_from(size).ok())
    };
    let number = |name| layers.find_text(&["limits", name]).and_then(|text| text.parse().ok());
    let limits = LimitsSpec {
        concurrent_calls: number("concurrent_calls")
            .map_or(default.concurrent_calls, |number| number as usize),
        requests_per_minute: number("requests_per_minute").or(default.requests_per_minute),
        max_request_bytes: size("max_request").unwrap_or(default.max_request_bytes),
        max_response_bytes: size("max_response").unwrap_or(default.max_response_bytes),
        max_result_bytes: size("max_result").unwrap_or(default.max_result_bytes),
        usage: usage_limits::validate(validation, tools),
    };
    warn_of_unservable_requests(validation, limits.max_request_bytes);
    limits
}

/// Warns if requests of the permitted size never fit into memory: callers would be told to try
/// again forever.
fn warn_of_unservable_requests(validation: &mut Validation<'_, '_>, max_request: usize) {
    let largest = validation.context.largest_request;
    if max_request <= largest {
        return;
    }
    let found = format!(
        "max_request is {max_request} bytes, but the gateway has no memory for a request of more than \
         {largest} bytes and refuses it with 503"
    );
    let help = "lower max_request, or raise limits.request_memory_mib of the gateway to more than ten times \
                max_request";
    let location = validation.locate(&["limits", "max_request"]);
    validation.add_finding(Diagnostic::warning("request-room", found).help(help), location);
}

fn read_cache(layers: &Layers) -> CacheSpec {
    let default = CacheSpec::default();
    CacheSpec {
        context_ttl: read_duration(layers, &["cache", "context_ttl"]).unwrap_or(default.context_ttl),
        list_ttl: read_duration(layers, &["cache", "list_ttl"]).unwrap_or(default.list_ttl),
    }
}
