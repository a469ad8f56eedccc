//! What is remembered about one certificate across restarts, and how events change it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    CertificateLifetime, DAY, FailedOrders, HOUR, MAX_PAUSE, ORDER_CAPS, RenewalWindow, STAGING_ORDER_CAPS,
    backoff_pause, choose_renewal_time,
};

/// Failures in a row after which the next CA is tried.
const MAX_CA_FAILURES: u32 = 3;

/// The challenge type with which control of a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::certs) enum ChallengeKind {
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    #[serde(rename = "http-01")]
    Http,
}

impl ChallengeKind {
    /// Returns the name of the type (RFC 8555 section 8.3, RFC 8737).
    pub(in crate::certs) fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn => "tls-alpn-01",
            Self::Http => "http-01",
        }
    }
}

/// The kind of a failure, by what is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::certs) enum FailureKind {
    /// The CA cannot be reached, or does not work.
    Unreachable,
    /// The CA did not find the response to its challenge.
    Validation,
    /// The CA asks for a pause (a rate limit).
    RateLimited,
    /// No certificate can be obtained until an operator changes something.
    Refused,
    /// The CA's response is not the certificate that was ordered.
    BadAnswer,
}

/// A failure of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::certs) struct IssuanceFailure {
    pub(in crate::certs) kind: FailureKind,
    /// What happened, worded for people.
    pub(in crate::certs) text: String,
    /// What to do, as separate sentences.
    pub(in crate::certs) help: Option<String>,
    pub(in crate::certs) retry_after: Option<SignedDuration>,
}

impl IssuanceFailure {
    pub(in crate::certs) fn new(fault: FailureKind, text: impl Into<String>) -> Self {
        Self { kind: fault, text: text.into(), help: None, retry_after: None }
    }

    pub(in crate::certs) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Returns what happened and what to do.
    pub(in crate::certs) fn message(&self) -> String {
        match &self.help {
            Some(help) => format!("{}. {help}", self.text),
            None => self.text.clone(),
        }
    }
}

/// A failure as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::certs) struct LastFailure {
    pub(in crate::certs) fault: FailureKind,
    pub(in crate::certs) text: String,
    pub(in crate::certs) at: Timestamp,
}

/// What is remembered of one certificate, in `state.json`. Together with the certificate and the
/// time it determines the schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::certs) struct RenewalState {
    /// When to renew. Chosen once, so that a restart does not choose again.
    pub(in crate::certs) renew_at: Option<Timestamp>,
    /// From when on the certificate is valid for which that was chosen; states of earlier versions do
    /// not say.
    #[serde(rename = "valid_from")]
    pub(in crate::certs) chosen_for: Option<Timestamp>,
    /// The CA's suggestion.
    pub(in crate::certs) window: Option<RenewalWindow>,
    /// When to ask the CA for its suggestion again.
    #[serde(rename = "ask_at")]
    pub(in crate::certs) fetch_info_at: Option<Timestamp>,
    /// Failures in a row.
    pub(in crate::certs) failures: u32,
    pub(in crate::certs) last_failure: Option<LastFailure>,
    /// The earliest time of the next order.
    pub(in crate::certs) not_before: Option<Timestamp>,
    /// Orders that led to nothing.
    #[serde(rename = "fruitless")]
    pub(in crate::certs) failed_orders: FailedOrders,
    /// A CA could not validate the name. It is validated at staging, where there is one, before the
    /// next order.
    #[serde(rename = "unproved")]
    pub(in crate::certs) needs_staging: bool,
    /// Orders at staging that led to nothing.
    #[serde(rename = "rehearsals")]
    pub(in crate::certs) failed_staging_orders: FailedOrders,
    /// The index of the CA in use.
    pub(in crate::certs) ca: usize,
    /// The failures of that CA in a row.
    pub(in crate::certs) ca_failures: u32,
    /// The challenge type that succeeded last.
    pub(in crate::certs) challenge: Option<ChallengeKind>,
}

impl RenewalState {
    /// Counts an order that is about to be placed, at staging or not.
    pub(in crate::certs) fn count_order(&mut self, staging: bool, now: Timestamp) {
        self.orders_mut(staging).push(now);
    }

    /// Takes back the count of an order that was not placed after all.
    pub(in crate::certs) fn uncount_order(&mut self, staging: bool) {
        self.orders_mut(staging).pop();
    }

    fn orders_mut(&mut self, staging: bool) -> &mut FailedOrders {
        if staging { &mut self.failed_staging_orders } else { &mut self.failed_orders }
    }

    /// Returns whether the caps allow an order now.
    pub(in crate::certs) fn is_order_allowed(&self, now: Timestamp) -> bool {
        self.caps_allow_at().is_none_or(|at| at <= now)
    }

