//! `tenantd certs doctor`: finds everything that can prevent a certificate from being issued or
//! accepted, with advice.

use std::fmt::Write;

use anyhow::Context;

use super::super::args::{AdminAccessArgs, CertsDoctorArgs};
use super::super::{Exit, admin_access, configuration, output};
use crate::base::clock::{Clock, SystemClock};
use crate::certs::{self, CertificateStatus, CheckResult, DoctorCheck};
use crate::gateway;
use crate::server::Listeners;
use crate::settings::{Flags, Settings};
use crate::telemetry::printable::printable;

/// Runs all checks and prints their results.
pub(super) fn run(CertsDoctorArgs { settings: args, access }: &CertsDoctorArgs) -> anyhow::Result<Exit> {
    let flags = args.validation.flags(args.gateway.flags(Flags::new()));
    let mut settings = configuration::load(&flags, args.validation.config.as_deref())?;
    if args.gateway.certs.is_none() {
        look_where_the_gateway_does(&mut settings, access);
    }
    let asked = match admin_access::connect(&settings, access) {
        Ok(client) => client.map(|client| client.certificates().map_err(|error| error.to_string())),
        Err(error) => Some(Err(format!("{error:#}"))),
    };
    let is_running = matches!(asked, Some(Ok(_)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let checks = runtime.context("the checks cannot be run")?.block_on(async {
        let (mut checks, statuses) = match asked {
            Some(Ok(statuses)) => (vec![DoctorCheck::new("gateway", Ok("it answers".into()))], statuses),
            Some(Err(why)) => without_gateway(&settings, why),
            None => without_gateway(&settings, "its admin listener is off, so it cannot answer".into()),
        };
        checks.extend(certs::examine(&settings, &statuses, is_running).await);
        checks
    });
    output::print(&render_checks(&checks))?;
    let in_trouble = checks.iter().any(|check| matches!(check.result, CheckResult::Fail(_)));
    Ok(if in_trouble { Exit::Findings } else { Exit::Fine })
}

/// The gateway that runs knows which folder it uses, wherever this is called from.
fn look_where_the_gateway_does(settings: &mut Settings, access: &AdminAccessArgs) {
    let client = admin_access::connect(settings, access).ok().flatten();
    let info = client.and_then(|client| client.gateway_info().ok());
    if let Some(folder) = info.and_then(|info| info.certs) {
        settings.certs = folder;
    }
}

/// Where no gateway answers: what lies in the folder, and whether a gateway could listen.
fn without_gateway(settings: &Settings, why: String) -> (Vec<DoctorCheck>, Vec<CertificateStatus>) {
    let folder = settings.certs.display();
    let found = CheckResult::Unclear(format!("{why}. The following is read from the certs folder, {folder}"));
    let mut checks = vec![DoctorCheck { subject: "gateway".into(), result: found }];
    if settings.admin.is_some() {
        checks.push(DoctorCheck::new("listeners", can_listen(settings).map_err(|error| error.to_string())));
    }
    (checks, certs::read_folder_statuses(&settings.certs, &settings.acme.cas, SystemClock.now()))
}

fn can_listen(settings: &Settings) -> Result<String, gateway::Error> {
    Listeners::bind(&settings.listen).map_err(gateway::Error::Listen)?;
    Listeners::bind(&settings.listen_http).map_err(gateway::Error::ListenHttp)?;
    Ok("a gateway can listen on its addresses".into())
}

fn render_checks(checks: &[DoctorCheck]) -> String {
    let mut text = String::new();
    for check in checks {
        let (mark, found) = match &check.result {
            CheckResult::Pass(found) => ("ok", found),
            CheckResult::Unclear(found) => ("??", found),
            CheckResult::Fail(found) => ("!!", found),
        };
        writeln!(text, "{mark}  {}: {}", printable(&check.subject), printable(found))
            .expect("writing to a String cannot fail");
    }
    text
}
