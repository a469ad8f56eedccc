//! Parses single values. Each error says what is wrong and what to write instead.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::{OpenTenants, TenantsFrom, TlsMode, WatchMode, ZipHosts, acme};
use crate::spec::{AllowedBackend, HoldChanges, HostName, ListenAddress, ListenerRange};
use crate::telemetry::log::LogFormat;

/// The reason why a text is not a valid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParseError {
    pub(super) what: String,
    pub(super) help: String,
}

pub(super) type ParseResult<T> = Result<T, ParseError>;

fn fault<T>(what: impl Into<String>, help: impl Into<String>) -> ParseResult<T> {
    Err(ParseError { what: what.into(), help: help.into() })
}

/// Parses `IP:PORT`, `:PORT` (all IPv4 addresses) or `localhost:PORT`.
pub(super) fn socket(text: &str) -> ParseResult<SocketAddr> {
    let port = |text: &str| text.parse::<u16>().ok();
    if let Some(port) = text.strip_prefix(':').and_then(port) {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => {
            fault("not an IP address and port", "write it like `0.0.0.0:443`, `[::]:443` or `127.0.0.1:8443`")
        }
    }
}

/// Parses an address to listen on, with `proxy_protocol` after it or without.
pub(super) fn listen(text: &str) -> ParseResult<ListenAddress> {
    match ListenAddress::parse(text) {
        Some(address) => Ok(address),
        None => fault(
            "not an IP address and port",
            "write it like `0.0.0.0:443`, `[::]:443` or `127.0.0.1:8443`; ` proxy_protocol` after it wants that \
             header of every connection",
        ),
    }
}

/// Parses a range of addresses that tenants may listen on.
pub(super) fn tenant_listeners(text: &str) -> ParseResult<ListenerRange> {
    match ListenerRange::parse(text) {
        Some(range) => Ok(range),
        None => fault(
            "not an IP address with a port or a range of ports",
            "write it like `0.0.0.0:8001-8099` or `127.0.0.1:8001`",
        ),
    }
}

/// Parses a socket address or `off`.
pub(super) fn socket_or_off(text: &str) -> ParseResult<Option<SocketAddr>> {
    match text {
        "off" => Ok(None),
        _ => match socket(text) {
            Ok(address) => Ok(Some(address)),
            Err(_) => fault("not an IP address and port", "write it like `127.0.0.1:9900`, or `off`"),
        },
    }
}

/// Parses a host name or IP address without a port.
pub(super) fn host(text: &str) -> ParseResult<HostName> {
    let bracketed = text.parse::<std::net::Ipv6Addr>().map(|address| format!("[{address}]"));
    match HostName::parse(bracketed.as_deref().unwrap_or(text)) {
        Some(host) => Ok(host),
        None if text.contains("://") => {
            fault("a URL instead of a host name", "give only the name, and the URL as `--public-base`")
        }
        None => {
            fault("not a host name", "give a name or IP address without port, for example `mcp.example.com`")
        }
    }
}

/// Parses `http(s)://host[:port]`, omitting a default port and a trailing slash.
pub(super) fn origin(text: &str) -> ParseResult<Url> {
    const HELP: &str = "write it like `https://mcp.example.com` or `https://mcp.example.com:8443`";
    let Ok(url) = Url::parse(text) else { return fault("not an absolute URL", HELP) };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return fault("not an http or https URL", HELP);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fault("a URL with a user name in it", HELP);
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return fault(
            "a URL with more than a host and a port",
            format!("{HELP}; each tenant adds its own prefix"),
        );
    }
    Ok(without_dot(url))
}

/// Removes the trailing dot of a fully qualified host name, which names the same host.
fn without_dot(mut url: Url) -> Url {
    let bare = url.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned);
    if let Some(bare) = bare {
        url.set_host(Some(&bare)).expect("a host name without its dot is one");
    }
    url
}

/// Parses the base URL of the login. It must be https, since secrets are sent there, except on
/// loopback.
pub(super) fn authority(text: &str) -> ParseResult<Url> {
    let url = match Url::parse(text) {
        Ok(url) if url.origin().is_tuple() && url.path() == "/" && url.query().is_none() => url,
        _ => return fault("no scheme and host", AUTHORITIES),
    };
    let loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => fault("not an https URL", AUTHORITIES),
    }
}

