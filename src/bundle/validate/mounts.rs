//! Where a tenant is reachable: its prefix, public URL and own hosts.

use std::net::SocketAddr;
use std::path::Path;

use url::{Host, Url};

use super::url::{find_url_oddity, has_authority};
use super::validation::Validation;
use crate::base::diagnostic::Diagnostic;
use crate::bundle::document::FoundValue;
use crate::bundle::placeholder::has_angle_brackets;
use crate::bundle::source_text::DocumentOrigin;
use crate::spec::{HostName, Mount, Prefix, PublicUrl, TenantName};

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
    prefix: Prefix,
}

/// Validates `path_prefix`, `public_url` and `hosts`.
pub(super) fn validate(
    validation: &mut Validation<'_, '_>,
    name: Option<&TenantName>,
) -> Option<ValidatedMounts> {
    let path_prefix = validation.layers.find(&["path_prefix"]).map(|found| {
        (found, found.text().and_then(|text| validate_prefix(validation, &found, "path_prefix", text)))
    });
    let public_url =
        validation.layers.find(&["public_url"]).map(|found| validate_public_url(validation, found));
    let hosts = validate_hosts(validation);
    let listener = validate_listener(validation);
    // A refused `public_url` leaves the tenant without a place.
    let public_url = match public_url {
        Some(public_url) => Some(public_url?),
        None => None,
    };
    let prefix = match (path_prefix, &public_url) {
        (Some((found, prefix)), _) => {
            let prefix = prefix?;
            report_if_prefixes_differ(validation, &found, &prefix, public_url.as_ref());
            prefix
        }
        (None, Some(public_url)) => public_url.prefix.clone(),
        (None, None) if validation.context.has_single_tenant() => Prefix::root(),
        (None, None) => Prefix::parse(&format!("/{}", name?)).ok()?,
    };
    let own_host =
        public_url.as_ref().map(|url| url.host.clone()).filter(|host| !is_gateways_host(validation, host));
    if let (Some(public_url), Some(_)) = (&public_url, &own_host) {
        reject_host_from_export(validation, public_url, &prefix, name);
    }
    // A listener that the tenant cannot have leaves it without a place, too.
    let listener = listener.ok()?;
    let base = own_base(&validation.context.public_base, listener);
    let origin = public_url.as_ref().map_or(base.as_str(), |url| &url.origin);
    if public_url.is_none() {
        report_missing_public_url(validation);
        reject_insecure_base(validation);
    }
    let public_url = match &public_url {
        Some(_) => PublicUrl::new(origin, &prefix),
        None => PublicUrl::new(origin, &prefix).assumed(),
    };
    Some(ValidatedMounts { public_url, mounts: list_mounts(listener, own_host, hosts, &prefix) })
}

fn list_mounts(
    listener: Option<SocketAddr>,
    own_host: Option<HostName>,
    hosts: Vec<HostName>,
    prefix: &Prefix,
) -> Vec<Mount> {
    let mut mounts = vec![Mount { listener, host: own_host, prefix: prefix.clone() }];
    for host in hosts {
        let mount = Mount { listener, host: Some(host), prefix: prefix.clone() };
        if !mounts.contains(&mount) {
            mounts.push(mount);
        }
    }
    mounts
}

/// Returns the gateway's base with the port of the tenant's own listener, if it has one.
fn own_base(base: &str, listener: Option<SocketAddr>) -> String {
    let with_port = |listener: SocketAddr| {
        let mut url = Url::parse(base).ok()?;
        url.set_port(Some(listener.port())).ok()?;
        Some(url.origin().ascii_serialization())
    };
    listener.and_then(with_port).unwrap_or_else(|| base.to_owned())
}

/// Returns the listener of its own that `listen` asks for, by its port or address.
fn validate_listener(validation: &mut Validation<'_, '_>) -> Result<Option<SocketAddr>, ()> {
    let Some(found) = validation.layers.find(&["listen"]) else { return Ok(None) };
    let text = found.text().unwrap_or_default();
    let allowed = &validation.context.tenant_listeners;
    let listener = match (text.parse::<u16>(), text.parse::<SocketAddr>()) {
        (Ok(port), _) => allowed.find_port(port),
        (_, Ok(address)) => Some(address).filter(|address| allowed.contains(*address)),
        _ => {
            let finding =
                Diagnostic::error("bad-listen", "listen is neither a port nor an address with a port");
            validation.add_finding(
                finding.help("write it like listen: 8001 or listen: 127.0.0.1:8001"),
                Some(found.location()),
            );
            return Err(());
        }
    };
    if listener.is_none() {
        let allowed: Vec<String> = allowed.ranges().iter().map(ToString::to_string).collect();
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        let message = format!(
            "listen is {text}, but the gateway's setting tenant_listeners does not allow that (it allows {allowed})"
        );
        let help = "add it to the gateway's settings, such as tenant_listeners: [\"0.0.0.0:8001-8099\"], and restart \
                    the gateway; or remove the line, and the tenant answers on the gateway's own listeners";
        validation
            .add_finding(Diagnostic::error("listen-not-allowed", message).help(help), Some(found.location()));
        return Err(());
    }
    Ok(listener)
}

