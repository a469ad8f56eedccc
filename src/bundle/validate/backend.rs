//! The tenant's API: the vendor's two URLs, the key, and the operator's changes to the calls.

use std::sync::Arc;

use http::HeaderName;

use super::backend_call::{self, SharedCallParts};
use super::headers::{is_valid_header_value, parse_header_name, reject_header_value};
use super::url::validate_url;
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::base::secret::Secret;
use crate::bundle::contract::{self, EndpointKind};
use crate::bundle::data_fingerprints;
use crate::bundle::fields::{self, is_field_name};
use crate::bundle::placeholder::{QUOTED, is_copy_artifact, is_placeholder, is_quoted, is_unfinished};
use crate::bundle::secret_refs::ResolvedSecret;
use crate::bundle::source_text::DocumentOrigin;
use crate::spec::{BackendSpec, CallSpec, Constants, Family};

/// The API, and the call of the search tool.
pub(super) struct ValidatedBackend {
    pub(super) spec: BackendSpec,
    pub(super) search: Arc<CallSpec>,
}

/// Validates everything about the API.
pub(super) fn validate(validation: &mut Validation<'_, '_>) -> Option<ValidatedBackend> {
    report_missing_fields(validation);
    let key = validate_api_key(validation);
    let search_url = validate_endpoint(validation, "search_url");
    let context_url = validate_endpoint(validation, "context_url");
    let family = determine_family(validation, search_url.as_deref(), context_url.as_deref());
    let connection_id = validate_connection_id(validation);
    let user_header = validate_header_name(validation, "user_header");
    let http2 = wants_http2(validation, search_url.as_deref(), context_url.as_deref());
    let auth = build_auth_header(validation, key.as_ref());
    let connection_id: Option<Arc<str>> = connection_id.map(Arc::from);
    let data = data_fingerprints::compute(validation.layers, key.as_ref().map(|key| &key.secret));
    let constants =
        Constants { dataset: Some(validation.dataset.into()), connection_id: connection_id.clone() };
    let headers =
        backend_call::read_named_headers(validation, &["backend", "headers"], 0).unwrap_or_default();
    let shared = SharedCallParts { auth, headers, constants };
    let search = backend_call::validate_search(validation, search_url.as_deref(), &shared);
    let context = backend_call::validate_context(validation, context_url.as_deref(), &shared);
    let (mut search, context) = (search?, context?);
    // Equal headers share one copy.
    if search.headers == context.headers {
        search.headers = Arc::clone(&context.headers);
    }
    let spec = BackendSpec { family, connection_id, context: Arc::new(context), user_header, http2, data };
    Some(ValidatedBackend { spec, search: Arc::new(search) })
}

/// Reports all missing fields in one finding, except a missing `context_url` that means that the
/// export is too old.
fn report_missing_fields(validation: &mut Validation<'_, '_>) {
    let search_url = validation.layers.find(&["search_url"]);
    let is_variable = |origin| matches!(origin, DocumentOrigin::Env | DocumentOrigin::Given);
    let from_export = search_url.is_some_and(|found| !is_variable(found.document.source.origin));
    let untrained = from_export && !validation.is_given(&["context_url"]);
    let key = validation.is_given(&["api_key"]) || validation.is_given(&["api_key_file"]);
    let missing: Vec<&str> = [
        ("SEARCH_URL", search_url.is_some()),
        ("CONTEXT_URL", validation.is_given(&["context_url"]) || untrained),
        ("API_KEY", key),
    ]
    .iter()
    .filter_map(|(name, given)| (!given).then_some(*name))
    .collect();
    if untrained {
        validation.add_finding(
            Diagnostic::error(
                "no-context-url",
                "there is no context_url: this export was made before the dataset supported MCP",
            )
            .help("retrain the connection in the portal and export a new mcp_export.zip"),
            None,
        );
    }
    if !missing.is_empty() {
        let fields: Vec<String> = missing.iter().map(|name| name.to_ascii_lowercase()).collect();
        validation.add_finding(
            Diagnostic::error("missing-fields", format!("Missing required env vars {}", missing.join(", ")))
                .help(format!(
                    "write {} into the .yaml, or {}{}",
                    fields.join(", "),
                    match validation.context.has_single_tenant() {
                        true => "set the variables",
                        false => "the variables into the .env",
                    },
                    describe_misspellings(validation, &fields)
                )),
            None,
        );
    }
}

