//! Jobs outside the task that owns the certificates: an order, a request for renewal information or
//! a rehearsal, each with a deadline.

use std::time::Duration;

use jiff::SignedDuration;
use rustls_pki_types::CertificateDer;

use super::attempt::{Attempt, Obtained};
use super::fault;
use crate::certs::schedule::{Failure, Fault, Memory, Step, Window};

/// The deadline of one attempt, including both challenge types.
const ATTEMPT: Duration = Duration::from_secs(300);

/// The result of a job.
pub(in crate::certs) struct Report {
    pub(super) name: String,
    pub(super) memory: Memory,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    Ordered(Result<Box<Obtained>, Failure>),
    Asked(Result<Option<(Window, SignedDuration)>, Failure>),
}

/// Runs the step that is due for a certificate. `held` is the current one.
pub(super) async fn run(
    attempt: Attempt,
    step: Step,
    mut memory: Memory,
    held: Option<CertificateDer<'static>>,
) -> Report {
    let outcome = match (step, held) {
        (Step::AskWindow, Some(held)) => Outcome::Asked(attempt.window(held).await),
        (_, held) => Outcome::Ordered(obtain(&attempt, &mut memory, held).await),
    };
    Report { name: attempt.name, memory, outcome }
}

/// Obtains a certificate and discards it. An error says why none could be obtained.
pub(super) async fn rehearse(attempt: Attempt) -> Result<(), String> {
    let obtained = in_time(&attempt, &mut Memory::default(), None).await;
    obtained.map(drop).map_err(|failure| failure.said())
}

/// Obtains a certificate and stores it.
async fn obtain(
    attempt: &Attempt,
    memory: &mut Memory,
    held: Option<CertificateDer<'static>>,
) -> Result<Box<Obtained>, Failure> {
    let obtained = in_time(attempt, memory, held).await?;
    let (name, pem) = (attempt.name.clone(), obtained.pem.clone());
    let kept = attempt.on_disk(move |store| store.keep_bundle(&name, &pem)).await;
    kept.map_err(|error| fault::refused(format!("a certificate was issued but not kept, since {error}")))?;
    Ok(Box::new(obtained))
}

async fn in_time(
    attempt: &Attempt,
    memory: &mut Memory,
    held: Option<CertificateDer<'static>>,
) -> Result<Obtained, Failure> {
    let late = || {
        let text = format!("the CA was not done within {} minutes", ATTEMPT.as_secs() / 60);
        Failure::new(Fault::Unreachable, text)
    };
    let obtained = tokio::time::timeout(ATTEMPT, attempt.obtain(memory, held)).await;
    obtained.unwrap_or_else(|_| Err(late()))
}
