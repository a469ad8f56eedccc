//! Where a tenant is reachable: its prefix, public URL and own hosts.

use std::path::Path;

use url::{Host, Url};

use super::Validation;
use super::backend::odd_in_url;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::document::{DocumentOrigin, FoundValue};
use crate::bundle::placeholder::has_angle_brackets;
use crate::bundle::yaml::YamlValue;
use crate::spec::{HostName, Mount, Prefix, PrefixError, PublicUrl, TenantName};

const MAX_HOSTS: usize = 32;

/// Where a tenant is reachable.
pub(super) struct ValidatedMounts {
    pub(super) public_url: PublicUrl,
    pub(super) mounts: Vec<Mount>,
}

/// The parsed `public_url`.
struct ParsedPublicUrl<'a> {
    found: FoundValue<'a>,
    origin: String,
    host: HostName,
    prefix: Option<Prefix>,
}

/// Validates `path_prefix`, `public_url` and `hosts`.
pub(super) fn validate(case: &mut Validation<'_, '_>, name: Option<&TenantName>) -> Option<ValidatedMounts> {
    let written = case.layers.find(&["path_prefix"]).map(|found| (found, path_prefix(case, &found)));
    let told = case.layers.find(&["public_url"]).map(|found| public_url(case, found));
    let hosts = hosts(case);
    // A refused `public_url` leaves the tenant without a place.
    let told = match told {
        Some(told) => Some(told?),
        None => None,
    };
    let prefix = match (written, &told) {
        (Some((found, prefix)), _) => check_prefixes_agree(case, &found, prefix?, told.as_ref()),
        (None, Some(told)) => told.prefix.clone()?,
        (None, None) => Prefix::parse(&format!("/{}", name?)).ok()?,
    };
    let own_host = told.as_ref().map(|told| told.host.clone()).filter(|host| !is_gateways(case, host));
    if let (Some(told), Some(_)) = (&told, &own_host) {
        reject_host_from_export(case, told, &prefix, name);
    }
    let origin = told.as_ref().map_or(case.context.public_base.as_str(), |told| &told.origin);
    if told.is_none() {
        insecure_base(case);
    }
    let public_url = PublicUrl::new(origin, &prefix);
    Some(ValidatedMounts { public_url, mounts: mounts(own_host, hosts, &prefix) })
}

fn mounts(own_host: Option<HostName>, hosts: Vec<HostName>, prefix: &Prefix) -> Vec<Mount> {
    let mut mounts = vec![Mount { host: own_host, prefix: prefix.clone() }];
    for host in hosts {
        let mount = Mount { host: Some(host), prefix: prefix.clone() };
        if !mounts.contains(&mount) {
            mounts.push(mount);
        }
    }
    mounts
}

/// Refuses a host of its own that only an export claims: if vendors' files could set it, one could
/// answer for others' names.
fn reject_host_from_export(
    case: &mut Validation<'_, '_>,
    told: &ParsedPublicUrl<'_>,
    prefix: &Prefix,
    name: Option<&TenantName>,
) {
    if told.found.document.source.origin != DocumentOrigin::Export || case.context.zip_hosts_allowed {
        return;
    }
    let (file, base) = (own_file(case, &told.found), &case.context.public_base);
    // The root of a host of its own corresponds to `/<name>` on the gateway, not to its root.
    let usual = name.and_then(|name| Prefix::parse(&format!("/{name}")).ok()).filter(|_| prefix.is_root());
    let instead = PublicUrl::new(base, usual.as_ref().unwrap_or(prefix));
    let meant = PublicUrl::new(&told.origin, prefix);
    let help = format!(
        "if it is meant, write \"public_url: {meant}\" into {file}; else write \"public_url: {instead}\" there. `zip_hosts: allow` \
         in the gateway's settings believes all exports"
    );
    let message = format!(
        "the export says that it is at {}, which is not the gateway's; a host of its own comes from your files only",
        told.host
    );
    case.add_finding(Diagnostic::error("export-host", message).help(help), Some(told.found.location()));
}

