//! Jobs outside the task that owns the certificates: an order, a request for renewal information or
//! a dry run, each with a deadline.

use std::time::Duration;

use jiff::SignedDuration;
use rustls_pki_types::CertificateDer;

use super::order_attempt::{ObtainedCertificate, OrderAttempt};
use super::{failure, order, renewal_info};
use crate::certs::schedule::{FailureKind, IssuanceFailure, RenewalState, RenewalStep, RenewalWindow};

/// The deadline of one attempt, including both challenge types.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);

/// The result of a job.
pub(in crate::certs) struct JobReport {
    pub(super) name: String,
    pub(super) renewal: RenewalState,
    pub(super) outcome: JobOutcome,
}

pub(super) enum JobOutcome {
    Order(Result<Box<ObtainedCertificate>, IssuanceFailure>),
    RenewalInfo(Result<Option<(RenewalWindow, SignedDuration)>, IssuanceFailure>),
}

/// Runs the step that is due for a certificate. `held` is the current one.
pub(super) async fn run_step(
    attempt: OrderAttempt,
    step: RenewalStep,
    mut renewal: RenewalState,
    held: Option<CertificateDer<'static>>,
) -> JobReport {
    let outcome = match (step, held) {
        (RenewalStep::FetchRenewalInfo, Some(held)) => {
            JobOutcome::RenewalInfo(renewal_info::fetch(&attempt, &held).await)
        }
        (_, held) => JobOutcome::Order(renew(&attempt, &mut renewal, held).await),
    };
    JobReport { name: attempt.name, renewal, outcome }
}

/// Obtains a certificate and discards it. An error says why none could be obtained.
pub(super) async fn dry_run(attempt: OrderAttempt) -> Result<(), String> {
    let obtained = obtain_in_time(&attempt, &mut RenewalState::default(), None).await;
    obtained.map(drop).map_err(|failure| failure.message())
}

/// Obtains a certificate and stores it.
async fn renew(
    attempt: &OrderAttempt,
    renewal: &mut RenewalState,
    held: Option<CertificateDer<'static>>,
) -> Result<Box<ObtainedCertificate>, IssuanceFailure> {
    let obtained = obtain_in_time(attempt, renewal, held).await?;
    let (name, pem) = (attempt.name.clone(), obtained.pem.clone());
    let written = attempt.with_folder(move |folder| folder.persist_bundle(&name, &pem)).await;
    written
        .map_err(|error| failure::new_refused(format!("a certificate was issued but not stored: {error}")))?;
    Ok(Box::new(obtained))
}

async fn obtain_in_time(
    attempt: &OrderAttempt,
    renewal: &mut RenewalState,
    held: Option<CertificateDer<'static>>,
) -> Result<ObtainedCertificate, IssuanceFailure> {
    let obtained = tokio::time::timeout(ATTEMPT_TIMEOUT, order::obtain(attempt, renewal, held)).await;
    obtained.unwrap_or_else(|_| {
        let text = format!("the CA did not finish within {} minutes", ATTEMPT_TIMEOUT.as_secs() / 60);
        Err(IssuanceFailure::new(FailureKind::Unreachable, text))
    })
}
