//! Diagnoses why a certificate might not be obtained or accepted: everything that can be checked
//! from this machine, in the order in which to look at it. CAs are asked for nothing but their
//! directories.

mod folder;
mod network;
#[cfg(test)]
mod tests;

use self::network::Passerby;
use super::acme::check;
use super::{Status, schedule::State};
use crate::settings::{Settings, TlsMode};
use crate::spec::HostName;

/// One check and its result.
#[derive(Debug)]
pub struct Check {
    /// What was checked.
    pub what: String,
    /// The result.
    pub found: Found,
}

/// The result of a check, worded for people.
#[derive(Debug)]
pub enum Found {
    /// Nothing is wrong.
    Fine(String),
    /// It cannot be determined from here.
    Unclear(String),
    /// Something is wrong: what it is, and what to do.
    Trouble(String),
}

impl Check {
    /// Builds a check that is either fine or in trouble.
    pub fn new(what: impl Into<String>, found: Result<String, String>) -> Self {
        Self { what: what.into(), found: found.map_or_else(Found::Trouble, Found::Fine) }
    }
}

/// Looks at the folder, the CAs, the names and the ports. `statuses` are those of the gateway, or of the folder if none
/// is running.
pub async fn examine(settings: &Settings, statuses: &[Status], is_running: bool) -> Vec<Check> {
    let mut checks = folder::look(settings, is_running);
    if settings.tls == TlsMode::Acme {
        authorities(settings, &mut checks).await;
        let passerby = Passerby::new(statuses, !settings.listen_http.is_empty());
        for host in settings.hosts.iter().map(HostName::bare) {
            passerby.look_at(host, &mut checks).await;
        }
        checks.push(Check { what: "port 443".into(), found: port_443(settings) });
        checks.push(Check::new("port 80", Ok(port_80(settings))));
    }
    checks.extend(statuses.iter().map(judge));
    checks
}

async fn authorities(settings: &Settings, checks: &mut Vec<Check>) {
    for ca in &settings.acme.cas {
        if let Some(eab) = &ca.eab {
            checks.push(Check::new("external account", check::eab(eab)));
        }
        checks.push(Check::new(ca.directory.clone(), check::ca(&settings.acme, &ca.directory).await));
        if let Some(staging) = &ca.staging {
            let found = match check::ca(&settings.acme, staging).await {
                Ok(well) => Found::Fine(format!("{well}, for names that could not be proved")),
                Err(trouble) => Found::Unclear(format!("staging, which is passed over then: {trouble}")),
            };
            checks.push(Check { what: staging.clone(), found });
        }
    }
}

fn port_443(settings: &Settings) -> Found {
    let ports: Vec<u16> = settings.listen.iter().map(|address| address.port()).collect();
    match ports.contains(&443) {
        true => Found::Fine(
            "listened on; CAs look at it first (tls-alpn-01), so nothing in front may end TLS".into(),
        ),
        // A container may publish its port under another number.
        false => Found::Unclear(format!(
            "not listened on (--listen has {ports:?}): CAs connect to 443, so forward it to this gateway, or rely on port 80"
        )),
    }
}

fn port_80(settings: &Settings) -> String {
    match settings.listen_http.first() {
        Some(address) => format!("{address} answers challenges (http-01) and redirects to https"),
        None => "not listened on; if CAs cannot get through to 443, add --listen-http 0.0.0.0:80".into(),
    }
}

fn judge(status: &Status) -> Check {
    let until = status.not_after.map(|until| format!(", until {until}")).unwrap_or_default();
    let said = format!("{}{until}", status.state);
    let what = format!("certificate for {}", status.name);
    match (&status.trouble, status.state) {
        (_, State::Valid | State::Ordering) => Check::new(what, Ok(said)),
        (Some(trouble), _) => Check::new(what, Err(format!("{said}: {trouble}"))),
        (None, State::Bootstrap) => {
            Check { what, found: Found::Unclear(format!("{said}: no order has ended yet")) }
        }
        (None, _) => Check::new(what, Err(said)),
    }
}
