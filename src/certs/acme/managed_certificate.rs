//! One automatic certificate: the certificate held, its renewal state, and the job in progress.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::RenewalReply;
use super::jitter::jitter;
use super::order_attempt::ObtainedCertificate;
use super::shared_state::{AskedCertificate, SharedState, UNKNOWN_VERSION};
use crate::certs::schedule::{
    self, CertificateLifetime, CertificateState, IssuanceFailure, RenewalState, RenewalStep, RenewalWindow,
    ScheduledStep,
};
use crate::certs::server_certificate::ServerCertificate;
use crate::store::LeaseHolder;

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
    pub(super) shared: SharedView,
}

/// What this gateway knows of what gateways share about a certificate.
#[derive(Debug)]
pub(super) struct SharedView {
    pub(super) version: i64,
    /// Whether it was read since the start; until then nothing is ordered.
    pub(super) is_read: bool,
    /// The gateway that has the lease, and until when.
    pub(super) holder: Option<(LeaseHolder, Timestamp)>,
    /// An operator asked for an order that another gateway may have to let pass first.
    pub(super) is_requested: bool,
    /// Why it cannot be used.
    pub(super) problem: Option<String>,
}

impl Default for SharedView {
    fn default() -> Self {
        Self { version: UNKNOWN_VERSION, is_read: false, holder: None, is_requested: false, problem: None }
    }
}

impl SharedView {
    /// Returns when this gateway may take a step; `None` if nothing but a change of what is shared
    /// allows it.
    pub(super) fn free_at(&self, now: Timestamp) -> Option<Timestamp> {
        let is_usable = self.is_read && self.problem.is_none();
        is_usable.then(|| self.holder.as_ref().map_or(now, |(_, until)| *until))
    }
}

impl ManagedCertificate {
    pub(super) fn lifetime(&self) -> Option<CertificateLifetime> {
        self.current.as_ref().map(|held| held.lifetime())
    }

    /// Returns what to read of what gateways share.
    pub(super) fn ask(&self, name: &str) -> AskedCertificate {
        let SharedView { version, is_read, holder, .. } = &self.shared;
        // A lease is extended without a new version.
        let known_version = if holder.is_some() { UNKNOWN_VERSION } else { *version };
        let is_first = !is_read && *version == UNKNOWN_VERSION;
        let not_before = self.current.as_ref().map(|held| held.not_before);
        let local = is_first.then(|| (not_before, self.renewal.clone()));
        AskedCertificate { name: name.to_owned(), known_version, local }
    }

    /// Takes over what gateways share. Returns the PEM of the certificate, if it is served from now
    /// on.
    pub(super) fn adopt(&mut self, state: SharedState, now: Timestamp) -> Option<String> {
        let SharedState { name, version, certificate, pem, renewal, holder, problem, .. } = state;
        self.shared.version = version;
        self.shared.holder = holder.map(|holder| {
            let left = SignedDuration::try_from_secs_f64(holder.seconds_left.min(60.0)).unwrap_or_default();
            (holder, now + left)
        });
        self.shared.problem = problem;
        if self.shared.problem.is_none() {
            self.renewal = renewal;
            if self.shared.is_requested {
                self.renewal.request_renewal(now);
            }
        }
        let certificate =
            certificate.filter(|shared| self.current.as_ref().is_none_or(|held| shared.replaces(held)))?;
        tracing::info!(
            name, serial = certificate.serial, until = %certificate.not_after, issuer = certificate.issuer,
            "the gateway serves a certificate from the database that gateways share"
        );
        self.current = Some(certificate);
        self.last_reminder = None;
        pem
    }

    /// Corrects what is remembered, if that cannot be, or is about an earlier certificate.
    pub(super) fn repair(&mut self, now: Timestamp, cas: usize) {
        self.renewal.repair(now, cas);
        if let Some(held) = self.lifetime() {
            self.renewal.fit(held, now, jitter);
        }
    }

    pub(super) fn next_step(&self, now: Timestamp) -> ScheduledStep {
        schedule::next_step(self.lifetime(), &self.renewal, now)
    }

    pub(super) fn state(&self, now: Timestamp) -> CertificateState {
        let is_ordering = self.is_ordering() || self.orderer().is_some();
        schedule::certificate_state(self.lifetime(), &self.renewal, is_ordering, now)
    }

    /// Returns whether this gateway orders it.
    pub(super) fn is_ordering(&self) -> bool {
        self.running_step == Some(RenewalStep::Order)
    }

    /// Returns the name of another gateway that orders it.
    pub(super) fn orderer(&self) -> Option<&str> {
        let (holder, _) = self.shared.holder.as_ref().filter(|(holder, _)| holder.is_ordering)?;
        Some(&holder.node)
    }

    pub(super) fn install(&mut self, name: &str, obtained: ObtainedCertificate, now: Timestamp) {
        let certificate = obtained.certificate;
        self.renewal.apply_success(certificate.lifetime(), obtained.challenge, now, jitter());
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