/// Describes the names in the files that were perhaps meant for what is missing.
fn describe_misspellings(validation: &Validation<'_, '_>, missing: &[String]) -> String {
    let names =
        validation.layers.0.iter().flat_map(|document| document.root.pairs()).map(|(key, _)| &*key.text);
    let misspelt = |name: &str| {
        let meant = fields::find_nearest(fields::TENANT, name)?.name;
        (meant != name && is_field_name(name) && missing.iter().any(|field| field == meant))
            .then(|| format!("; {name} may be a misspelling of {meant}"))
    };
    names.filter_map(misspelt).collect()
}

/// Returns the key of the highest layer that has one.
fn validate_api_key(validation: &mut Validation<'_, '_>) -> Option<ResolvedSecret> {
    let document = validation.layers.find_secret("api_key")?.document;
    let resolved = validation.resolve_member(document, &document.root, "api_key")?;
    if is_placeholder(resolved.secret.expose()) {
        validation.add_finding(placeholder_key_error(resolved.origin, validation.dataset), Some(resolved.at));
        return None;
    }
    if is_quoted(resolved.secret.expose()) {
        let quoted = Diagnostic::error("bad-header-value", format!("api_key {QUOTED}"));
        validation.add_finding(quoted.help("the portal shows keys without quotes"), Some(resolved.at));
        return None;
    }
    Some(resolved)
}

fn placeholder_key_error(origin: DocumentOrigin, dataset: &str) -> Diagnostic {
    let dataset: String = dataset.chars().filter(|c| !c.is_control()).take(60).collect();
    let message = match origin {
        DocumentOrigin::Env | DocumentOrigin::Given => "API_KEY looks like a placeholder".to_owned(),
        _ => format!("api_key for {dataset} is still a placeholder"),
    };
    let help = match origin {
        DocumentOrigin::Given => "set API_KEY to the dataset's API key from the portal",
        _ => {
            "replace it with the dataset's API key from the portal, or write api_key: into the .yaml beside \
             the zip"
        }
    };
    Diagnostic::error("api-key-placeholder", message).help(help)
}

/// Returns one of the vendor's URLs, if it is valid.
fn validate_endpoint(validation: &mut Validation<'_, '_>, name: &'static str) -> Option<String> {
    let found = validation.layers.find(&[name])?;
    validate_url(validation, &found, name)
}

fn determine_family(
    validation: &mut Validation<'_, '_>,
    search: Option<&str>,
    context: Option<&str>,
) -> Family {
    let of_search = search.map_or(Family::Other, |url| contract::family(path_of(url)));
    let (Some(search), Some(context)) = (search, context) else { return of_search };
    let of_context = contract::family(path_of(context));
    let fields =
        [("search_url", search, EndpointKind::Context), ("context_url", context, EndpointKind::Search)];
    let misplaced =
        fields.iter().find(|(_, url, other)| contract::endpoint_kind(path_of(url)) == Some(*other));
    let (field, finding) = if let Some((field, ..)) = misplaced {
        let what =
            "search_url and context_url look swapped: search_url ends in -search, context_url in -context";
        (field, Diagnostic::warning("urls-swapped", what).help("exchange the two"))
    } else if let Some((field, ..)) =
        fields.iter().find(|(_, url, _)| path_of(url).trim_matches('/').is_empty())
    {
        let what = format!("{field} has no path; the portal's ends in {}", contract::example_path(field));
        (field, Diagnostic::warning("url-without-path", what).help("copy the whole URL from the portal"))
    } else if of_search != of_context {
        let what =
            format!("search_url is {}, but context_url is {}", describe(of_search), describe(of_context));
        let finding = Diagnostic::warning("family-differs", what);
        (&"context_url", finding.help("check that both belong to the same dataset"))
    } else {
        return of_search;
    };
    let at = validation.locate(&[field]);
    validation.add_finding(finding, at);
    of_search
}