/// Refuses a host of its own that only an export claims: if vendors' files could set it, one could
/// answer for others' names.
fn reject_host_from_export(
    validation: &mut Validation<'_, '_>,
    public_url: &ParsedPublicUrl<'_>,
    prefix: &Prefix,
    name: Option<&TenantName>,
) {
    if public_url.found.document.source.origin != DocumentOrigin::Export
        || validation.context.zip_hosts_allowed
    {
        return;
    }
    let (file, base) = (name_operators_file(validation, &public_url.found), &validation.context.public_base);
    // The root of a host of its own corresponds to `/<name>` on the gateway, not to its root.
    let usual = name.and_then(|name| Prefix::parse(&format!("/{name}")).ok()).filter(|_| prefix.is_root());
    let instead = PublicUrl::new(base, usual.as_ref().unwrap_or(prefix));
    let meant = PublicUrl::new(&public_url.origin, prefix);
    let help = format!(
        "if you want this host, write \"public_url: {meant}\" into {file}; otherwise write \"public_url: \
         {instead}\" there. `zip_hosts: allow` in the gateway's settings trusts all exports"
    );
    let message = format!(
        "the export claims the host {}, which is not the gateway's; only your files can give a tenant its \
         own host",
        public_url.host
    );
    validation
        .add_finding(Diagnostic::error("export-host", message).help(help), Some(public_url.found.location()));
}

/// Returns the file in which an operator sets what an export may not.
fn name_operators_file(validation: &Validation<'_, '_>, found: &FoundValue<'_>) -> String {
    let overlay = validation
        .layers
        .0
        .iter()
        .map(|document| &document.source)
        .find(|it| it.origin == DocumentOrigin::Overlay);
    let name = |file: &Path| file.file_name().map(|name| name.to_string_lossy().into_owned());
    let beside = || match validation.state.confinement.has_folder() {
        true => None,
        false => name(&found.document.source.file.with_extension("yaml")),
    };
    overlay
        .and_then(|source| name(&source.file))
        .or_else(beside)
        .unwrap_or_else(|| "a .yaml in its folder".to_owned())
}

fn is_gateways_host(validation: &Validation<'_, '_>, host: &HostName) -> bool {
    let base = Url::parse(&validation.context.public_base).ok();
    let base = base.as_ref().and_then(Url::host_str).and_then(HostName::parse);
    base.as_ref() == Some(host) || validation.context.hosts.may_be_gateway(host)
}

/// Parses a prefix; drops a trailing slash with a warning.
fn validate_prefix(
    validation: &mut Validation<'_, '_>,
    found: &FoundValue<'_>,
    field: &str,
    text: &str,
) -> Option<Prefix> {
    let shorter = text.strip_suffix('/').filter(|_| text != "/");
    if shorter.is_some() {
        warn_of_trailing_slash(validation, found, field);
    }
    let text = match shorter {
        Some("") => "/",
        Some(shorter) => shorter,
        None => text,
    };
    let prefix = match Prefix::parse(text) {
        Ok(prefix) => prefix,
        Err(error) => {
            let what = format!("{field} is not a valid path for a tenant: {error}");
            validation.add_finding(
                Diagnostic::error("bad-prefix", what).help("write it like /tenant-a, or / for the root"),
                Some(found.location()),
            );
            return None;
        }
    };
    if prefix.segments().last() == Some("mcp") {
        validation.add_finding(
            Diagnostic::warning(
                "mcp-twice",
                format!("{field} ends in /mcp, so the connector URL ends in /mcp/mcp"),
            )
            .help("remove /mcp here: the gateway adds it"),
            Some(found.location()),
        );
    }
    Some(prefix)
}

fn warn_of_trailing_slash(validation: &mut Validation<'_, '_>, found: &FoundValue<'_>, field: &str) {
    validation.add_finding(
        Diagnostic::warning("trailing-slash", format!("{field} ends with a slash; the slash is ignored"))
            .help("write it without the slash"),
        Some(found.location()),
    );
}

fn report_if_prefixes_differ(
    validation: &mut Validation<'_, '_>,
    found: &FoundValue<'_>,
    prefix: &Prefix,
    public_url: Option<&ParsedPublicUrl<'_>>,
) {
    if let Some(other) = public_url.map(|url| &url.prefix).filter(|other| *other != prefix) {
        validation.add_finding(
            Diagnostic::error(
                "prefix-differs",
                format!("path_prefix is {prefix}, but the path of public_url is {other}"),
            )
            .help("make them equal, or remove one of them"),
            Some(found.location()),
        );
    }
}

