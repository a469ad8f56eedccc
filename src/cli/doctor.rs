//! `tenantd doctor`: examines from outside in why clients do not connect, or not for long.
//!
//! Each examination is a file. It asks, within a deadline of its own, and returns
//! [`DoctorVerdict`]s: what was found, where, what it means and what to do. Nothing is changed
//! anywhere.

mod backend;
mod chain;
mod clock;
mod contact;
mod database;
mod folders;
mod gateway;
mod login;
mod names;
mod patient;
mod ports;
mod sequence;
mod tenants;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::patient::Patient;
pub(super) use self::patient::adopt;
pub(super) use self::verdict::Diagnosis;
use self::verdict::{DoctorVerdict, Examination, VerdictOutcome};
use super::args::{ClientKind, DoctorArgs};
use super::{Exit, output};
use crate::backend::{AddressRules, Pool};
use crate::base::clock::SystemClock;
use crate::telemetry::metrics::Metrics;

/// The longest time for one examination. Those that wait for others begin together.
const DEADLINE: Duration = Duration::from_secs(40);

/// Examines everything and prints the verdicts.
pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let diagnosis = diagnose(args)?;
    output::print(&output::rendered(args.format, &diagnosis, Diagnosis::to_text))?;
    Ok(if diagnosis.outcome == VerdictOutcome::Fault { Exit::Findings } else { Exit::Fine })
}

/// Examines everything for somebody else to read.
///
/// # Errors
/// As for [`run`].
pub(super) fn diagnose(args: &DoctorArgs) -> anyhow::Result<Diagnosis> {
    examine(&Patient::find(args)?, args.client.unwrap_or(ClientKind::Sdk))
}

/// Runs all examinations.
///
/// # Errors
/// The runtime or the HTTP client cannot be created.
fn examine(patient: &Patient, client: ClientKind) -> anyhow::Result<Diagnosis> {
    let mut verdicts = patient.verdicts.clone();
    verdicts.extend(gateway::examine(patient));
    verdicts.extend(tenants::examine(patient));
    verdicts.extend(folders::examine(patient));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let pool = create_pool(patient)?;
    let found = runtime.context("the runtime cannot be started")?.block_on(async {
        tokio::join!(
            examine_edge(patient, client),
            within_deadline(Examination::Backend, backend::examine(patient, &pool)),
            within_deadline(Examination::Login, examine_login(patient, &pool)),
            within_deadline(Examination::Database, database::examine(patient)),
        )
    });
    verdicts.extend(found.0.into_iter().chain(found.1).chain(found.2).chain(found.3));
    Ok(Diagnosis::new(verdicts))
}

/// What a client meets on its way: the name, the port, the certificate.
async fn examine_edge(patient: &Patient, client: ClientKind) -> Vec<DoctorVerdict> {
    let found = names::examine(patient, client).await;
    let mut verdicts = found.verdicts;
    let ports = ports::examine(patient, &found.addresses).await;
    verdicts.extend(ports.verdicts);
    let (chain, sequence) = tokio::join!(
        within_deadline(Examination::Certificate, chain::examine(patient, &ports.open, client)),
        within_deadline(Examination::Client, sequence::examine(patient, &ports.open, client)),
    );
    verdicts.extend(chain.into_iter().chain(sequence));
    verdicts
}

async fn examine_login(patient: &Patient, pool: &Pool) -> Vec<DoctorVerdict> {
    let found = login::examine(patient).await;
    let mut verdicts = found.verdicts;
    verdicts.extend(clock::examine(patient, pool, found.clocks).await);
    verdicts
}

/// Gives an examination up when its time is over; the others go on.
async fn within_deadline(
    examination: Examination,
    work: impl Future<Output = Vec<DoctorVerdict>>,
) -> Vec<DoctorVerdict> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        let why = format!("it took longer than {} s", DEADLINE.as_secs());
        vec![DoctorVerdict::not_checked(examination, "took-too-long", "this examination", why)]
    })
}

/// Creates the client that the gateway uses: the same addresses are forbidden, the same CAs
/// trusted.
fn create_pool(patient: &Patient) -> anyhow::Result<Pool> {
    let rules = AddressRules::from_context(&patient.context);
    let pool = Pool::new(rules, SystemClock::shared(), Arc::new(Metrics::new()));
    pool.context("the HTTP client cannot be created")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_examination_that_hangs_is_given_up() {
        let verdicts = within_deadline(Examination::Backend, std::future::pending()).await;
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].code, "took-too-long");
        let quick = within_deadline(Examination::Backend, async { Vec::new() }).await;
        assert!(quick.is_empty());
    }
}
