//! The tenant's API: the vendor's two URLs, the key, and the operator's changes to the calls.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::Validation;
use super::backend_address;
use super::backend_call::{self, SharedCallParts};
use super::mounts::has_authority;
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::secret::Secret;
use crate::bundle::contract;
use crate::bundle::document::{DocumentOrigin, FoundValue};
use crate::bundle::excerpt::is_name;
use crate::bundle::fields;
use crate::bundle::placeholder::{
    QUOTED, has_angle_brackets, is_copy_artifact, is_placeholder, is_quoted, is_unfinished,
};
use crate::bundle::reach;
use crate::bundle::secret_refs::ResolvedSecret;
use crate::spec::{BackendSpec, CallSpec, Constants, Family, Standing, UrlTemplate};

/// The limit on a URL in the file, in characters. Filled with callers' values it may be twice as
/// long.
const LONGEST_URL: usize = 4_096;

/// The API, and the call of the search tool.
pub(super) struct ValidatedBackend {
    pub(super) spec: BackendSpec,
    pub(super) search: Arc<CallSpec>,
}

/// Validates everything about the API.
pub(super) fn validate(case: &mut Validation<'_, '_>) -> Option<ValidatedBackend> {
    missing(case);
    let key = api_key(case);
    let search_url = endpoint(case, "search_url");
    let context_url = endpoint(case, "context_url");
    let family = family(case, search_url.as_ref(), context_url.as_ref());
    let connection_id = connection_id(case);
    let user_header = header_name(case, "user_header");
    let http2 = http2(case, search_url.as_deref(), context_url.as_deref());
    let auth = auth_header(case, key.as_ref());
    let connection_id: Option<Arc<str>> = connection_id.map(Arc::from);
    let reaches = reach::of(case.layers, key.as_ref().map(|key| &key.secret));
    let constants = Constants { dataset: Some(case.dataset.into()), connection_id: connection_id.clone() };
    let headers = backend_call::named_headers(case, &["backend", "headers"], 0).unwrap_or_default();
    let shared = SharedCallParts { auth, headers, constants };
    let search = backend_call::search(case, search_url.as_deref(), &shared);
    let context = backend_call::context(case, context_url.as_deref(), &shared);
    let (mut search, context) = (search?, context?);
    // Equal headers share one copy.
    if search.headers == context.headers {
        search.headers = Arc::clone(&context.headers);
    }
    let spec = BackendSpec { family, connection_id, context: Arc::new(context), user_header, http2, reaches };
    Some(ValidatedBackend { spec, search: Arc::new(search) })
}

fn is_given(case: &Validation<'_, '_>, name: &str) -> bool {
    case.layers.find(&[name]).is_some()
}

/// Reports all missing fields in one finding, except a missing `context_url` that means that the
/// export is too old.
fn missing(case: &mut Validation<'_, '_>) {
    let search_url = case.layers.find(&["search_url"]);
    let from_export = search_url.is_some_and(|found| found.document.source.origin != DocumentOrigin::Env);
    let untrained = from_export && !is_given(case, "context_url");
    let key = is_given(case, "api_key") || is_given(case, "api_key_file");
    let missing: Vec<&str> = [
        ("SEARCH_URL", search_url.is_some()),
        ("CONTEXT_URL", is_given(case, "context_url") || untrained),
        ("API_KEY", key),
    ]
    .iter()
    .filter_map(|(name, given)| (!given).then_some(*name))
    .collect();
    if untrained {
        case.add_finding(
            Diagnostic::error(
                "no-context-url",
                "there is no context_url: this export was made before the dataset could speak MCP",
            )
            .help("retrain the connection in the portal and export a new mcp_export.zip"),
            None,
        );
    }
    if !missing.is_empty() {
        let fields: Vec<String> = missing.iter().map(|name| name.to_ascii_lowercase()).collect();
        case.add_finding(
            Diagnostic::error("missing-fields", format!("Missing required env vars {}", missing.join(", ")))
                .help(format!(
                    "give {} in the .yaml, or the variables in the .env{}",
                    fields.join(", "),
                    slips(case, &fields)
                )),
            None,
        );
    }
}

/// Names in the files that were perhaps meant for what is missing.
fn slips(case: &Validation<'_, '_>, missing: &[String]) -> String {
    let names = case.layers.0.iter().flat_map(|document| document.root.pairs()).map(|(key, _)| &*key.text);
    let slip = |name: &str| {
        let meant = fields::nearest(fields::TENANT, name)?.name;
        (meant != name && is_name(name) && missing.iter().any(|field| field == meant))
            .then(|| format!("; {name} looks like {meant} misspelt"))
    };
    names.filter_map(slip).collect()
}

