//! The clock of this machine, compared with the dates that other servers send.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Full;
use url::Url;

use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};
use crate::backend::{self, Pool};
use crate::base::clock::{Clock, SystemClock};
use crate::identity::ClockReading;
use crate::settings::TlsMode;

const CLOCK: Examination = Examination::Clock;
const PATIENCE: Duration = Duration::from_secs(5);
/// Servers send whole seconds, and answers take a while.
const TOLERATED: Duration = Duration::from_secs(60);
/// What identity providers and clients tolerate in tokens.
const MAX_TOLERATED: Duration = Duration::from_secs(300);

/// Somebody else's clock.
pub(super) struct OtherClock {
    pub(super) owner: String,
    pub(super) reading: ClockReading,
}

/// Judges the clock by `others`; if there are none, by a server that is asked for nothing else.
pub(super) async fn examine(
    patient: &Patient,
    pool: &Pool,
    mut others: Vec<OtherClock>,
) -> Vec<DoctorVerdict> {
    if others.is_empty() {
        others.extend(ask_somebody(patient, pool).await);
    }
    if others.is_empty() {
        let why = "there is no server to compare it with: no login, no certificate authority, no backend that \
                   sends its time";
        return vec![DoctorVerdict::not_checked(CLOCK, "clock-unknown", "the clock of this machine", why)];
    }
    others.iter().map(judge).collect()
}

async fn ask_somebody(patient: &Patient, pool: &Pool) -> Option<OtherClock> {
    let authority = patient.settings.acme.cas.first().filter(|_| patient.settings.tls == TlsMode::Acme);
    let authority = authority.and_then(|ca| Url::parse(&ca.directory).ok());
    let spec = patient.tenants.iter().find_map(|tenant| tenant.spec.as_ref());
    let backend = spec.and_then(|spec| Url::parse(spec.backend.context.url.head()).ok());
    for url in authority.into_iter().chain(backend) {
        if let Some(clock) = ask(pool, &url).await {
            return Some(clock);
        }
    }
    None
}

/// Asks for the page at the root, without any credential.
async fn ask(pool: &Pool, url: &Url) -> Option<OtherClock> {
    let owner = url.host_str()?.to_owned();
    let root = format!("{}/", url.origin().ascii_serialization());
    let request = Request::builder().uri(root).body(Full::default()).ok()?;
    let response = backend::fetch(pool, request, PATIENCE, |_, _| true).await.ok()?;
    let date = response.headers.get(header::DATE)?.to_str().ok()?;
    Some(OtherClock { owner, reading: ClockReading::from_date(date, SystemClock.now())? })
}

fn judge(clock: &OtherClock) -> DoctorVerdict {
    let (owner, difference) = (&clock.owner, clock.reading.difference());
    let place = "the clock of this machine";
    let direction = if clock.reading.ours > clock.reading.theirs { "ahead of" } else { "behind" };
    let found = format!("it is {} s {direction} that of {owner}", difference.as_secs());
    let advice = "switch time synchronization on: `timedatectl set-ntp true`, or chrony; in a virtual machine, \
                  also on its host";
    match difference {
        _ if difference > MAX_TOLERATED => DoctorVerdict::fault(CLOCK, "clock-wrong", place, found)
            .meaning("tokens and certificates count as expired or as not yet valid: nobody can log in")
            .advice(advice),
        _ if difference > TOLERATED => DoctorVerdict::warning(CLOCK, "clock-off", place, found)
            .meaning("it works as long as others tolerate five minutes")
            .advice(advice),
        _ => DoctorVerdict::ok(CLOCK, "clock-right", place, format!("agrees with that of {owner}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::VerdictOutcome;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_tokens_tolerate() {
        let outcome = |theirs: &str| {
            let ours = "2026-11-26T12:00:00Z".parse().expect("a time");
            let reading = ClockReading { ours, theirs: theirs.parse().expect("a time") };
            judge(&OtherClock { owner: "them".into(), reading }).outcome
        };
        assert_eq!(outcome("2026-11-26T12:01:00Z"), VerdictOutcome::Ok);
        assert_eq!(outcome("2026-11-26T11:58:59Z"), VerdictOutcome::Warning);
        assert_eq!(outcome("2026-11-26T12:05:01Z"), VerdictOutcome::Fault);
    }
}
