//! The schedule of one automatic certificate. Pure: clock and randomness are passed in.
//!
//! All timing is a fraction of the certificate's lifetime. The CA's suggestion (ARI, RFC 9773)
//! overrides it, and the last twentieth of the lifetime overrides that. The time of renewal is
//! chosen once and remembered. Fruitless orders are counted across restarts, so that neither a
//! crash loop nor a broken firewall uses up a CA's rate limits.

mod fruitless;
mod memory;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use fruitless::{Caps, Fruitless};
pub(super) use memory::{Challenge, Failure, Fault, Memory};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// The longest pause before the schedule looks again, whatever a CA or a clock says.
const LONGEST_PAUSE: SignedDuration = DAY;
/// Certificates with a shorter lifetime are renewed after half of it, others after two thirds.
const SHORT_LIFE: SignedDuration = SignedDuration::from_hours(10 * 24);
/// How many fruitless orders one certificate may cause.
const ORDERS: Caps = Caps { an_hour: 5, a_day: 20 };
/// How many fruitless orders it may cause at staging, where limits are higher.
const REHEARSALS: Caps = Caps { an_hour: 20, a_day: 100 };

/// The validity of the certificate that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// The window in which the CA suggests a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// The next step, and when to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) step: Step,
    pub(super) at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Order a certificate.
    Order,
    /// Ask the CA for its renewal window.
    AskWindow,
}

/// The state of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is none yet; a self-signed one is served.
    Bootstrap,
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

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bootstrap => "bootstrap",
            Self::Ordering => "ordering",
            Self::Valid => "valid",
            Self::Backoff => "backoff",
            Self::Refused => "refused",
            Self::Degraded => "degraded",
            Self::Expired => "expired",
        })
    }
}

impl Held {
    fn life(self) -> SignedDuration {
        self.until.duration_since(self.from).max(SignedDuration::from_secs(1))
    }

    /// Returns the time from which on the certificate is renewed whatever a CA suggests.
    pub(super) fn emergency(self) -> Timestamp {
        self.until - self.life() / 20
    }
}

/// Returns the next step.
pub(super) fn next(held: Option<Held>, memory: &Memory, now: Timestamp) -> Next {
    let not_before = memory.not_before.max(memory.cap_frees_at());
    let due = due(held, memory, now);
    let order = Next { step: Step::Order, at: not_before.map_or(due, |not_before| due.max(not_before)) };
    match held.and(memory.ask_at) {
        Some(at) if at < order.at => Next { step: Step::AskWindow, at },
        _ => order,
    }
}

/// Returns when an order would be placed if no pause or cap applied.
fn due(held: Option<Held>, memory: &Memory, now: Timestamp) -> Timestamp {
    let Some(held) = held else { return now };
    let emergency = held.emergency();
    memory.renew_at.map_or(emergency, |chosen| chosen.min(emergency))
}

/// Returns the state of a certificate.
pub(super) fn state(held: Option<Held>, memory: &Memory, ordering: bool, now: Timestamp) -> State {
    match held {
        Some(held) if held.until <= now => State::Expired,
        _ if ordering => State::Ordering,
        _ if memory.last_failure.as_ref().is_some_and(|failed| failed.fault == Fault::Refused) => {
            State::Refused
        }
        Some(held) if held.emergency() <= now => State::Degraded,
        _ if memory.last_failure.is_some() => State::Backoff,
        Some(_) => State::Valid,
        None => State::Bootstrap,
    }
}

/// Chooses the time of renewal: a point within the CA's window if that is plausible, else within
/// ours. `chance` is at least 0 and below 1.
pub(super) fn choose(held: Held, window: Option<Window>, now: Timestamp, chance: f64) -> Timestamp {
    let makes_sense =
        |window: &Window| window.start < window.end && held.from < window.end && window.end <= held.until;
    let window = window.filter(makes_sense);
    let Window { start, end } = window.unwrap_or_else(|| our_window(held));
    let chosen = start + fraction(end.duration_since(start), chance);
    // After an outage or at a revocation many certificates are overdue at once, so spread them.
    let soon = now + fraction((held.life() / 100).min(HOUR), chance);
    let chosen = if chosen < now { soon.min(held.emergency().max(now)) } else { chosen };
    // A CA that always suggests the past must not cause endless orders.
    chosen.max(held.from + held.life() / 20)
}

/// Leaves a third of the lifetime for attempts, or half of a short lifetime.
fn our_window(held: Held) -> Window {
    let life = held.life();
    let left = if life < SHORT_LIFE { life / 2 } else { life / 3 };
    let start = held.until - left;
    Window { start, end: start + life / 20 }
}

/// Returns the pause after `failures` failures in a row.
pub(super) fn backoff(
    failure: &Failure,
    failures: u32,
    held: Option<Held>,
    now: Timestamp,
    chance: f64,
) -> SignedDuration {
    let minutes = |table: &[i64]| {
        let step = (failures.max(1) as usize - 1).min(table.len() - 1);
        SignedDuration::from_secs(table[step])
    };
    // Retry an unreachable CA soon, which does not burden it: after a boot the network is often a
    // few seconds late.
    let pause = match (failure.fault, failure.retry_after) {
        (_, Some(asked)) => asked.clamp(SignedDuration::from_secs(1), LONGEST_PAUSE),
        (Fault::Unreachable, None) => minutes(&[2, 5, 15, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600]),
        (Fault::RateLimited, None) => HOUR,
        (Fault::Refused, None) => HOUR * 6,
        (Fault::Validation | Fault::BadAnswer, None) => {
            minutes(&[60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600])
        }
    };
    let jitter = match failure.retry_after {
        Some(_) => 1.0 + chance / 10.0,
        None => 0.9 + chance / 5.0,
    };
    let pause = fraction(pause, jitter);
    let asked = failure.retry_after.is_some() || failure.fault == Fault::RateLimited;
    match held {
        Some(held) if !asked => pause.min((held.until.duration_since(now) / 10).max(MINUTE)),
        _ => pause,
    }
}

fn fraction(of: SignedDuration, chance: f64) -> SignedDuration {
    let seconds = (of.as_secs_f64() * chance).clamp(0.0, LONGEST_PAUSE.as_secs_f64() * 400.0);
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::ZERO)
}