/// Returns the file in which an operator sets what an export may not.
fn own_file(case: &Validation<'_, '_>, found: &FoundValue<'_>) -> String {
    let overlay =
        case.layers.0.iter().map(|document| &document.source).find(|it| it.origin == DocumentOrigin::Overlay);
    let name = |file: &Path| file.file_name().map(|name| name.to_string_lossy().into_owned());
    let beside = || match case.resolver.confinement.has_folder() {
        true => None,
        false => name(&found.document.source.file.with_extension("yaml")),
    };
    overlay
        .and_then(|source| name(&source.file))
        .or_else(beside)
        .unwrap_or_else(|| "a .yaml in its folder".to_owned())
}

fn is_gateways(case: &Validation<'_, '_>, host: &HostName) -> bool {
    let base = Url::parse(&case.context.public_base).ok();
    let base = base.as_ref().and_then(Url::host_str).and_then(HostName::parse);
    base.as_ref() == Some(host) || case.context.hosts.may_be_gateway(host)
}

fn path_prefix(case: &mut Validation<'_, '_>, found: &FoundValue<'_>) -> Option<Prefix> {
    prefix(case, found, "path_prefix", found.text()?)
}

/// Parses a prefix; drops a trailing slash with a warning.
fn prefix(case: &mut Validation<'_, '_>, found: &FoundValue<'_>, field: &str, text: &str) -> Option<Prefix> {
    let without = text.strip_suffix('/').filter(|_| text != "/");
    if without.is_some() {
        case.add_finding(
            Diagnostic::warning("trailing-slash", format!("{field} ends with a slash; it is dropped"))
                .help("write it without the slash"),
            Some(found.location()),
        );
    }
    let text = match without {
        Some("") => "/",
        Some(text) => text,
        None => text,
    };
    let prefix = Prefix::parse(text)
        .map_err(|fault| case.add_finding(bad_prefix(field, fault), Some(found.location())))
        .ok()?;
    if prefix.segments().last() == Some("mcp") {
        case.add_finding(
            Diagnostic::warning(
                "mcp-twice",
                format!("{field} ends in /mcp, so the connector URL ends in /mcp/mcp"),
            )
            .help("leave /mcp out here: it is added to the base that is written"),
            Some(found.location()),
        );
    }
    Some(prefix)
}

fn bad_prefix(field: &str, fault: PrefixError) -> Diagnostic {
    Diagnostic::error("bad-prefix", format!("{field} is no path that a tenant can have: {fault}"))
        .help("write it like /tenant-a, or / for the root")
}

fn check_prefixes_agree(
    case: &mut Validation<'_, '_>,
    found: &FoundValue<'_>,
    prefix: Prefix,
    told: Option<&ParsedPublicUrl<'_>>,
) -> Prefix {
    let other = told.and_then(|told| told.prefix.as_ref());
    if let Some(other) = other.filter(|other| **other != prefix) {
        case.add_finding(
            Diagnostic::error(
                "prefix-differs",
                format!("path_prefix is {prefix}, but the path of public_url is {other}"),
            )
            .help("make them equal, or remove one of them"),
            Some(found.location()),
        );
    }
    prefix
}

fn public_url<'a>(case: &mut Validation<'_, '_>, found: FoundValue<'a>) -> Option<ParsedPublicUrl<'a>> {
    let text = found.text()?;
    let url = match parse(text) {
        Ok(url) => url,
        Err(what) => {
            case.add_finding(
                Diagnostic::error("bad-public-url", format!("public_url {what}"))
                    .help("write it like https://mcp.example.com/tenant-a"),
                Some(found.location()),
            );
            return None;
        }
    };
    let host = url.host_str().and_then(HostName::parse)?;
    let scheme_and_host = text.find("://").map(|at| &text[at + 3..]).unwrap_or_default();
    let path = scheme_and_host.find('/').map_or("/", |at| &scheme_and_host[at..]);
    if path == "/" && scheme_and_host.ends_with('/') {
        case.add_finding(
            Diagnostic::warning("trailing-slash", "public_url ends with a slash; it is dropped")
                .help("write it without the slash"),
            Some(found.location()),
        );
    }
    insecure(case, &found, &url);
    let prefix = prefix(case, &found, "the path of public_url", path)?;
    Some(ParsedPublicUrl { found, origin: origin(&url, &host), host, prefix: Some(prefix) })
}