const AUTHORITIES: &str =
    "write it like `https://login.microsoftonline.us`; most installations need only the default";

/// Parses a browser's `Origin`, kept as text. Desktop apps and extensions use other schemes, and
/// some have no origin: `null`.
pub(super) fn browser_origin(text: &str) -> ParseResult<String> {
    const HELP: &str = "write it as the client sends it, like `https://app.example.com`, \
                        `app://obsidian.md`, `file://` or `null`; each port is a separate origin, and \
                        patterns are not supported";
    if text == "null" {
        return Ok(text.to_owned());
    }
    let Some((scheme, rest)) = text.split_once("://").filter(|_| !text.contains('*')) else {
        return fault("not an origin", HELP);
    };
    if matches!(scheme, "http" | "https") {
        return origin(text).map(|url| url.origin().ascii_serialization());
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    let is_plain = rest.chars().all(|c| c.is_ascii_graphic() && !"*/?#\\".contains(c));
    if is_scheme && is_plain { Ok(text.to_owned()) } else { fault("not an origin", HELP) }
}

/// Parses a network in CIDR notation; a single address is a network of one.
pub(super) fn network(text: &str) -> ParseResult<IpNet> {
    let lone = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    match text.parse::<IpNet>().or_else(|_| lone()) {
        Ok(network) => Ok(network.trunc()),
        Err(_) => fault("not a network", "write it like `127.0.0.0/8`, `10.0.0.0/8` or `fd00::/8`"),
    }
}

/// Parses a network that counts as private. A network of all addresses is refused.
pub(super) fn private_network(text: &str) -> ParseResult<IpNet> {
    match network(text)? {
        all if all.prefix_len() == 0 => {
            fault("all addresses", "write `open_tenants: public` to allow all addresses")
        }
        network => Ok(network),
    }
}

/// Parses a network of trusted proxies. A network of all addresses is refused: then everybody could
/// say to come from anywhere.
pub(super) fn trusted_proxies(text: &str) -> ParseResult<IpNet> {
    match network(text)? {
        all if all.prefix_len() == 0 => {
            fault("all addresses", "name the proxies alone: whoever is in the list can claim any address")
        }
        network => Ok(network),
    }
}

/// Parses how many proxies are in front.
pub(super) fn hops(text: &str) -> ParseResult<NonZeroU8> {
    match text.parse() {
        Ok(hops) => Ok(hops),
        Err(_) => fault("not a number from 1 to 255", "write how many proxies a request passes"),
    }
}

/// The longest name of a gateway.
pub(super) const MAX_NODE_NAME_CHARS: usize = 64;

/// A name that stands in logs and audits without quotes.
pub(super) fn node_name(text: &str) -> ParseResult<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !text.is_empty() && text.len() <= MAX_NODE_NAME_CHARS && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => fault(
            "not the name of a node",
            "write up to 64 letters, digits, hyphens, dots and underscores, like `gateway-1`",
        ),
    }
}

/// A host, a domain or a network.
pub(super) fn allowed_backend(text: &str) -> ParseResult<AllowedBackend> {
    match AllowedBackend::parse(text) {
        Some(backend) => Ok(backend),
        None => fault(
            "neither a host nor a network",
            "write it like `portal.example.com`, `*.example.com` or `10.0.0.0/8`, without scheme and port",
        ),
    }
}

/// `5m`, `1d`, `365d`, or `off`; a bare number is seconds.
pub(super) fn period_or_off(text: &str) -> ParseResult<Option<Duration>> {
    const HELP: &str = "write it like `300s`, `1d` or `365d`, or `off`";
    if text == "off" {
        return Ok(None);
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return fault("not a duration", HELP),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => fault("not a duration", HELP),
    }
}

/// Parses `64MB`, `1GB` or `off`; a bare number is in bytes.
pub(super) fn size_or_off(text: &str) -> ParseResult<Option<u64>> {
    const HELP: &str = "write it like `64MB` or `1GB`, or `off`";
    if text == "off" {
        return Ok(None);
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let bytes = match unit {
        "" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return fault("not a size", HELP),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes)) {
        Some(bytes) if bytes >= 64 << 10 => Ok(Some(bytes)),
        Some(_) => fault("less than 64KB, which one busy minute can fill", HELP),
        None => fault("not a size", HELP),
    }
}

