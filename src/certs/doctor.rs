//! Why a certificate might not be obtained: each thing that can be looked at from here, in the order to look at them.

use std::path::Path;
use std::time::Duration;

use super::acme::check;
use super::storage;
use crate::settings::{Settings, TlsMode};
use crate::spec::HostName;

/// A name may take so long to resolve.
const LOOKUP: Duration = Duration::from_secs(5);

/// One thing looked at, and what was found: all well, or what to do.
#[derive(Debug)]
pub struct Check {
    pub what: String,
    pub found: Result<String, String>,
}

impl Check {
    fn new(what: impl Into<String>, found: Result<String, String>) -> Self {
        Self { what: what.into(), found }
    }
}

/// Looks at the folder, the CAs and the names. Asks the CAs for nothing but their directories.
pub async fn examine(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![Check::new("certs folder", folder(&settings.certs))];
    if settings.tls != TlsMode::Acme {
        return checks;
    }
    for ca in &settings.acme.cas {
        if let Some(eab) = &ca.eab {
            checks.push(Check::new("external account", check::eab(eab)));
        }
        checks.push(Check::new(ca.directory.clone(), check::ca(&settings.acme, ca).await));
    }
    for host in settings.hosts.iter().map(HostName::bare) {
        checks.push(Check::new(host, resolves(host).await));
    }
    let ports: Vec<u16> = settings.listen.iter().map(|address| address.port()).collect();
    checks.push(Check::new("port 443", port_443(&ports)));
    checks.push(Check::new("port 80", port_80(settings)));
    checks
}

fn folder(folder: &Path) -> Result<String, String> {
    let shown = folder.display();
    if !folder.exists() {
        return Ok(format!("{shown} is not there yet; it is made at the first start"));
    }
    check::folder(folder)?;
    let exposed = |path: &Path| storage::readable_by_others(path);
    match exposed(folder) {
        true => Err(format!("other users can look into {shown}: `chmod 700 {shown}`")),
        false => Ok(format!("{shown} is private and can be written")),
    }
}

async fn resolves(host: &str) -> Result<String, String> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok("an address needs no name service; CAs issue for it only for a few days at a time".into());
    }
    let lookup = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, 443))).await;
    let unresolved = |why: String| {
        Err(format!(
            "it does not resolve ({why}); make an A or AAAA record that points to this machine's public address"
        ))
    };
    match lookup {
        Ok(Ok(found)) => {
            let addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            match addresses.is_empty() {
                true => unresolved("no address".into()),
                false => Ok(format!(
                    "resolves to {}; that must be this machine, or lead to it",
                    addresses.join(" ")
                )),
            }
        }
        Ok(Err(error)) => unresolved(error.to_string()),
        Err(_) => unresolved("the name server does not answer".into()),
    }
}

fn port_443(ports: &[u16]) -> Result<String, String> {
    match ports.contains(&443) {
        true => Ok("listened on; CAs look at it first (tls-alpn-01), so nothing in front may end TLS".into()),
        false => Err(format!(
            "not listened on (--listen has {ports:?}): CAs connect to 443, so forward it to this gateway, or rely on port 80"
        )),
    }
}

fn port_80(settings: &Settings) -> Result<String, String> {
    match settings.listen_http.first() {
        Some(address) => Ok(format!("{address} answers challenges (http-01) and redirects to https")),
        None => Ok("not listened on; if CAs cannot get through to 443, add --listen-http 0.0.0.0:80".into()),
    }
}
