//! The two calls as data: the vendor's defaults (`contract`), changed by `backend`. Their texts
//! have marks (`{{query}}`), which the arguments of a call fill in.

use std::sync::Arc;

use super::headers::{is_valid_header_value, parse_header_name, reject_header_value};
use super::parameters::parameter_names;
use super::url::validate_url;
use super::validation::Validation;
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::secret::Secret;
use crate::bundle::contract;
use crate::bundle::document::FoundValue;
use crate::bundle::placeholder::{QUOTED, is_quoted, is_unfinished};
use crate::spec::{BodyTemplate, CallSpec, Constants, InvalidMarkValue, TemplateValues, UrlTemplate};
use http::{HeaderName, Method};

const MAX_HEADERS: usize = 32;
/// The limit on all headers of a call together, in bytes: servers accept heads of 16 to 32 KiB.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// The limit on a body's text, in bytes. As a tree it takes up to seventy times as much.
const MAX_BODY_BYTES: usize = 16 << 10;

/// The parts that both calls share.
pub(super) struct SharedCallParts {
    pub(super) auth: Option<(HeaderName, Secret)>,
    /// The operator's headers of both calls.
    pub(super) headers: Vec<(HeaderName, Secret)>,
    pub(super) constants: Constants,
}

/// The differences between the two calls.
struct CallKind<'a> {
    /// `search` or `context`, as under `backend`.
    name: &'static str,
    method: Method,
    arguments: Vec<&'a str>,
    /// The default URL of a GET, and the default body of a POST.
    default_get_url: fn(&str) -> String,
    default_post_body: String,
}

/// Returns the call of the search tool. `endpoint` is `search_url`.
pub(super) fn validate_search(
    validation: &mut Validation<'_, '_>,
    endpoint: Option<&str>,
    shared: &SharedCallParts,
) -> Option<CallSpec> {
    let parameters = parameter_names(validation.layers);
    let arguments = contract::SEARCH_ARGUMENTS.iter().copied().chain(parameters.iter().copied()).collect();
    let extra: Vec<&str> =
        parameters.into_iter().filter(|name| !contract::SEARCH_ARGUMENTS.contains(name)).collect();
    let body_of_post = contract::search_body(&extra);
    let kind = CallKind {
        name: "search",
        method: Method::POST,
        arguments,
        default_get_url: str::to_owned,
        default_post_body: body_of_post,
    };
    validate_call(validation, endpoint, shared, kind)
}

/// Returns the call that fetches the semantic context. `endpoint` is `context_url`.
pub(super) fn validate_context(
    validation: &mut Validation<'_, '_>,
    endpoint: Option<&str>,
    shared: &SharedCallParts,
) -> Option<CallSpec> {
    let kind = CallKind {
        name: "context",
        method: Method::GET,
        arguments: contract::CONTEXT_ARGUMENTS.to_vec(),
        default_get_url: contract::context_url,
        default_post_body: contract::context_body(),
    };
    validate_call(validation, endpoint, shared, kind)
}

fn validate_call(
    validation: &mut Validation<'_, '_>,
    endpoint: Option<&str>,
    shared: &SharedCallParts,
    kind: CallKind<'_>,
) -> Option<CallSpec> {
    let method = validate_method(validation, &kind);
    let url = validate_target(validation, endpoint, method.as_ref(), shared, &kind);
    let body = validate_body(validation, method.as_ref(), &kind);
    let headers = build_headers(validation, shared, kind.name);
    Some(CallSpec {
        method: method?,
        url: url?,
        headers: headers?,
        body: body?,
        constants: shared.constants.clone(),
    })
}

fn validate_method(validation: &mut Validation<'_, '_>, kind: &CallKind<'_>) -> Option<Method> {
    let path = ["backend", kind.name, "method"];
    let Some(found) = validation.layers.find(&path) else { return Some(kind.method.clone()) };
    match found.text()?.to_ascii_uppercase().as_str() {
        "GET" => Some(Method::GET),
        "POST" => Some(Method::POST),
        _ => {
            validation.add_finding(
                Diagnostic::error("bad-method", format!("backend.{}.method must be GET or POST", kind.name))
                    .help("tools only read from the backend"),
                Some(found.location()),
            );
            None
        }
    }
}

fn validate_target(
    validation: &mut Validation<'_, '_>,
    endpoint: Option<&str>,
    method: Option<&Method>,
    shared: &SharedCallParts,
    kind: &CallKind<'_>,
) -> Option<UrlTemplate> {
    let path = ["backend", kind.name, "url"];
    let endpoint_at = || validation.locate(&[&format!("{}_url", kind.name)]);
    let (text, at) = match validation.layers.find(&path) {
        Some(found) => (validate_url(validation, &found, &path.join("."))?, Some(found.location())),
        None if method == Some(&Method::GET) => ((kind.default_get_url)(endpoint?), endpoint_at()),
        None => (endpoint?.to_owned(), endpoint_at()),
    };
    let template = UrlTemplate::parse(&text).ok()?;
    let marks: Vec<&str> = template.marks().collect();
    let known = check_marks(validation, &marks, kind, at.clone());
    (known && check_path_values(validation, &template, shared, kind, at)).then_some(template.clone())
}

