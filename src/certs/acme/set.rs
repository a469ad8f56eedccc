//! One automatic certificate: the certificate held, its memory, and the job in progress.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Reply;
use super::attempt::{self, Obtained};
use crate::base::random;
use crate::certs::material::Material;
use crate::certs::schedule::{self, Failure, Held, Memory, Next, State, Step, Window};

/// How often the log repeats that a certificate is about to expire or has expired.
const REMIND_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// One certificate: what is held, what is remembered, and what is in progress.
#[derive(Default)]
pub(super) struct Set {
    pub(super) held: Option<Arc<Material>>,
    pub(super) memory: Memory,
    pub(super) busy: Option<Step>,
    pub(super) reminded: Option<Timestamp>,
    /// An operator asked for a renewal while a job was in progress; it follows after that job.
    pub(super) wanted_anew: bool,
    /// The operators who wait for the outcome of the next order.
    pub(super) waiting: Vec<Reply>,
}

impl Set {
    pub(super) fn span(&self) -> Option<Held> {
        self.held.as_ref().map(|held| Held { from: held.not_before, until: held.not_after })
    }

    pub(super) fn next(&self, now: Timestamp) -> Next {
        schedule::next(self.span(), &self.memory, now)
    }

    pub(super) fn state(&self, now: Timestamp) -> State {
        schedule::state(self.span(), &self.memory, self.busy == Some(Step::Order), now)
    }

    pub(super) fn install(&mut self, name: &str, obtained: Obtained, now: Timestamp) {
        let material = obtained.material;
        let held = Held { from: material.not_before, until: material.not_after };
        self.memory.succeeded(held, obtained.challenge, now, chance());
        tracing::info!(
            name, serial = material.serial, until = %material.not_after, issuer = material.issuer,
            way = attempt::word(obtained.challenge), "a new certificate is served"
        );
        self.held = Some(Arc::new(material));
        self.reminded = None;
    }

    pub(super) fn fail(&mut self, name: &str, failure: Failure, cas: usize, now: Timestamp) {
        let (text, span) = (failure.said(), self.span());
        self.memory.failed(failure, span, cas, now, chance());
        let served = if self.held.is_some() { "the one that is held" } else { "one that nobody trusts" };
        let next = self.next(now).at;
        tracing::warn!(name, trouble = text, served, %next, "no certificate was obtained");
    }

    pub(super) fn told(
        &mut self,
        name: &str,
        answer: Result<Option<(Window, SignedDuration)>, Failure>,
        now: Timestamp,
    ) {
        let Some(span) = self.span() else { return };
        let (window, again) = match answer {
            Ok(Some((window, again))) => (Some(window), again),
            Ok(None) => (None, SignedDuration::MAX),
            // The CA's last suggestion stands, and failing to get a new one is no failure of the
            // certificate.
            Err(failure) => {
                tracing::debug!(name, trouble = failure.text, "the CA did not say when to renew");
                (self.memory.window, SignedDuration::from_mins(10))
            }
        };
        self.memory.told(span, window, again, now, chance());
    }

    /// Logs every hour that the certificate has expired or is about to, or cannot be obtained. It
    /// is served all the same.
    pub(super) fn remind(&mut self, name: &str, now: Timestamp) {
        let state = self.state(now);
        let loud = matches!(state, State::Degraded | State::Expired | State::Refused);
        if !loud || self.reminded.is_some_and(|last| now < last + REMIND_EVERY) {
            return;
        }
        self.reminded = Some(now);
        let until = self.held.as_ref().map(|held| held.not_after.to_string());
        let trouble = self.memory.last_failure.as_ref().map_or("none yet", |failed| failed.text.as_str());
        tracing::error!(
            name,
            until,
            trouble,
            "certificate {}; `tenantd certs doctor` says more",
            said(state)
        );
    }
}

fn said(state: State) -> &'static str {
    match state {
        State::Expired => "has expired; it is served, and clients refuse it",
        State::Refused => "cannot be obtained",
        _ => "is in the last twentieth of its life and could not be renewed yet",
    }
}

/// Returns a random number that is at least 0 and below 1.
fn chance() -> f64 {
    f64::from(u32::from_be_bytes(random::bytes::<4>())) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_in_its_bounds() {
        assert!((0..1000).map(|_| chance()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