/// The key of the highest layer that has one.
fn api_key(case: &mut Validation<'_, '_>) -> Option<ResolvedSecret> {
    let document = case.layers.find_secret("api_key")?.document;
    let resolved = case.resolver.resolve_member(document, &document.root, "api_key", case.report)?;
    if is_placeholder(resolved.secret.expose()) {
        case.add_finding(placeholder_key(resolved.origin, case.dataset), Some(resolved.at));
        return None;
    }
    if is_quoted(resolved.secret.expose()) {
        let quoted = Diagnostic::error("bad-header-value", format!("api_key {QUOTED}"));
        case.add_finding(quoted.help("the portal gives keys without quotes"), Some(resolved.at));
        return None;
    }
    Some(resolved)
}

fn placeholder_key(origin: DocumentOrigin, dataset: &str) -> Diagnostic {
    let dataset: String = dataset.chars().filter(|c| !c.is_control()).take(60).collect();
    match origin {
        DocumentOrigin::Env => Diagnostic::error("api-key-placeholder", "API_KEY looks like a placeholder"),
        _ => {
            Diagnostic::error("api-key-placeholder", format!("api_key for {dataset} is still a placeholder"))
        }
    }
    .help("put the dataset's API key from the portal in its place, or api_key: in the .yaml beside the zip")
}

/// Returns one of the vendor's URLs, if it is valid.
fn endpoint(case: &mut Validation<'_, '_>, name: &'static str) -> Option<String> {
    let found = case.layers.find(&[name])?;
    url(case, &found, name)
}

/// Validates a URL of the backend. Marks are allowed only after the host.
pub(super) fn url(case: &mut Validation<'_, '_>, found: &FoundValue<'_>, name: &str) -> Option<String> {
    let text = found.text()?;
    match check_url(text, case) {
        Ok(()) => Some(text.to_owned()),
        Err((code, what)) => {
            let help = match code {
                "backend-forbidden" => {
                    "name the portal's own address; --backend-allow opens loopback networks"
                }
                "backend-unlisted" => {
                    "if it is meant, add this host to the setting backend_only (--backend-only)"
                }
                "url-placeholder" => "put the portal's host name in its place",
                _ => "write it like https://portal.example.com/nlp-search",
            };
            case.add_finding(
                Diagnostic::error(code, format!("{name} {what}")).help(help),
                Some(found.location()),
            );
            None
        }
    }
}

type UrlError = (&'static str, String);

fn check_url(text: &str, case: &Validation<'_, '_>) -> Result<(), UrlError> {
    let bad = |what: &str| Err(("bad-url", what.to_owned()));
    if has_angle_brackets(text) || text.contains("${") {
        return Err(("url-placeholder", "still has a placeholder in it".to_owned()));
    }
    if let Some(what) = odd_in_url(text, text.contains("{{")) {
        return bad(what);
    }
    let template =
        UrlTemplate::parse(text).map_err(|fault| ("bad-url", format!("is no template: {fault}")))?;
    let head = template.head();
    let has_marks = template.marks().next().is_some();
    let after_scheme = head.split_once("://").map_or("", |(_, rest)| rest);
    if has_marks && !after_scheme.contains(['/', '?']) {
        return bad("has a mark in its host; marks are for the path and query");
    }
    if !has_authority(head) {
        return bad("must begin with https:// or http://");
    }
    let Ok(url) = Url::parse(head) else { return bad("is no absolute URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return bad("must not hold a user or password");
    }
    if text.len() > LONGEST_URL {
        return bad("is longer than 4,096 characters");
    }
    if text.contains('#') {
        return bad("must not have a fragment");
    }
    backend_address::check_address(&url, case.context)
        .map_err(|fault| ("backend-forbidden", fault.to_string()))?;
    match url.host_str() {
        Some(host) if case.context.backend_only.standing(host) == Standing::Unlisted => {
            Err(("backend-unlisted", format!("points at {host}, where the settings allow no backend")))
        }
        _ => Ok(()),
    }
}

/// Describes characters that suggest that a URL is not the intended one. Parsers accept some of
/// them, clients and proxies may not.
pub(super) fn odd_in_url(text: &str, has_marks: bool) -> Option<&'static str> {
    let no_urls = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    match text {
        _ if is_quoted(text) || text.starts_with('"') => Some(QUOTED),
        _ if text.contains(|c: char| !c.is_ascii() && is_copy_artifact(c)) => {
            Some("has a quote or an invisible character that came along when copying; type it anew")
        }
        _ if text.contains(no_urls) && !has_marks => Some("has a character that no URL has"),
        _ => None,
    }
}

fn family(case: &mut Validation<'_, '_>, search: Option<&String>, context: Option<&String>) -> Family {
    let family = |url: &String| {
        let path = url.split(['?', '{']).next().unwrap_or_default();
        contract::family(path)
    };
    let of_search = search.map_or(Family::Other, family);
    if let Some(of_context) =
        context.map(family).filter(|_| search.is_some()).filter(|family| *family != of_search)
    {
        let at = case.layers.find(&["context_url"]).map(|found| found.location());
        let shown = |family: Family| format!("{family:?}").to_ascii_lowercase();
        case.add_finding(
            Diagnostic::warning(
                "family-differs",
                format!(
                    "search_url is of the {} family, context_url of the {} family",
                    shown(of_search),
                    shown(of_context)
                ),
            )
            .help("check that both belong to the same dataset"),
            at,
        );
    }
    of_search
}

fn connection_id(case: &mut Validation<'_, '_>) -> Option<String> {
    let found = case.layers.find(&["connection_id"]);
    let id = found.and_then(|found| found.text()).map(str::to_owned);
    if let Some(what) = id.as_deref().and_then(odd_id) {
        let odd = Diagnostic::error("bad-connection-id", format!("connection_id {what}"));
        case.add_finding(odd.help("type it anew, or export again"), found.map(|found| found.location()));
    }
    if id.is_none() && is_given(case, "search_url") && is_given(case, "context_url") {
        case.add_finding(
            Diagnostic::warning("no-connection-id", "there is no connection_id; calls are made without it")
                .help("exports have it since datasets can speak MCP; export again if searches fail"),
            None,
        );
    }
    id
}

fn odd_id(id: &str) -> Option<&'static str> {
    match id {
        _ if id.contains(is_copy_artifact) => {
            Some("has a quote or an invisible character that came along when copying")
        }
        _ if is_quoted(id) => Some(QUOTED),
        _ if is_unfinished(id) => Some("is still a placeholder, or masked"),
        _ => None,
    }
}

