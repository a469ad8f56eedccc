//! The certificates: how long each lasts, when it is renewed, and what is wrong.

use askama::Template;

use super::frame::{Frame, Section, Visit};
use super::link;
use super::prose::Prose;
use super::relative_time::RelativeTime;
use crate::admin::Admin;
use crate::certs::CertificateStatus;
use crate::settings::TlsMode;
use crate::telemetry::printable::printable;

/// Certificates on the page. More are only counted: those in trouble come first.
const ROWS: usize = 200;

#[derive(Template)]
#[template(path = "admin/certificates.html")]
struct CertificatesPage {
    frame: Frame,
    source: &'static str,
    rows: Vec<CertificateRow>,
    omitted: usize,
}

struct CertificateRow {
    name: String,
    state: String,
    days_left: Option<i64>,
    ends: Option<RelativeTime>,
    issuer: Option<String>,
    serial: Option<String>,
    renews: Option<RelativeTime>,
    next_attempt: Option<RelativeTime>,
    /// The gateway that orders it now, if several could.
    ordered_by: Option<String>,
    failures: u32,
    trouble: Option<Prose>,
    /// Where it is renewed, if the gateway can.
    renew_path: Option<String>,
}

/// Renders the page.
pub(super) fn render(admin: &Admin, visit: &Visit<'_>) -> String {
    let mut statuses = admin.certificates.statuses();
    statuses.sort_by_key(|status| (status.is_healthy(), status.not_after));
    let omitted = statuses.len().saturating_sub(ROWS);
    let page = CertificatesPage {
        frame: Frame::new("Certificates", Section::Certificates, visit),
        source: describe(admin.info.tls),
        rows: statuses.into_iter().take(ROWS).map(|status| CertificateRow::new(status, visit)).collect(),
        omitted,
    };
    page.render().expect("the page is written to a String")
}

fn describe(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::Off => "TLS is off: a proxy in front of the gateway has the certificates.",
        TlsMode::Acme => "Obtained and renewed automatically.",
        TlsMode::Manual => "Read from files; put a newer file in place before one ends.",
        TlsMode::SelfSigned => "Issued by this gateway's own authority, which clients must trust.",
    }
}

impl CertificateRow {
    fn new(status: CertificateStatus, visit: &Visit<'_>) -> Self {
        let relative_time = |at: Option<jiff::Timestamp>| at.map(|at| visit.relative_time(at));
        let days = |end: jiff::Timestamp| (end.as_second() - visit.now.as_second()).div_euclid(86400);
        let text = |text: Option<String>| text.map(|text| printable(&text).into_owned());
        let renew_path = status.ca.is_some().then(|| link::segment(&status.name));
        Self {
            renew_path: renew_path.map(|name| format!("/certificates/{name}/renew")),
            name: printable(&status.name).into_owned(),
            state: status.state.to_string(),
            days_left: status.not_after.map(days),
            ends: relative_time(status.not_after),
            issuer: text(status.issuer),
            serial: status.serial,
            renews: relative_time(status.renew_at),
            next_attempt: relative_time(status.next_attempt.filter(|_| status.failures > 0)),
            ordered_by: text(status.ordered_by),
            failures: status.failures,
            trouble: text(status.trouble).map(Prose::from),
        }
    }
}