/// Returns the origin of a URL, with its host in normalized form.
fn origin(url: &Url, host: &HostName) -> String {
    let mut url = url.clone();
    url.set_host(Some(host.as_str())).expect("a host name is a URL's host");
    url.origin().ascii_serialization()
}

fn parse(text: &str) -> Result<Url, &'static str> {
    if has_angle_brackets(text) || text.contains("${") || text.contains("{{") {
        return Err("still has a placeholder in it");
    }
    if let Some(what) = odd_in_url(text, false) {
        return Err(what);
    }
    let url = Url::parse(text).map_err(|_| "is no absolute URL")?;
    if !matches!(url.scheme(), "http" | "https") || !has_authority(text) {
        return Err("must begin with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or fragment");
    }
    match url.host_str().and_then(HostName::parse) {
        Some(_) => Ok(url),
        None => Err("has no usable host"),
    }
}

/// Whether a URL has a host after `//`. The `url` crate also accepts `https:///host`.
pub(super) fn has_authority(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// Refuses plain HTTP for a tenant with a login, and warns if it has keys: codes, tokens and keys
/// travel over this URL.
fn insecure(case: &mut Validation<'_, '_>, found: &FoundValue<'_>, url: &Url) {
    let login = super::login::is_login_enabled(case);
    if url.scheme() == "https" || is_loopback(url) {
        return;
    }
    if login {
        case.add_finding(
            Diagnostic::error("insecure-public-url", "public_url is http, but the tenant has a login")
                .help("use https; http is for loopback addresses only"),
            Some(found.location()),
        );
    } else if case.layers.find(&["api_keys"]).is_some() {
        case.add_finding(
            Diagnostic::warning(
                "insecure-public-url",
                "public_url is http: callers' keys travel unprotected",
            )
            .help("use https"),
            Some(found.location()),
        );
    }
}

/// Refuses a login if the URL that derives from the gateway's base is plain HTTP.
fn insecure_base(case: &mut Validation<'_, '_>) {
    let Ok(base) = Url::parse(&case.context.public_base) else { return };
    if !super::login::is_login_enabled(case) || base.scheme() == "https" || is_loopback(&base) {
        return;
    }
    case.add_finding(
        Diagnostic::error(
            "insecure-public-url",
            format!("the gateway's public base is {}, but the tenant has a login", case.context.public_base),
        )
        .help("serve with TLS, or say by which https URL clients come (--public-base)"),
        None,
    );
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Returns the tenant's own hosts, without the gateway's.
fn hosts(case: &mut Validation<'_, '_>) -> Vec<HostName> {
    let Some(found) = case.layers.find(&["hosts"]) else { return Vec::new() };
    let texts: Vec<&str> = match &found.node.value {
        YamlValue::List(items) => items.iter().filter_map(|item| item.text()).collect(),
        _ => found.text().unwrap_or_default().split(',').map(str::trim).collect(),
    };
    if texts.len() > MAX_HOSTS {
        case.add_finding(
            Diagnostic::error(
                "hosts-many",
                format!("hosts has {} names; {MAX_HOSTS} are allowed", texts.len()),
            )
            .help("leave some out, or make it several tenants"),
            Some(found.location()),
        );
    }
    let mut hosts = Vec::new();
    for text in texts.into_iter().take(MAX_HOSTS) {
        match HostName::parse(text) {
            None => case.add_finding(bad_host(found.document.source.origin), Some(found.location())),
            Some(host) if is_gateways(case, &host) => case.add_finding(
                Diagnostic::warning(
                    "host-is-gateways",
                    format!("{host} is the gateway's own; it is left out"),
                )
                .help("the tenant answers there at its prefix anyway"),
                Some(found.location()),
            ),
            Some(host) if hosts.contains(&host) => {}
            Some(host) => hosts.push(host),
        }
    }
    hosts
}

fn bad_host(origin: DocumentOrigin) -> Diagnostic {
    let example = match origin {
        DocumentOrigin::Env => "HOSTS=mcp.example.com,mcp.example.org",
        _ => "hosts: [mcp.example.com]",
    };
    Diagnostic::error("bad-host", "hosts has something that is no host name")
        .help(format!("write names without scheme, port and path, such as {example}"))
}
