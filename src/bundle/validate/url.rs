//! URLs as people write them: what is odd about the text before any parser sees it, and the URLs of
//! a backend.

use url::Url;

use super::backend_address::check_address;
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::LoadContext;
use crate::bundle::document::FoundValue;
use crate::bundle::placeholder::{QUOTED, has_angle_brackets, is_copy_artifact, is_quoted};
use crate::spec::{HostMatch, UrlTemplate};

/// The limit on a URL in the file, in bytes. Filled with callers' values it may be twice as long.
const MAX_URL_BYTES: usize = 4_096;

/// The code of a finding about a URL, and what is wrong with it.
type UrlError = (&'static str, String);

/// Returns a URL of the backend if it is valid. Marks are allowed only after the host.
pub(super) fn validate_url(
    validation: &mut Validation<'_, '_>,
    found: &FoundValue<'_>,
    name: &str,
) -> Option<String> {
    let text = found.text()?;
    let (code, what) = match check_url(text, validation.context) {
        Ok(()) => return Some(text.to_owned()),
        Err(error) => error,
    };
    let help = match code {
        "backend-forbidden" => "use the portal's own address; --backend-allow allows loopback networks",
        "backend-unlisted" => {
            "if you want to use it, add this host to the setting backend_only \
                               (--backend-only)"
        }
        "url-placeholder" => "replace it with the portal's host name",
        _ => "write it like https://portal.example.com/nlp-search",
    };
    validation
        .add_finding(Diagnostic::error(code, format!("{name} {what}")).help(help), Some(found.location()));
    None
}

fn check_url(text: &str, context: &LoadContext) -> Result<(), UrlError> {
    let bad = |what: &str| Err(("bad-url", what.to_owned()));
    if has_angle_brackets(text) || text.contains("${") {
        return Err(("url-placeholder", "still contains a placeholder".to_owned()));
    }
    if let Some(what) = find_url_oddity(text, text.contains("{{")) {
        return bad(what);
    }
    let template =
        UrlTemplate::parse(text).map_err(|error| ("bad-url", format!("is not a valid template: {error}")))?;
    let head = template.head();
    let has_marks = template.marks().next().is_some();
    let after_scheme = head.split_once("://").map_or("", |(_, rest)| rest);
    if has_marks && !after_scheme.contains(['/', '?']) {
        return bad("has a mark in its host; marks are allowed in the path and query");
    }
    if !has_authority(head) {
        return bad("must begin with https:// or http://");
    }
    let Ok(url) = Url::parse(head) else { return bad("is not an absolute URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return bad("must not contain a user or password");
    }
    if text.len() > MAX_URL_BYTES {
        return bad("is longer than 4,096 characters");
    }
    if text.contains('#') {
        return bad("must not have a fragment");
    }
    check_address(&url, context).map_err(|error| ("backend-forbidden", error.to_string()))?;
    match url.host_str() {
        Some(host) if context.backend_only.match_host(host) == HostMatch::Unlisted => {
            Err(("backend-unlisted", format!("points to {host}, where the settings allow no backend")))
        }
        _ => Ok(()),
    }
}

/// Describes characters that suggest that a URL is not the intended one. Parsers accept some of
/// them, clients and proxies may not.
pub(super) fn find_url_oddity(text: &str, has_marks: bool) -> Option<&'static str> {
    let is_never_in_urls = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    match text {
        _ if is_quoted(text) || text.starts_with('"') => Some(QUOTED),
        _ if text.contains(|c: char| !c.is_ascii() && is_copy_artifact(c)) => {
            Some("has a quote or an invisible character from copying; type it again")
        }
        _ if text.contains(is_never_in_urls) && !has_marks => {
            Some("has a character that is not allowed in a URL")
        }
        _ => None,
    }
}

/// Whether a URL has a host after `//`. The `url` crate also accepts `https:///host`.
pub(super) fn has_authority(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}
