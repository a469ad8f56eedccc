//! Jobs outside the task that owns the certificates: an order, a request for renewal information or
//! a dry run, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use rustls_pki_types::CertificateDer;

use super::certs_folder::CertsFolder;
use super::jitter::jitter;
use super::lease::Lease;
use super::order_attempt::{ObtainedCertificate, OrderAttempt};
use super::shared_order::SharedOrder;
use super::shared_state::{AskedCertificate, SharedState};
use super::{order, renewal_info, shared_state};
use crate::certs::schedule::{self, FailureKind, IssuanceFailure, RenewalState, RenewalStep, RenewalWindow};
use crate::store::ClusterStore;

/// The deadline of one attempt, including both challenge types.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);

/// What a job reports to the task that owns the certificates.
pub(in crate::certs) enum JobReport {
    /// A step was taken.
    Step(Box<StepReport>),
    /// What gateways share was read, or why it could not be.
    Read { asked: Vec<String>, found: Result<Vec<SharedState>, String> },
    /// The database cannot be asked who orders.
    NoLease { name: String, trouble: String },
    /// No step was taken, or it counts no more: another gateway takes it, or has taken it.
    LeftToOthers { name: String },
    /// What followed from a step is shared, if it could be.
    Shared { name: String },
}

/// The result of a step.
pub(in crate::certs) struct StepReport {
    pub(super) name: String,
    pub(super) renewal: RenewalState,
    pub(super) outcome: JobOutcome,
    /// The lease under which it was taken, and what was shared then.
    pub(super) lease: Option<(Arc<Lease>, SharedState)>,
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
) -> StepReport {
    let outcome = match (step, held) {
        (RenewalStep::FetchRenewalInfo, Some(held)) => {
            JobOutcome::RenewalInfo(renewal_info::fetch(&attempt, &held).await)
        }
        (_, held) => JobOutcome::Order(renew(&attempt, &mut renewal, held).await),
    };
    StepReport { name: attempt.name, renewal, outcome, lease: None }
}

/// Takes the step that is due for a certificate that gateways share, unless another one does or
/// what they share says that none is due. An operator may have asked for an order.
pub(super) async fn run_shared_step(
    attempt: OrderAttempt,
    store: ClusterStore,
    step: RenewalStep,
    is_requested: bool,
) -> JobReport {
    let name = attempt.name.clone();
    let taken = Lease::take(&store, &name, step == RenewalStep::Order, &attempt.clock).await;
    let (lease, shared) = match taken {
        Ok(Some((lease, shared))) => (lease, SharedState::from(shared)),
        Ok(None) => return JobReport::LeftToOthers { name },
        Err(error) => return JobReport::NoLease { name, trouble: error.to_string() },
    };
    let (mut renewal, now) = (shared.renewal.clone(), attempt.clock.now());
    if is_requested {
        renewal.request_renewal(now);
    }
    renewal.repair(now, attempt.acme.cas.len());
    if let Some(held) = shared.lifetime() {
        renewal.fit(held, now, jitter);
    }
    let next = schedule::next_step(shared.lifetime(), &renewal, now);
    let ca = attempt.acme.cas.get(renewal.ca).cloned();
    let (Some(ca), true) = (ca, next.at <= now && shared.problem.is_none()) else {
        release(lease, None).await;
        return JobReport::LeftToOthers { name };
    };
    let (lease, left_order) = (Arc::new(lease), shared.pending_order.clone());
    let held = shared.certificate.as_ref().and_then(|held| held.certified_key.cert.first().cloned());
    let shared_order = SharedOrder::new(store, Some(Arc::clone(&lease)), left_order);
    let attempt = OrderAttempt { ca, shared: Some(shared_order), ..attempt };
    let report = tokio::select! {
        biased;
        () = lease.keep() => None,
        report = run_step(attempt, next.step, renewal, held) => Some(report),
    };
    match report.filter(|_| lease.clock().is_running()) {
        Some(report) => JobReport::Step(Box::new(StepReport { lease: Some((lease, shared)), ..report })),
        None => {
            tracing::warn!(name, "a lease was lost, so another gateway may order this certificate");
            JobReport::LeftToOthers { name }
        }
    }
}

/// Shares what followed from a step, and lets another gateway take the next one.
pub(super) async fn share(lease: Arc<Lease>, name: String, renewal: RenewalState) -> JobReport {
    release(lease, Some(&renewal)).await;
    JobReport::Shared { name }
}

async fn release(lease: impl std::borrow::Borrow<Lease>, renewal: Option<&RenewalState>) {
    match lease.borrow().release(renewal).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!("a lease was lost before what followed from a step was stored"),
        Err(error) => tracing::warn!(%error, "what followed from a step for a certificate is not stored"),
    }
}

/// Reads what gateways share about certificates.
pub(super) async fn read_shared(
    store: ClusterStore,
    folder: Arc<CertsFolder>,
    asked: Vec<AskedCertificate>,
) -> JobReport {
    let found = shared_state::load(&store, folder, &asked).await.map_err(|error| error.to_string());
    JobReport::Read { asked: asked.into_iter().map(|asked| asked.name).collect(), found }
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
    attempt.persist_bundle(&obtained).await?;
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
