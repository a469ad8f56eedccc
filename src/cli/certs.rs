//! `tenantd certs`: what a running gateway says of its certificates, and what can be found out without one.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::args::{AdminArgs, CertsAction, CertsArgs, Question, ServeArgs};
use super::healthcheck::client;
use super::{Exit, admin_client, configuration, output};
use crate::base::clock::{Clock, SystemClock};
use crate::certs::{self, Check, State, Status};
use crate::settings::{Flags, Key};

pub(super) fn run(args: &CertsArgs) -> anyhow::Result<Exit> {
    match &args.action {
        CertsAction::List { question } => list(question),
        CertsAction::Show { name, question } => show(name, question),
        CertsAction::Renew { name, admin } => order(name, admin, false),
        CertsAction::Test { name, admin } => order(name, admin, true),
        CertsAction::Doctor(args) => doctor(args),
        CertsAction::Import { certificate, key, certs, config } => {
            let flags = Flags::new().with(Key::CERTS, certs);
            let settings = configuration::load_quietly(&flags, config.as_deref())?;
            import(&settings.certs, certificate, key.as_deref())
        }
    }
}

fn list(question: &Question) -> anyhow::Result<Exit> {
    let statuses = client(&question.admin)?.certificates()?;
    output::print(&output::rendered(question.format, statuses.as_slice(), table))?;
    Ok(if statuses.iter().all(Status::is_well) { Exit::Fine } else { Exit::Findings })
}

fn show(name: &str, question: &Question) -> anyhow::Result<Exit> {
    let statuses = client(&question.admin)?.certificates()?;
    let Some(status) = statuses.iter().find(|status| status.name.split(' ').any(|own| own == name)) else {
        eprintln!("tenantd: there is no certificate for {name}; `tenantd certs list` names them all");
        return Ok(Exit::Findings);
    };
    output::print(&output::rendered(question.format, status, facts))?;
    Ok(Exit::Fine)
}

fn order(name: &str, admin: &AdminArgs, rehearsal: bool) -> anyhow::Result<Exit> {
    match client(admin)?.certificate_order(name, rehearsal) {
        Ok(()) if rehearsal => output::print(&format!("A certificate for {name} can be obtained.\n"))?,
        Ok(()) => output::print(&format!("A new certificate for {name} is served.\n"))?,
        Err(error @ admin_client::Error::Said(..)) => {
            eprintln!("tenantd: {error}");
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
            eprintln!("tenantd: {error}");
            return Ok(Exit::Findings);
        }
    };
    let names = imported.names.join(" ");
    output::print(&format!(
        "{} now holds the certificate for {names}, until {}.\nA gateway with --tls manual takes it up within seconds.\n",
        imported.file.display(),
        imported.not_after
    ))?;
    match imported.warning {
        Some(warning) => {
            eprintln!("tenantd: {warning}");
            Ok(Exit::Findings)
        }
        None => Ok(Exit::Fine),
    }
}

fn doctor(args: &ServeArgs) -> anyhow::Result<Exit> {
    let flags = args.rules.flags(args.gateway.flags(Flags::new()));
    let settings = configuration::load(&flags, args.rules.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut checks = runtime.context("the checks cannot be run")?.block_on(certs::examine(&settings));
    match settings.admin.map(|address| admin_client::AdminClient::new(address).certificates()) {
        Some(Ok(statuses)) => checks.extend(statuses.iter().map(judge)),
        Some(Err(error)) => checks.push(Check { what: "gateway".into(), found: Err(error.to_string()) }),
        None => {}
    }
    let mut text = String::new();
    for check in &checks {
        let (mark, found) = match &check.found {
            Ok(found) => ("ok", found),
            Err(trouble) => ("!!", trouble),
        };
        writeln!(text, "{mark}  {}: {found}", check.what).expect("writing to a String cannot fail");
    }
    output::print(&text)?;
    Ok(if checks.iter().all(|check| check.found.is_ok()) { Exit::Fine } else { Exit::Findings })
}

fn judge(status: &Status) -> Check {
    let until = status.not_after.map(|until| format!(", until {until}")).unwrap_or_default();
    let said = format!("{}{until}", word(status.state));
    let found = match status.is_well() {
        true => Ok(said),
        false => Err(status.trouble.clone().map_or(said.clone(), |trouble| format!("{said}: {trouble}"))),
    };
    Check { what: format!("certificate for {}", status.name), found }
}

fn table(statuses: &[Status]) -> String {
    if statuses.is_empty() {
        return "No certificates: the gateway has no name that one could be obtained for, or serves plain HTTP.\n".into();
    }
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let row = |status: &Status| {
        let renewal = time(status.renew_at.or(status.next_attempt));
        vec![status.name.clone(), word(status.state).to_owned(), time(status.not_after), renewal]
    };
    let rows: Vec<Vec<String>> = statuses.iter().map(row).collect();
    let mut text = output::table(&["NAME", "STATE", "UNTIL", "NEXT ORDER"], &rows);
    for status in statuses.iter().filter(|status| !status.is_well()) {
        let name = status.name.split(' ').next().unwrap_or_default();
        writeln!(text, "\n{name} is {}: `tenantd certs show {name}` says why.", word(status.state))
            .expect("writing to a String cannot fail");
    }
    text
}

fn facts(status: &Status) -> String {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
    let facts = [
        ("name", Some(status.name.clone())),
        ("state", Some(word(status.state).to_owned())),
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
    facts.iter().filter_map(|(name, value)| Some(format!("{name:<10} {}\n", value.as_ref()?))).collect()
}

fn word(state: State) -> &'static str {
    match state {
        State::Bootstrap => "bootstrap",
        State::Ordering => "ordering",
        State::Valid => "valid",
        State::Backoff => "backoff",
        State::Refused => "refused",
        State::Degraded => "degraded",
        State::Expired => "expired",
    }
}
