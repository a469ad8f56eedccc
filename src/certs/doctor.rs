//! Diagnoses why a certificate might not be obtained or accepted: everything that can be checked
//! from this machine, in the order in which to look at it. CAs are asked for nothing but their
//! directories.

mod folder;
mod network;
#[cfg(test)]
mod tests;

use self::network::EndpointProbe;
use super::acme::preflight;
use super::{CertificateStatus, schedule::CertificateState};
use crate::settings::{Settings, TlsMode};
use crate::spec::HostName;

/// One check and its result.
#[derive(Debug)]
pub struct DoctorCheck {
    /// What was checked.
    pub subject: String,
    /// The result.
    pub result: CheckResult,
}

/// The result of a check, worded for people.
#[derive(Debug)]
pub enum CheckResult {
    /// Nothing is wrong.
    Pass(String),
    /// It cannot be determined from here.
    Unclear(String),
    /// Something is wrong: what it is, and what to do.
    Fail(String),
}

impl DoctorCheck {
    /// Builds a check that is either fine or in trouble.
    pub fn new(subject: impl Into<String>, result: Result<String, String>) -> Self {
        Self { subject: subject.into(), result: result.map_or_else(CheckResult::Fail, CheckResult::Pass) }
    }
}

/// Checks the folder, the CAs, the names and the ports. `statuses` come from the gateway, or from
/// the folder if none is running.
pub async fn examine(
    settings: &Settings,
    statuses: &[CertificateStatus],
    is_running: bool,
) -> Vec<DoctorCheck> {
    let mut checks = folder::check_folder_and_files(settings, is_running);
    if settings.tls == TlsMode::Acme {
        check_authorities(settings, &mut checks).await;
        let probe = EndpointProbe::new(statuses, !settings.listen_http.is_empty());
        for host in settings.hosts.iter().map(HostName::without_brackets) {
            probe.probe_host(host, &mut checks).await;
        }
        checks.push(DoctorCheck { subject: "port 443".into(), result: check_port_443(settings) });
        checks.push(DoctorCheck::new("port 80", Ok(describe_port_80(settings))));
    }
    checks.extend(statuses.iter().map(check_certificate));
    checks
}

async fn check_authorities(settings: &Settings, checks: &mut Vec<DoctorCheck>) {
    for ca in &settings.acme.cas {
        if let Some(eab) = &ca.eab {
            checks.push(DoctorCheck::new("external account", preflight::check_external_account(eab)));
        }
        checks.push(DoctorCheck::new(
            ca.directory.clone(),
            preflight::check_directory(&settings.acme, &ca.directory).await,
        ));
        if let Some(staging) = &ca.staging {
            let found = match preflight::check_directory(&settings.acme, staging).await {
                Ok(text) => CheckResult::Pass(format!("{text}, for names that could not be validated")),
                Err(trouble) => {
                    CheckResult::Unclear(format!("staging, which the gateway then skips: {trouble}"))
                }
            };
            checks.push(DoctorCheck { subject: staging.clone(), result: found });
        }
    }
}

fn check_port_443(settings: &Settings) -> CheckResult {
    let ports: Vec<u16> = settings.listen.iter().map(|listen| listen.address.port()).collect();
    match ports.contains(&443) {
        true => CheckResult::Pass(
            "the gateway listens on it; CAs try it first (tls-alpn-01), so nothing in front may terminate \
             TLS"
            .into(),
        ),
        // A container may publish its port under another number.
        false => CheckResult::Unclear(format!(
            "the gateway does not listen on it (--listen has {ports:?}): CAs connect to 443, so forward it \
             to this gateway, or rely on port 80"
        )),
    }
}

fn describe_port_80(settings: &Settings) -> String {
    match settings.listen_http.first() {
        Some(address) => format!("{address} answers challenges (http-01) and redirects to https"),
        None => "the gateway does not listen on it; if CAs cannot reach port 443, add --listen-http \
                 0.0.0.0:80"
            .into(),
    }
}

fn check_certificate(status: &CertificateStatus) -> DoctorCheck {
    let until = status.not_after.map(|until| format!(", until {until}")).unwrap_or_default();
    let text = format!("{}{until}", status.state);
    let what = format!("certificate for {}", status.name);
    match (&status.trouble, status.state) {
        (_, CertificateState::Valid | CertificateState::Ordering) => DoctorCheck::new(what, Ok(text)),
        (Some(trouble), _) => DoctorCheck::new(what, Err(format!("{text}: {trouble}"))),
        (None, CertificateState::Placeholder) => DoctorCheck {
            subject: what,
            result: CheckResult::Unclear(format!("{text}: no order has finished yet")),
        },
        (None, _) => DoctorCheck::new(what, Err(text)),
    }
}