/// Parses a number of files from 1 to 1000.
pub(super) fn files(text: &str) -> ParseResult<u32> {
    match text.parse() {
        Ok(files @ 1..=1000) => Ok(files),
        _ => fault("not a number from 1 to 1000", "write how many files are kept, including the current one"),
    }
}

pub(super) fn switch(text: &str) -> ParseResult<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => fault("neither true nor false", "write `true` or `false`"),
    }
}

pub(super) fn tls(text: &str) -> ParseResult<TlsMode> {
    const HELP: &str = "write `acme`, `self-signed`, `manual` or `off`";
    match text {
        "acme" => Ok(TlsMode::Acme),
        "self-signed" => Ok(TlsMode::SelfSigned),
        "manual" => Ok(TlsMode::Manual),
        "off" => Ok(TlsMode::Off),
        _ => fault("not a TLS mode", HELP),
    }
}

/// Parses the URL of an ACME directory, or a name for one of Let's Encrypt's.
pub(super) fn directory(text: &str) -> ParseResult<String> {
    match text {
        "letsencrypt" => return Ok(acme::LETS_ENCRYPT.to_owned()),
        "letsencrypt-staging" => return Ok(acme::LETS_ENCRYPT_STAGING.to_owned()),
        _ => {}
    }
    match Url::parse(text) {
        Ok(url) if url.scheme() == "https" && url.host_str().is_some() => Ok(text.to_owned()),
        _ => fault(
            "not an ACME directory",
            "write its https URL as the CA documents it, or `letsencrypt` or `letsencrypt-staging`",
        ),
    }
}

/// Parses the URL of a staging directory, or `-` for none.
pub(super) fn staging(text: &str) -> ParseResult<String> {
    if text == acme::NONE { Ok(text.to_owned()) } else { directory(text) }
}

/// Parses a mail address loosely; its parts are the CA's to validate.
pub(super) fn mail(text: &str) -> ParseResult<String> {
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    match text.split_once('@') {
        Some((user, host)) if !user.is_empty() && host.contains('.') && !text.contains([' ', '?', '<']) => {
            Ok(text.to_owned())
        }
        _ => fault("not a mail address", "write it like `ops@example.com`, or remove it"),
    }
}

pub(super) fn watch(text: &str) -> ParseResult<WatchMode> {
    match text {
        "auto" => Ok(WatchMode::Auto),
        "poll" => Ok(WatchMode::Poll),
        _ => fault("not a watch mode", "write `auto` or `poll`"),
    }
}

pub(super) fn tenants_from(text: &str) -> ParseResult<TenantsFrom> {
    match text {
        "folder" => Ok(TenantsFrom::Folder),
        "kubernetes" if cfg!(feature = "kube") => Ok(TenantsFrom::Kubernetes),
        "kubernetes" => fault(
            "not possible with this program, which was built without the feature `kube`",
            "use the image or a package, or build with `cargo build --release --features kube`",
        ),
        _ => fault("not a place of tenants", "write `folder` or `kubernetes`"),
    }
}

pub(super) fn log(text: &str) -> ParseResult<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => {
            fault("not a log format", "write `text` or `json`; `TENANTD_LOG_FILTER` sets how much is logged")
        }
    }
}

pub(super) fn zip_hosts(text: &str) -> ParseResult<ZipHosts> {
    match text {
        "refuse" => Ok(ZipHosts::Refuse),
        "allow" => Ok(ZipHosts::Allow),
        _ => fault("not a rule for the hosts of exports", "write `refuse` or `allow`"),
    }
}

pub(super) fn hold_changes(text: &str) -> ParseResult<HoldChanges> {
    match HoldChanges::parse(text) {
        Some(hold) => Ok(hold),
        None => fault("not a kind of changes", "write `tools` or `off`"),
    }
}

pub(super) fn open_tenants(text: &str) -> ParseResult<OpenTenants> {
    match text {
        "private" => Ok(OpenTenants::Private),
        "public" => Ok(OpenTenants::Public),
        "refused" => Ok(OpenTenants::Refused),
        _ => fault("not a rule for open tenants", "write `private`, `public` or `refused`"),
    }
}
