//! Checks settings against each other. Runs on parsed values and names settings by their flags.

use std::net::SocketAddr;
use std::path::Path;

use super::{AdminTls, Settings, TlsMode, localhost, store};
use crate::base::diagnostic::{Diagnostic, Report};
use crate::spec::HostName;

/// Completes values that follow from other settings, and reports contradictions.
pub(super) fn check(settings: &mut Settings, report: &mut Report) {
    complete_hosts(settings);
    listeners_differ(settings, report);
    folders_are_apart(settings, report);
    plain_http_is_near(settings, report);
    terms_are_agreed_to(settings, report);
    hops_have_proxies(settings, report);
    proxy_protocol_has_proxies(settings, report);
    admin_is_near(settings, report);
    admin_access_is_whole(settings, report);
    hsts_has_tls(settings, report);
    store::check(settings, report);
}

/// Adds the host of the public base to our hosts; without any, our host is `localhost`.
fn complete_hosts(settings: &mut Settings) {
    let base = settings.public_base.as_deref().and_then(|base| url::Url::parse(base).ok());
    if let Some(host) = base.as_ref().and_then(|base| HostName::parse(base.host_str()?)) {
        settings.hosts.push(host);
    }
    let mut seen = std::collections::BTreeSet::new();
    settings.hosts.retain(|host| seen.insert(host.clone()));
    if settings.hosts.is_empty() {
        settings.hosts.push(localhost());
    }
}

fn listeners_differ(settings: &Settings, report: &mut Report) {
    let mut taken: Vec<(String, SocketAddr)> = Vec::new();
    let ranges = settings.tenant_listeners.ranges();
    let public = settings.listen.iter().map(|listen| ("--listen".to_owned(), listen.address));
    let plain = settings.listen_http.iter().map(|address| ("--listen-http".to_owned(), *address));
    let public = public.chain(plain);
    for (flag, address) in public.chain(settings.admin.map(|address| ("--admin".to_owned(), address))) {
        if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address && address.port() != 0) {
            let message = format!("`{flag}` and `{other}` both are {address}");
            let help = "give each listener its own address or port";
            report.push(Diagnostic::error("listeners-collide", message).help(help));
        }
        if let Some(range) = ranges.iter().find(|range| range.collides_with(address)) {
            let message = format!("`{flag}` is {address}, which is among `--tenant-listeners` ({range})");
            let help = "leave it out of the range: a tenant's listener is nobody else's";
            report.push(Diagnostic::error("listeners-collide", message).help(help));
        }
        taken.push((flag, address));
    }
}

/// A listener that wants a PROXY protocol header needs a proxy that it trusts.
fn proxy_protocol_has_proxies(settings: &Settings, report: &mut Report) {
    let listeners = settings.listen.iter().filter(|listen| listen.proxy_protocol).map(ToString::to_string);
    let ranges = settings.tenant_listeners.ranges().iter().map(ToString::to_string);
    let mut wanting = listeners.chain(ranges.filter(|range| range.ends_with("proxy_protocol")));
    if let Some(listener) = wanting.next().filter(|_| settings.trusted_proxies.is_empty()) {
        let message = format!(
            "`{listener}` takes a PROXY protocol header from trusted proxies only, but none is named"
        );
        let help = "name the addresses of the proxies in `trusted_proxies`";
        report.push(Diagnostic::error("proxy-protocol-without-proxies", message).help(help));
    }
}

/// A state or certs folder inside the tenants folder would be taken for a tenant.
fn folders_are_apart(settings: &Settings, report: &mut Report) {
    let folders: [(&str, &Path); 2] = [("--state", &settings.state), ("--certs", &settings.certs)];
    for (flag, folder) in folders.into_iter().filter(|(_, folder)| folder.starts_with(&settings.tenants)) {
        let tenants = settings.tenants.display();
        let message = format!("`{flag}` is {}, inside the tenants folder {tenants}", folder.display());
        let help = "put it beside the tenants folder: everything inside that folder counts as a tenant";
        report.push(Diagnostic::error("folders-overlap", message).help(help));
    }
}