/// Whether every mark in the path that does not depend on the caller has a value that stays in its
/// segment; otherwise reports it.
fn check_path_values(
    validation: &mut Validation<'_, '_>,
    template: &UrlTemplate,
    shared: &SharedCallParts,
    kind: &CallKind<'_>,
    at: Option<Location>,
) -> bool {
    // The context is fetched once for all callers, and so without arguments.
    let fixed = |mark: &str| kind.name == "context" || Constants::NAMES.contains(&mark);
    let Err(unfit) = template.check_values(&shared.constants.apply_to(&TemplateValues::new()), fixed) else {
        return true;
    };
    let InvalidMarkValue { mark, why } = unfit;
    validation.add_finding(
        Diagnostic::error(
            "bad-path-value",
            format!("the URL of the {} call has {{{{{mark}}}}} in its path, and its value {why}", kind.name),
        )
        .help(match Constants::NAMES.contains(&mark.as_str()) {
            true => format!("correct {mark}, or use the mark in the query: ?{mark}={{{{{mark}}}}}"),
            false => {
                "the context is fetched without arguments: use the mark in the query, or remove it".to_owned()
            }
        }),
        at,
    );
    false
}

/// Returns the body: `None` if it is refused, `Some(None)` if the call has none.
fn validate_body(
    validation: &mut Validation<'_, '_>,
    method: Option<&Method>,
    kind: &CallKind<'_>,
) -> Option<Option<Arc<BodyTemplate>>> {
    let path = ["backend", kind.name, "body"];
    let found = validation.layers.find(&path);
    let text = match (found, method?) {
        (None, &Method::GET) => return Some(None),
        (None, _) => kind.default_post_body.as_str(),
        (Some(found), &Method::GET) => {
            validation.add_finding(
                Diagnostic::error(
                    "get-with-body",
                    format!("{} is set, but the call is a GET", path.join(".")),
                )
                .help("remove the body, or set the method to POST"),
                Some(found.location()),
            );
            return None;
        }
        (Some(found), _) => found.text()?,
    };
    let at = found.map(|found| found.location());
    if text.len() > MAX_BODY_BYTES {
        validation.add_finding(
            Diagnostic::error("body-too-long", format!("{} is longer than 16 KiB", path.join(".")))
                .help("the body of a search has a few lines: the question, the connection, some options"),
            at,
        );
        return None;
    }
    match contract::template(text) {
        Ok(template) => check_marks(validation, &template.marks(), kind, at).then_some(Some(template)),
        Err(error) => {
            validation.add_finding(
                Diagnostic::error("bad-body", format!("{} cannot be used: {error}", path.join(".")))
                    .help("write JSON with marks as values, such as {\"query\": {{query}}}"),
                at,
            );
            None
        }
    }
}

/// Whether every mark can be filled; otherwise reports those that cannot.
fn check_marks(
    validation: &mut Validation<'_, '_>,
    marks: &[&str],
    kind: &CallKind<'_>,
    at: Option<Location>,
) -> bool {
    let known: Vec<&str> = kind.arguments.iter().chain(contract::CONSTANT_MARKS).copied().collect();
    let unknown: Vec<&str> = marks.iter().copied().filter(|mark| !known.contains(mark)).collect();
    if unknown.is_empty() {
        return true;
    }
    validation.add_finding(
        Diagnostic::error(
            "unknown-mark",
            format!("the {} call has marks without a value: {}", kind.name, unknown.join(", ")),
        )
        .help(format!("these marks have values: {}; tools.search.parameters adds more", known.join(", "))),
        at,
    );
    false
}

/// Returns the key's header and the operator's; those of the call override those of both calls.
fn build_headers(
    validation: &mut Validation<'_, '_>,
    shared: &SharedCallParts,
    call: &str,
) -> Option<Arc<[(HeaderName, Secret)]>> {
    let mut headers = vec![shared.auth.clone()?];
    headers.extend(shared.headers.iter().cloned());
    for (name, value) in read_named_headers(validation, &["backend", call, "headers"], shared.headers.len())?
    {
        headers.retain(|(earlier, _)| *earlier != name);
        headers.push((name, value));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.expose().len()).sum();
    if bytes > MAX_HEADER_BYTES {
        let long =
            Diagnostic::error("too-many-headers", "the backend's headers together have more than 16 KiB");
        validation.add_finding(long.help("keep those that the portal needs"), None);
        return None;
    }
    Some(headers.into())
}

/// Returns the headers at a path; `None` if they and the `others` elsewhere are too many.
pub(super) fn read_named_headers(
    validation: &mut Validation<'_, '_>,
    path: &[&str],
    others: usize,
) -> Option<Vec<(HeaderName, Secret)>> {
    let named = validation.layers.find_named(path);
    if let Some((_, found)) = named.get(MAX_HEADERS.saturating_sub(others)) {
        let many = Diagnostic::error("too-many-headers", "the backend has more than 32 headers");
        validation.add_finding(many.help("keep those that the portal needs"), Some(found.location()));
        return None;
    }
    Some(named.into_iter().filter_map(|(name, found)| validate_header(validation, name, &found)).collect())
}

fn validate_header(
    validation: &mut Validation<'_, '_>,
    name: &str,
    found: &FoundValue<'_>,
) -> Option<(HeaderName, Secret)> {
    let at = found.location();
    let name = parse_header_name(validation, name, &at)?;
    let value = validation.resolve_value(found, name.as_str())?.secret;
    if !is_valid_header_value(value.expose()) {
        reject_header_value(validation, "a header's value", &at);
        return None;
    }
    if is_unfinished(value.expose()) {
        let what = format!("the value of the header {name} is still a placeholder, or masked");
        let unfinished = Diagnostic::error("bad-header-value", what);
        validation.add_finding(unfinished.help("replace it with the value itself"), Some(at));
        return None;
    }
    if is_quoted(value.expose()) {
        let quoted = Diagnostic::warning("header-quoted", format!("the value of the header {name} {QUOTED}"));
        validation.add_finding(quoted.help("keep them only if the portal expects them"), Some(at));
    }
    Some((name, value))
}