    /// Records that the last order at staging led to a certificate.
    pub(in crate::certs) fn apply_staging_success(&mut self, challenge: ChallengeKind) {
        self.failed_staging_orders.pop();
        self.needs_staging = false;
        self.challenge = Some(challenge);
    }

    /// Records that the last order led to a certificate.
    pub(in crate::certs) fn apply_success(
        &mut self,
        held: CertificateLifetime,
        challenge: ChallengeKind,
        now: Timestamp,
        chance: f64,
    ) {
        self.challenge = Some(challenge);
        self.begin(held, now, chance);
    }

    /// Begins anew if what is remembered is about an earlier certificate: a gateway stored its successor,
    /// and ended before it stored what followed from that.
    pub(in crate::certs) fn fit(
        &mut self,
        held: CertificateLifetime,
        now: Timestamp,
        chance: impl FnOnce() -> f64,
    ) {
        if self.chosen_for.is_some_and(|earlier| earlier < held.not_before) {
            self.begin(held, now, chance());
        }
    }

    /// Begins with a certificate to which the last order led.
    fn begin(&mut self, held: CertificateLifetime, now: Timestamp, chance: f64) {
        self.failed_orders.pop();
        self.needs_staging = false;
        self.window = None;
        self.choose(held, now, chance);
        self.fetch_info_at = Some(now);
        self.reset_failures();
        self.ca = 0;
    }

    fn choose(&mut self, held: CertificateLifetime, now: Timestamp, chance: f64) {
        self.renew_at = Some(choose_renewal_time(held, self.window, now, chance));
        self.chosen_for = Some(held.not_before);
    }

    /// Records a failed attempt. `cas` is the number of CAs to choose from.
    pub(in crate::certs) fn apply_failure(
        &mut self,
        failure: IssuanceFailure,
        held: Option<CertificateLifetime>,
        cas: usize,
        now: Timestamp,
        chance: f64,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.needs_staging |= failure.kind == FailureKind::Validation;
        self.ca_failures = self.ca_failures.saturating_add(1);
        let should_switch_ca = match failure.kind {
            FailureKind::Refused | FailureKind::RateLimited => true,
            FailureKind::Unreachable | FailureKind::Validation | FailureKind::BadAnswer => {
                self.ca_failures >= MAX_CA_FAILURES
            }
        };
        let mut pause = backoff_pause(&failure, self.failures, held, now, chance);
        if should_switch_ca && cas > 1 {
            let next = (self.ca + 1) % cas;
            // Try the next CA at once, but do not cycle through the list.
            if next != 0 {
                pause = pause.min(SignedDuration::from_secs(2));
            }
            (self.ca, self.ca_failures) = (next, 0);
        }
        self.not_before = Some(now + pause);
        self.last_failure = Some(LastFailure { fault: failure.kind, text: failure.message(), at: now });
    }

    /// Records the CA's renewal window, or that it gave none. `retry_after` is how long it asks to
    /// wait before the next request.
    pub(in crate::certs) fn apply_renewal_info(
        &mut self,
        held: CertificateLifetime,
        window: Option<RenewalWindow>,
        retry_after: SignedDuration,
        now: Timestamp,
        chance: f64,
    ) {
        self.fetch_info_at = Some(now + retry_after.clamp(SignedDuration::from_mins(1), DAY));
        if window != self.window {
            self.window = window;
            self.choose(held, now, chance);
        }
    }

    /// Schedules a renewal now for an operator. Pauses are dropped, but the caps still apply.
    pub(in crate::certs) fn request_renewal(&mut self, now: Timestamp) {
        self.renew_at = Some(now);
        self.reset_failures();
    }

    fn reset_failures(&mut self) {
        self.failures = 0;
        self.ca_failures = 0;
        self.last_failure = None;
        self.not_before = None;
    }

    /// Corrects impossible values, and times so far ahead that they would never be reached, as
    /// after a jump of the clock.
    pub(in crate::certs) fn repair(&mut self, now: Timestamp, cas: usize) {
        let furthest = now + MAX_PAUSE + HOUR * 3;
        for moment in [&mut self.not_before, &mut self.fetch_info_at] {
            *moment = moment.map(|at| at.min(furthest));
        }
        self.failed_orders.prune(now);
        self.failed_staging_orders.prune(now);
        if self.ca >= cas {
            self.ca = 0;
        }
    }

    /// Returns when the caps allow the next order, if they do not allow it now.
    pub(super) fn caps_allow_at(&self) -> Option<Timestamp> {
        self.failed_orders
            .caps_allow_at(ORDER_CAPS)
            .max(self.failed_staging_orders.caps_allow_at(STAGING_ORDER_CAPS))
    }
}