fn validate_public_url<'a>(
    validation: &mut Validation<'_, '_>,
    found: FoundValue<'a>,
) -> Option<ParsedPublicUrl<'a>> {
    let text = found.text()?;
    let url = match parse_public_url(text) {
        Ok(url) => url,
        Err(what) => {
            validation.add_finding(
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
        warn_of_trailing_slash(validation, &found, "public_url");
    }
    report_if_insecure(validation, &found, &url);
    let prefix = validate_prefix(validation, &found, "the path of public_url", path)?;
    Some(ParsedPublicUrl { found, origin: normalize_origin(&url, &host), host, prefix })
}

/// Returns the origin of a URL, with its host in normalized form.
fn normalize_origin(url: &Url, host: &HostName) -> String {
    let mut url = url.clone();
    url.set_host(Some(host.as_str())).expect("a host name is a URL's host");
    url.origin().ascii_serialization()
}

fn parse_public_url(text: &str) -> Result<Url, &'static str> {
    if has_angle_brackets(text) || text.contains("${") || text.contains("{{") {
        return Err("still contains a placeholder");
    }
    if let Some(what) = find_url_oddity(text, false) {
        return Err(what);
    }
    let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
    if !matches!(url.scheme(), "http" | "https") || !has_authority(text) {
        return Err("must begin with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment");
    }
    match url.host_str().and_then(HostName::parse) {
        Some(_) => Ok(url),
        None => Err("has no valid host"),
    }
}

/// Refuses plain HTTP for a tenant with a login, and warns if it has keys: codes, tokens and keys
/// travel over this URL.
fn report_if_insecure(validation: &mut Validation<'_, '_>, found: &FoundValue<'_>, url: &Url) {
    if url.scheme() == "https" || is_loopback(url) {
        return;
    }
    if validation.is_login_enabled() {
        validation.add_finding(
            Diagnostic::error("insecure-public-url", "public_url is http, but the tenant has a login")
                .help("use https; http is allowed for loopback addresses only"),
            Some(found.location()),
        );
    } else if validation.is_given(&["api_keys"]) {
        validation.add_finding(
            Diagnostic::warning(
                "insecure-public-url",
                "public_url is http: callers' keys are sent unencrypted",
            )
            .help("use https"),
            Some(found.location()),
        );
    }
}

/// Refuses a login of a gateway's only tenant without its URL: identity provider and clients send
/// people back to it, and nothing else names it.
fn report_missing_public_url(validation: &mut Validation<'_, '_>) {
    if !validation.context.has_single_tenant() || !validation.is_login_enabled() {
        return;
    }
    let at = validation.locate(&["oauth_enabled"]);
    let missing = Diagnostic::error("login-incomplete", "Missing required env vars PUBLIC_URL");
    let help = "people log in at this URL: give the https URL that clients use (--url, PUBLIC_URL or \
                public_url), or http://localhost:8000 to try it on this machine";
    validation.add_finding(missing.help(help), at);
}

/// Refuses a login if the URL that derives from the gateway's base is plain HTTP.
fn reject_insecure_base(validation: &mut Validation<'_, '_>) {
    let Ok(base) = Url::parse(&validation.context.public_base) else { return };
    if !validation.is_login_enabled() || base.scheme() == "https" || is_loopback(&base) {
        return;
    }
    validation.add_finding(
        Diagnostic::error(
            "insecure-public-url",
            format!(
                "the gateway's public base is {}, but the tenant has a login",
                validation.context.public_base
            ),
        )
        .help("serve with TLS, or set the https URL that clients use (--public-base)"),
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
fn validate_hosts(validation: &mut Validation<'_, '_>) -> Vec<HostName> {
    let Some(found) = validation.layers.find(&["hosts"]) else { return Vec::new() };
    let texts = found.list_items_as_written();
    if texts.len() > MAX_HOSTS {
        validation.add_finding(
            Diagnostic::error(
                "hosts-many",
                format!("hosts has {} names; at most {MAX_HOSTS} are allowed", texts.len()),
            )
            .help("remove some, or split it into several tenants"),
            Some(found.location()),
        );
    }
    let mut hosts = Vec::new();
    for text in texts.into_iter().take(MAX_HOSTS) {
        match HostName::parse(text) {
            None => {
                validation.add_finding(bad_host_error(found.document.source.origin), Some(found.location()))
            }
            Some(host) if is_gateways_host(validation, &host) => validation.add_finding(
                Diagnostic::warning(
                    "host-is-gateways",
                    format!("{host} is the gateway's own host; it is ignored"),
                )
                .help("the tenant answers there at its prefix in any case"),
                Some(found.location()),
            ),
            Some(host) if hosts.contains(&host) => {}
            Some(host) => hosts.push(host),
        }
    }
    hosts
}

fn bad_host_error(origin: DocumentOrigin) -> Diagnostic {
    let example = match origin {
        DocumentOrigin::Env => "HOSTS=mcp.example.com,mcp.example.org",
        _ => "hosts: [mcp.example.com]",
    };
    Diagnostic::error("bad-host", "hosts has a value that is not a host name")
        .help(format!("write names without scheme, port and path, such as {example}"))
}
