//! When to do what for one automatic certificate: pure, with clock and chance passed in.
//!
//! All timing is a fraction of the certificate's life; what the CA suggests (ARI, RFC 9773) stands above it, and the
//! last twentieth of the life above that. The moment of renewal is chosen once and remembered. Orders that led to
//! nothing are counted, across restarts, so that neither a crash loop nor a broken firewall eats a CA's rate limits.

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
/// Nothing waits longer than this without looking again, whatever a CA or a clock says.
const LONGEST_PAUSE: SignedDuration = DAY;
/// Shorter lives than this get half of it for attempts to renew instead of a third.
const SHORT_LIFE: SignedDuration = SignedDuration::from_hours(10 * 24);
/// Orders of one certificate that may lead to nothing.
const ORDERS: Caps = Caps { an_hour: 5, a_day: 20 };
/// The same at staging, whose limits are wide.
const REHEARSALS: Caps = Caps { an_hour: 20, a_day: 100 };

/// The life of the certificate that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// When the CA would like to see a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// What to do next, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) step: Step,
    pub(super) at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Order a certificate.
    Order,
    /// Ask the CA for its window.
    AskWindow,
}

/// How a certificate is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// None yet: a self-signed one is served.
    Bootstrap,
    /// An order is under way.
    Ordering,
    Valid,
    /// The last attempt failed; another will be made.
    Backoff,
    /// The CA or the folder refuses, and nothing will change that but the operator.
    Refused,
    /// Less than a twentieth of its life is left.
    Degraded,
    /// Served all the same.
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

    /// From here on the certificate is renewed whatever a CA suggests.
    pub(super) fn emergency(self) -> Timestamp {
        self.until - self.life() / 20
    }
}

/// What comes next.
pub(super) fn next(held: Option<Held>, memory: &Memory, now: Timestamp) -> Next {
    let not_before = memory.not_before.max(memory.cap_frees_at());
    let due = due(held, memory, now);
    let order = Next { step: Step::Order, at: not_before.map_or(due, |not_before| due.max(not_before)) };
    match held.and(memory.ask_at) {
        Some(at) if at < order.at => Next { step: Step::AskWindow, at },
        _ => order,
    }
}

/// When an order would be placed if nothing kept us from it.
fn due(held: Option<Held>, memory: &Memory, now: Timestamp) -> Timestamp {
    let Some(held) = held else { return now };
    let emergency = held.emergency();
    memory.renew_at.map_or(emergency, |chosen| chosen.min(emergency))
}

/// How it stands.
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

/// Chooses the moment of renewal: a point within the CA's window if it makes sense, else within ours. `chance` is at
/// least 0 and below 1.
pub(super) fn choose(held: Held, window: Option<Window>, now: Timestamp, chance: f64) -> Timestamp {
    let makes_sense =
        |window: &Window| window.start < window.end && held.from < window.end && window.end <= held.until;
    let window = window.filter(makes_sense);
    let Window { start, end } = window.unwrap_or_else(|| our_window(held));
    let chosen = start + fraction(end.duration_since(start), chance);
    // What is overdue is so for many at once, after an outage or at a revocation.
    let soon = now + fraction((held.life() / 100).min(HOUR), chance);
    let chosen = if chosen < now { soon.min(held.emergency().max(now)) } else { chosen };
    // A CA that always suggests the past would have us order without end.
    chosen.max(held.from + held.life() / 20)
}

/// A third of the life is left for attempts, of a short life half.
fn our_window(held: Held) -> Window {
    let life = held.life();
    let left = if life < SHORT_LIFE { life / 2 } else { life / 3 };
    let start = held.until - left;
    Window { start, end: start + life / 20 }
}

/// The pause after so many failures in a row.
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
    // Whoever is not reached is not burdened: after a boot the network is often a few seconds behind us.
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
