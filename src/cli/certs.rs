//! `tenantd certs`: shows and renews the certificates of a running gateway, or inspects the certs
//! folder.

mod doctor;

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;

use super::admin_request::client;
use super::args::{AdminArgs, CertsAction, CertsArgs, CertsQueryArgs};
use super::{Exit, admin_client, configuration, output};
use crate::base::clock::{Clock, SystemClock};
use crate::certs::{self, CertificateStatus};
use crate::settings::{Flags, SettingKey};
use crate::telemetry::printable::printable;

pub(super) fn run(args: &CertsArgs) -> anyhow::Result<Exit> {
    match &args.action {
        CertsAction::List { query } => list(query),
        CertsAction::Show { name, query } => show(name, query),
        CertsAction::Renew { name, admin } => renew(name, admin, false),
        CertsAction::Test { name, admin } => renew(name, admin, true),
        CertsAction::Doctor(args) => doctor::run(args),
        CertsAction::Import { certificate, key, certs, config } => {
            let flags = Flags::new().with(SettingKey::CERTS, certs);
            let settings = configuration::load_quietly(&flags, config.as_deref())?;
            import(&settings.certs, certificate, key.as_deref())
        }
    }
}

/// Returns the statuses from the gateway, or from the certs folder if that is given or no gateway
/// responds.
fn statuses(query: &CertsQueryArgs) -> anyhow::Result<Vec<CertificateStatus>> {
    let AdminArgs { admin, config, .. } = &query.query.admin;
    if admin.as_deref().is_some_and(|admin| admin.starts_with("https://")) {
        return Ok(client(&query.query.admin)?.certificates()?);
    }
    let flags = Flags::new().with(SettingKey::ADMIN, admin).with(SettingKey::CERTS, &query.certs);
    let settings = configuration::load_quietly(&flags, config.as_deref())?;
    let stored = || certs::read_folder_statuses(&settings.certs, &settings.acme.cas, SystemClock.now());
    if query.certs.is_some() {
        return Ok(stored());
    }
    if settings.admin.is_none() {
        return Ok(stored());
    }
    match client(&query.query.admin)?.certificates() {
        Err(error @ admin_client::Error::Unreachable(..)) => {
            let folder = settings.certs.display();
            output::print_error(format!("{error}. The following is read from the certs folder, {folder}"));
            Ok(stored())
        }
        answer => Ok(answer?),
    }
}

fn list(query: &CertsQueryArgs) -> anyhow::Result<Exit> {
    let statuses = statuses(query)?;
    output::print(&output::rendered(query.query.format, statuses.as_slice(), table))?;
    Ok(if statuses.iter().all(CertificateStatus::is_healthy) { Exit::Fine } else { Exit::Findings })
}

fn show(name: &str, query: &CertsQueryArgs) -> anyhow::Result<Exit> {
    let statuses = statuses(query)?;
    let Some(status) = statuses.iter().find(|status| status.name.split(' ').any(|own| own == name)) else {
        output::print_error(format!(
            "there is no certificate for {name}; `tenantd certs list` lists all of them"
        ));
        return Ok(Exit::Findings);
    };
    output::print(&output::rendered(query.query.format, status, facts))?;
    Ok(Exit::Fine)
}

fn renew(name: &str, admin: &AdminArgs, is_dry_run: bool) -> anyhow::Result<Exit> {
    match client(admin)?.renew_certificate(name, is_dry_run) {
        Ok(()) if is_dry_run => output::print(&format!("A certificate for {name} can be obtained.\n"))?,
        Ok(()) => output::print(&format!("The gateway serves a new certificate for {name}.\n"))?,
        Err(error @ admin_client::Error::Rejected(..)) => {
            output::print_error(error);
            return Ok(Exit::Findings);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Fine)
}

fn import(folder: &Path, certificate: &Path, key: Option<&Path>) -> anyhow::Result<Exit> {
    let imported = match certs::import(folder, certificate, key, SystemClock.now()) {
        Ok(imported) => imported,
        Err(error) => {
            output::print_error(error);
            return Ok(Exit::Findings);
        }
    };
    let names = imported.names.join(" ");
    output::print(&format!(
        "{} now contains the certificate for {names}, valid until {}.\nA gateway with --tls manual uses it within seconds.\n",
        imported.file.display(),
        imported.not_after
    ))?;
    // It was put in place, so it is not for the exit code to say otherwise.
    imported.warning.map(|warning| format!("warning: {warning}")).into_iter().for_each(output::print_error);
    Ok(Exit::Fine)
}

fn table(statuses: &[CertificateStatus]) -> String {
    if statuses.is_empty() {
        return "No certificates: the gateway has no name for which a certificate can be obtained, or it serves plain HTTP.\n".into();
    }
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), to_the_second);
    let row = |status: &CertificateStatus| {
        let renewal = time(status.renew_at.or(status.next_attempt));
        vec![status.name.clone(), status.state.to_string(), time(status.not_after), renewal]
    };
    let rows: Vec<Vec<String>> = statuses.iter().map(row).collect();
    let mut text = output::table(&["NAME", "STATE", "UNTIL", "NEXT ORDER"], &rows);
    for status in statuses.iter().filter(|status| !status.is_healthy()) {
        let name = status.name.split(' ').next().unwrap_or_default();
        writeln!(text, "\n{name} is {}: `tenantd certs show {name}` says why.", status.state)
            .expect("writing to a String cannot fail");
    }
    text
}

fn facts(status: &CertificateStatus) -> String {
    let time = |time: Option<Timestamp>| time.map(to_the_second);
    let facts = [
        ("name", Some(status.name.clone())),
        ("state", Some(status.state.to_string())),
        ("ordered by", status.ordered_by.clone()),
        ("trouble", status.trouble.clone()),
        ("from", time(status.not_before)),
        ("until", time(status.not_after)),
        ("renewal", time(status.renew_at)),
        ("next order", time(status.next_attempt)),
        ("failures", (status.failures > 0).then(|| format!("{} in a row", status.failures))),
        ("issuer", status.issuer.clone()),
        ("serial", status.serial.clone()),
        ("authority", status.ca.clone()),
        ("challenge", status.challenge.clone()),
    ];
    facts
        .iter()
        .filter_map(|(name, value)| Some(format!("{name:<10} {}\n", printable(value.as_ref()?))))
        .collect()
}

fn to_the_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