/// Whether the tenant wants HTTP/2, which backends offer over TLS only.
fn http2(case: &mut Validation<'_, '_>, search: Option<&str>, context: Option<&str>) -> bool {
    let wanted = case.layers.find_bool(&["backend", "http2"]) == Some(true);
    let is_plain = [search, context].into_iter().flatten().any(|url| !url.starts_with("https:"));
    if wanted && is_plain {
        let at = case.layers.find(&["backend", "http2"]).map(|found| found.location());
        let ignored = Diagnostic::warning(
            "http2-needs-tls",
            "http2 is for https URLs; http URLs are asked in HTTP/1.1",
        );
        case.add_finding(ignored.help("write the URLs with https, or leave http2 out"), at);
    }
    wanted
}

/// Returns the header that carries the key.
fn auth_header(case: &mut Validation<'_, '_>, key: Option<&ResolvedSecret>) -> Option<(HeaderName, Secret)> {
    let custom = is_given_at(case, "auth_header");
    let name = header_name(case, "auth_header");
    let name = match (custom, name) {
        (true, name) => name?,
        (false, _) => HeaderName::from_bytes(contract::AUTH_HEADER.as_bytes()).ok()?,
    };
    let key = key?;
    let scheme = case.layers.find(&["backend", "auth_scheme"]);
    if let Some(found) = scheme.filter(|found| !found.text().is_some_and(is_header_value)) {
        refuse_header_value(case, "auth_scheme", &found.location());
        return None;
    }
    let scheme = scheme.and_then(|found| found.text()).map(|scheme| format!("{scheme} "));
    let value = format!("{}{}", scheme.unwrap_or_default(), key.secret.expose());
    if !is_header_value(&value) {
        refuse_header_value(case, "api_key", &key.at);
        return None;
    }
    Some((name, Secret::new(value)))
}

fn is_given_at(case: &Validation<'_, '_>, name: &str) -> bool {
    case.layers.find(&["backend", name]).is_some()
}

fn header_name(case: &mut Validation<'_, '_>, field: &str) -> Option<HeaderName> {
    let found = case.layers.find(&["backend", field])?;
    parse_header_name(case, found.text()?, &found.location())
}

/// Parses a header name that a configuration may set: not one that frames the message or that the
/// gateway sets itself.
pub(super) fn parse_header_name(
    case: &mut Validation<'_, '_>,
    text: &str,
    at: &Location,
) -> Option<HeaderName> {
    const OURS: &[&str] = &[
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "user-agent",
        "accept-encoding",
        "traceparent",
        "tracestate",
        "x-request-id",
    ];
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let refused = match &name {
        None => "this is no name of a header",
        Some(name) if OURS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") => {
            "this header is the gateway's to set"
        }
        Some(_) => return name,
    };
    case.add_finding(Diagnostic::error("bad-header", refused).help("use another header"), Some(at.clone()));
    None
}

pub(super) fn is_header_value(value: &str) -> bool {
    value.len() <= 8_192 && value.is_ascii() && HeaderValue::from_str(value).is_ok()
}

pub(super) fn refuse_header_value(case: &mut Validation<'_, '_>, what: &str, at: &Location) {
    case.add_finding(
        Diagnostic::error("bad-header-value", format!("{what} has characters that no header can carry"))
            .help("look for a line break, a quote or a letter outside ASCII that came along when copying"),
        Some(at.clone()),
    );
}
