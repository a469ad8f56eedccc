//! The schedule of one automatic certificate. Pure: clock and randomness are passed in.
//!
//! All timing is a fraction of the certificate's lifetime. The CA's suggestion (ARI, RFC 9773)
//! overrides it, and the last twentieth of the lifetime overrides that. The time of renewal is
//! chosen once and remembered. Fruitless orders are counted across restarts, so that neither a
//! crash loop nor a broken firewall uses up a CA's rate limits.

mod failed_orders;
mod renewal_state;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use failed_orders::{FailedOrders, OrderCaps};
pub(super) use renewal_state::{ChallengeKind, FailureKind, IssuanceFailure, RenewalState};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// The longest pause before the schedule looks again, whatever a CA or a clock says.
const MAX_PAUSE: SignedDuration = DAY;
/// Certificates with a shorter lifetime are renewed after half of it, others after two thirds.
const SHORT_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 24);
/// How many fruitless orders one certificate may cause.
const ORDER_CAPS: OrderCaps = OrderCaps { per_hour: 5, per_day: 20 };
/// How many fruitless orders it may cause at staging, where limits are higher.
const STAGING_ORDER_CAPS: OrderCaps = OrderCaps { per_hour: 20, per_day: 100 };

/// The validity of the certificate that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CertificateLifetime {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// The window in which the CA suggests a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RenewalWindow {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// The next step, and when to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScheduledStep {
    pub(super) step: RenewalStep,
    pub(super) at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewalStep {
    /// Order a certificate.
    Order,
    /// Ask the CA for its renewal window.
    FetchRenewalInfo,
}

/// The state of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateState {
    /// There is none yet; a self-signed one is served.
    #[serde(rename = "bootstrap")]
    Placeholder,
    /// An order is under way.
    Ordering,
    /// It is valid and needs no attention.
    Valid,
    /// The last attempt failed; another will be made.
    Backoff,
    /// The CA or the folder refuses, and only an operator can change that.
    Refused,
    /// Less than a twentieth of its lifetime is left.
    Degraded,
    /// It has expired, and is served all the same.
    Expired,
}

impl std::fmt::Display for CertificateState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Placeholder => "bootstrap",
            Self::Ordering => "ordering",
            Self::Valid => "valid",
            Self::Backoff => "backoff",
            Self::Refused => "refused",
            Self::Degraded => "degraded",
            Self::Expired => "expired",
        })
    }
}

impl CertificateLifetime {
    fn duration(self) -> SignedDuration {
        self.not_after.duration_since(self.not_before).max(SignedDuration::from_secs(1))
    }

    /// Returns the time from which on the certificate is renewed whatever a CA suggests.
    pub(super) fn emergency_at(self) -> Timestamp {
        self.not_after - self.duration() / 20
    }
}

/// Returns the next step.
pub(super) fn next_step(
    held: Option<CertificateLifetime>,
    renewal: &RenewalState,
    now: Timestamp,
) -> ScheduledStep {
    let not_before = renewal.not_before.max(renewal.caps_allow_at());
    let due = renewal_due_at(held, renewal, now);
    let order = ScheduledStep {
        step: RenewalStep::Order,
        at: not_before.map_or(due, |not_before| due.max(not_before)),
    };
    match held.and(renewal.fetch_info_at) {
        Some(at) if at < order.at => ScheduledStep { step: RenewalStep::FetchRenewalInfo, at },
        _ => order,
    }
}

/// Returns when an order would be placed if no pause or cap applied.
fn renewal_due_at(held: Option<CertificateLifetime>, renewal: &RenewalState, now: Timestamp) -> Timestamp {
    let Some(held) = held else { return now };
    let emergency = held.emergency_at();
    renewal.renew_at.map_or(emergency, |chosen| chosen.min(emergency))
}

/// Returns the state of a certificate.
pub(super) fn certificate_state(
    held: Option<CertificateLifetime>,
    renewal: &RenewalState,
    ordering: bool,
    now: Timestamp,
) -> CertificateState {
    match held {
        Some(held) if held.not_after <= now => CertificateState::Expired,
        _ if ordering => CertificateState::Ordering,
        _ if renewal.last_failure.as_ref().is_some_and(|failed| failed.fault == FailureKind::Refused) => {
            CertificateState::Refused
        }
        Some(held) if held.emergency_at() <= now => CertificateState::Degraded,
        _ if renewal.last_failure.is_some() => CertificateState::Backoff,
        Some(_) => CertificateState::Valid,
        None => CertificateState::Placeholder,
    }
}

/// Chooses the time of renewal: a point within the CA's window if that is plausible, else within
/// ours. `chance` is at least 0 and below 1.
pub(super) fn choose_renewal_time(
    held: CertificateLifetime,
    window: Option<RenewalWindow>,
    now: Timestamp,
    chance: f64,
) -> Timestamp {
    let is_plausible = |window: &RenewalWindow| {
        window.start < window.end && held.not_before < window.end && window.end <= held.not_after
    };
    let window = window.filter(is_plausible);
    let RenewalWindow { start, end } = window.unwrap_or_else(|| default_window(held));
    let chosen = start + scale_duration(end.duration_since(start), chance);
    // After an outage or at a revocation many certificates are overdue at once, so spread them.
    let spread = now + scale_duration((held.duration() / 100).min(HOUR), chance);
    let chosen = if chosen < now { spread.min(held.emergency_at().max(now)) } else { chosen };
    // A CA that always suggests the past must not cause endless orders.
    chosen.max(held.not_before + held.duration() / 20)
}

/// Leaves a third of the lifetime for attempts, or half of a short lifetime.
fn default_window(held: CertificateLifetime) -> RenewalWindow {
    let life = held.duration();
    let left = if life < SHORT_LIFETIME { life / 2 } else { life / 3 };
    let start = held.not_after - left;
    RenewalWindow { start, end: start + life / 20 }
}

/// Returns the pause after `failures` failures in a row.
pub(super) fn backoff_pause(
    failure: &IssuanceFailure,
    failures: u32,
    held: Option<CertificateLifetime>,
    now: Timestamp,
    chance: f64,
) -> SignedDuration {
    let minutes = |table: &[i64]| {
        let step = (failures.max(1) as usize - 1).min(table.len() - 1);
        SignedDuration::from_secs(table[step])
    };
    // Retry an unreachable CA soon, which does not burden it: after a boot the network is often a
    // few seconds late.
    let pause = match (failure.kind, failure.retry_after) {
        (_, Some(wait)) => wait.clamp(SignedDuration::from_secs(1), MAX_PAUSE),
        (FailureKind::Unreachable, None) => {
            minutes(&[2, 5, 15, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600])
        }
        (FailureKind::RateLimited, None) => HOUR,
        (FailureKind::Refused, None) => HOUR * 6,
        (FailureKind::Validation | FailureKind::BadAnswer, None) => {
            minutes(&[60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600])
        }
    };
    let jitter = match failure.retry_after {
        Some(_) => 1.0 + chance / 10.0,
        None => 0.9 + chance / 5.0,
    };
    let pause = scale_duration(pause, jitter);
    let was_asked_to_wait = failure.retry_after.is_some() || failure.kind == FailureKind::RateLimited;
    match held {
        Some(held) if !was_asked_to_wait => pause.min((held.not_after.duration_since(now) / 10).max(MINUTE)),
        _ => pause,
    }
}

fn scale_duration(of: SignedDuration, chance: f64) -> SignedDuration {
    let seconds = (of.as_secs_f64() * chance).clamp(0.0, MAX_PAUSE.as_secs_f64() * 400.0);
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::ZERO)
}
