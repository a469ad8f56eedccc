//! One automatic certificate: the certificate held, its renewal state, and the job in progress.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::RenewalReply;
use super::order_attempt::ObtainedCertificate;
use crate::base::random;
use crate::certs::schedule::{
    self, CertificateLifetime, CertificateState, IssuanceFailure, RenewalState, RenewalStep, RenewalWindow,
    ScheduledStep,
};
use crate::certs::server_certificate::ServerCertificate;

/// How often the log repeats that a certificate is about to expire or has expired.
const REMINDER_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// One certificate: what is held, what is remembered, and what is in progress.
#[derive(Default)]
pub(super) struct ManagedCertificate {
    pub(super) current: Option<Arc<ServerCertificate>>,
    pub(super) renewal: RenewalState,
    pub(super) running_step: Option<RenewalStep>,
    pub(super) last_reminder: Option<Timestamp>,
    /// An operator asked for a renewal while a job was in progress; it follows after that job.
    pub(super) renew_after_running: bool,
    /// The operators who wait for the outcome of the next order.
    pub(super) pending_replies: Vec<RenewalReply>,
}

impl ManagedCertificate {
    pub(super) fn lifetime(&self) -> Option<CertificateLifetime> {
        self.current
            .as_ref()
            .map(|held| CertificateLifetime { not_before: held.not_before, not_after: held.not_after })
    }

    pub(super) fn next_step(&self, now: Timestamp) -> ScheduledStep {
        schedule::next_step(self.lifetime(), &self.renewal, now)
    }

    pub(super) fn state(&self, now: Timestamp) -> CertificateState {
        schedule::certificate_state(
            self.lifetime(),
            &self.renewal,
            self.running_step == Some(RenewalStep::Order),
            now,
        )
    }

    pub(super) fn install(&mut self, name: &str, obtained: ObtainedCertificate, now: Timestamp) {
        let certificate = obtained.certificate;
        let held =
            CertificateLifetime { not_before: certificate.not_before, not_after: certificate.not_after };
        self.renewal.apply_success(held, obtained.challenge, now, jitter());
        tracing::info!(
            name, serial = certificate.serial, until = %certificate.not_after, issuer = certificate.issuer,
            way = obtained.challenge.as_str(), "the gateway serves a new certificate"
        );
        self.current = Some(Arc::new(certificate));
        self.last_reminder = None;
    }

    pub(super) fn apply_failure(&mut self, name: &str, failure: IssuanceFailure, cas: usize, now: Timestamp) {
        let (text, lifetime) = (failure.message(), self.lifetime());
        self.renewal.apply_failure(failure, lifetime, cas, now, jitter());
        let served = if self.current.is_some() { "the current one" } else { "a self-signed one" };
        let next = self.next_step(now).at;
        tracing::warn!(name, trouble = text, served, %next, "no certificate was obtained");
    }

    pub(super) fn apply_renewal_info(
        &mut self,
        name: &str,
        answer: Result<Option<(RenewalWindow, SignedDuration)>, IssuanceFailure>,
        now: Timestamp,
    ) {
        let Some(lifetime) = self.lifetime() else { return };
        let (window, retry_after) = match answer {
            Ok(Some((window, retry_after))) => (Some(window), retry_after),
            Ok(None) => (None, SignedDuration::MAX),
            // The CA's last suggestion stands, and failing to get a new one is no failure of the
            // certificate.
            Err(failure) => {
                tracing::debug!(name, trouble = failure.text, "the CA did not say when to renew");
                (self.renewal.window, SignedDuration::from_mins(10))
            }
        };
        self.renewal.apply_renewal_info(lifetime, window, retry_after, now, jitter());
    }

    /// Logs every hour that the certificate has expired or is about to, or cannot be obtained. It
    /// is served all the same.
    pub(super) fn log_expiry(&mut self, name: &str, now: Timestamp) {
        let state = self.state(now);
        let needs_attention = matches!(
            state,
            CertificateState::Degraded | CertificateState::Expired | CertificateState::Refused
        );
        if !needs_attention || self.last_reminder.is_some_and(|last| now < last + REMINDER_INTERVAL) {
            return;
        }
        self.last_reminder = Some(now);
        let until = self.current.as_ref().map(|held| held.not_after.to_string());
        let trouble = self.renewal.last_failure.as_ref().map_or("none yet", |failed| failed.text.as_str());
        tracing::error!(
            name,
            until,
            trouble,
            "certificate {}; `tenantd certs doctor` says more",
            describe_state(state)
        );
    }
}

fn describe_state(state: CertificateState) -> &'static str {
    match state {
        CertificateState::Expired => "has expired; the gateway still serves it, and clients refuse it",
        CertificateState::Refused => "cannot be obtained",
        _ => "is in the last twentieth of its lifetime and could not be renewed yet",
    }
}

/// Returns a random number that is at least 0 and below 1.
fn jitter() -> f64 {
    f64::from(u32::from_be_bytes(random::bytes::<4>())) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_in_its_bounds() {
        assert!((0..1000).map(|_| jitter()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