fn plain_http_is_near(settings: &Settings, report: &mut Report) {
    let mut addresses = settings.listen.iter().map(|listen| listen.address);
    let far = addresses.find(|address| !address.ip().is_loopback());
    if let (TlsMode::Off, Some(address)) = (settings.tls, far) {
        let message = format!("`--tls off` on {address}: API keys and answers are sent unencrypted");
        let help = "listen on 127.0.0.1 behind a proxy that terminates TLS, or use another `--tls`";
        report.push(Diagnostic::warning("plain-http", message).help(help));
    }
}

/// Only the operator can accept a CA's terms.
fn terms_are_agreed_to(settings: &Settings, report: &mut Report) {
    if settings.tls == TlsMode::Acme && !settings.acme.accept_tos {
        let cas: Vec<&str> = settings.acme.cas.iter().map(|ca| ca.directory.as_str()).collect();
        let message = format!(
            "`--tls acme` requests certificates from {}, but its terms of service are not accepted",
            cas.join(" and ")
        );
        let help = "read the CA's terms of service and add `--accept-tos` (accept_tos: true)";
        report.push(Diagnostic::error("acme-terms", message).help(help));
    }
    if settings.tls == TlsMode::Off && !settings.listen_http.is_empty() {
        let message = "`--listen-http` redirects clients to https, but `--tls off` does not serve https";
        let help = "remove `--listen-http`, or use another `--tls`";
        report.push(Diagnostic::error("redirect-to-nothing", message).help(help));
    }
}

fn hops_have_proxies(settings: &Settings, report: &mut Report) {
    if settings.trusted_proxies.is_empty() && settings.trusted_proxy_hops.is_some() {
        let message =
            "`trusted_proxy_hops` is set, but no proxy is trusted, so forwarded headers are not read";
        let help = "name the addresses of the proxies in `trusted_proxies`";
        report.push(Diagnostic::error("hops-without-proxies", message).help(help));
    }
}

fn admin_is_near(settings: &Settings, report: &mut Report) {
    if let Some(address) = far_admin(settings).filter(|_| settings.admin_access.tokens.is_none()) {
        let message = format!("`--admin` is {address}: everyone who can reach it sees every tenant's status");
        let help = "use 127.0.0.1:9900, ask for tokens (`admin_auth`), or block others with a firewall or network policy";
        report.push(Diagnostic::warning("admin-not-loopback", message).help(help));
    }
}

fn far_admin(settings: &Settings) -> Option<SocketAddr> {
    settings.admin.filter(|address| !address.ip().is_loopback())
}

/// Tokens must not travel in the clear unless the operator says so, and names need tokens: any page
/// could have a name that leads here.
fn admin_access_is_whole(settings: &Settings, report: &mut Report) {
    let access = &settings.admin_access;
    if let Some(address) = far_admin(settings).filter(|_| access.tokens.is_some() && access.tls.is_none()) {
        let message = format!("`--admin` is {address} and asks for tokens (`admin_auth`), but without TLS");
        let help = "say `admin_tls: gateway`, or `[CERTIFICATE, KEY]`; `off` if a proxy in front ends TLS";
        report.push(Diagnostic::error("admin-without-tls", message).help(help));
    }
    if access.tls == Some(AdminTls::Gateway) && settings.tls == TlsMode::Off {
        let message =
            "`admin_tls: gateway` takes the gateway's certificates, but with `--tls off` it has none";
        let help = "say `admin_tls: [CERTIFICATE, KEY]`, or `off` if a proxy in front ends TLS";
        report.push(Diagnostic::error("admin-tls-without-certificates", message).help(help));
    }
    if access.tokens.is_none() && !access.hosts.is_empty() {
        let message = "`admin_host` names the admin listener, but it asks for no tokens";
        let help = "add `admin_auth`: without it, pages of the web could reach the listener by a name";
        report.push(Diagnostic::error("admin-host-without-auth", message).help(help));
    }
}

/// Browsers ignore HSTS over plain HTTP (RFC 6797 section 7.2), so its operator would be misled.
fn hsts_has_tls(settings: &Settings, report: &mut Report) {
    if settings.tls == TlsMode::Off && settings.hsts.is_some() {
        let message = "`hsts` is set, but `--tls off` serves plain HTTP, over which browsers ignore it";
        let help = "remove it here, and let the proxy that terminates TLS send Strict-Transport-Security";
        report.push(Diagnostic::error("hsts-without-tls", message).help(help));
    }
}