/// Returns the path of a URL, without its host, its query and its marks.
fn path_of(url: &str) -> &str {
    let url = url.split(['?', '{', '#']).next().unwrap_or_default();
    let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    after_scheme.find('/').map_or("", |at| &after_scheme[at..])
}

fn describe(family: Family) -> String {
    match family {
        Family::Other => "none of the vendor's endpoints (such as …/nlp-search and …/nlp-context)".to_owned(),
        family => format!("of the {} family", format!("{family:?}").to_ascii_lowercase()),
    }
}

fn validate_connection_id(validation: &mut Validation<'_, '_>) -> Option<String> {
    let found = validation.layers.find(&["connection_id"]);
    let id = found.and_then(|found| found.text()).map(str::to_owned);
    if let Some(what) = id.as_deref().and_then(find_id_oddity) {
        let odd = Diagnostic::error("bad-connection-id", format!("connection_id {what}"));
        validation
            .add_finding(odd.help("type it again, or export again"), found.map(|found| found.location()));
    }
    if id.is_none() && validation.is_given(&["search_url"]) && validation.is_given(&["context_url"]) {
        validation.add_finding(
            Diagnostic::warning(
                "no-connection-id",
                "there is no connection_id; the gateway calls the backend without one",
            )
            .help("current exports contain it; export again if searches fail"),
            None,
        );
    }
    id
}

fn find_id_oddity(id: &str) -> Option<&'static str> {
    match id {
        _ if id.contains(is_copy_artifact) => Some("has a quote or an invisible character from copying"),
        _ if is_quoted(id) => Some(QUOTED),
        _ if is_unfinished(id) => Some("is still a placeholder, or masked"),
        _ => None,
    }
}

/// Whether the tenant wants HTTP/2, which backends offer over TLS only.
fn wants_http2(validation: &mut Validation<'_, '_>, search: Option<&str>, context: Option<&str>) -> bool {
    let wanted = validation.layers.find_bool(&["backend", "http2"]) == Some(true);
    let is_plain = [search, context].into_iter().flatten().any(|url| !url.starts_with("https:"));
    if wanted && is_plain {
        let at = validation.locate(&["backend", "http2"]);
        let ignored = Diagnostic::warning(
            "http2-needs-tls",
            "http2 works with https URLs only; http URLs are called with HTTP/1.1",
        );
        validation.add_finding(ignored.help("write the URLs with https, or remove http2"), at);
    }
    wanted
}

/// Returns the header that carries the key.
fn build_auth_header(
    validation: &mut Validation<'_, '_>,
    key: Option<&ResolvedSecret>,
) -> Option<(HeaderName, Secret)> {
    let name = match validation.is_given(&["backend", "auth_header"]) {
        true => validate_header_name(validation, "auth_header")?,
        false => HeaderName::from_bytes(contract::AUTH_HEADER.as_bytes()).ok()?,
    };
    let key = key?;
    let scheme = validation.layers.find(&["backend", "auth_scheme"]);
    if let Some(found) = scheme.filter(|found| !found.text().is_some_and(is_valid_header_value)) {
        reject_header_value(validation, "auth_scheme", &found.location());
        return None;
    }
    let scheme = scheme.and_then(|found| found.text()).map(|scheme| format!("{scheme} "));
    let value = format!("{}{}", scheme.unwrap_or_default(), key.secret.expose());
    if !is_valid_header_value(&value) {
        reject_header_value(validation, "api_key", &key.at);
        return None;
    }
    Some((name, Secret::new(value)))
}

fn validate_header_name(validation: &mut Validation<'_, '_>, field: &str) -> Option<HeaderName> {
    let found = validation.layers.find(&["backend", field])?;
    parse_header_name(validation, found.text()?, &found.location())
}
