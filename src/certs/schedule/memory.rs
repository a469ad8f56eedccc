//! What is remembered about one certificate across restarts, and how events change it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{DAY, Fruitless, HOUR, Held, LONGEST_PAUSE, ORDERS, REHEARSALS, Window, backoff, choose};

/// Failures in a row after which the next CA is tried.
const PATIENCE_WITH_A_CA: u32 = 3;

/// The challenge type with which control of a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::certs) enum Challenge {
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    #[serde(rename = "http-01")]
    Http,
}

/// The kind of a failure, by what is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::certs) enum Fault {
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
pub(in crate::certs) struct Failure {
    pub(in crate::certs) fault: Fault,
    /// What happened, worded for people.
    pub(in crate::certs) text: String,
    /// What to do, as separate sentences.
    pub(in crate::certs) help: Option<String>,
    pub(in crate::certs) retry_after: Option<SignedDuration>,
}

impl Failure {
    pub(in crate::certs) fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into(), help: None, retry_after: None }
    }

    pub(in crate::certs) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Returns what happened and what to do.
    pub(in crate::certs) fn said(&self) -> String {
        match &self.help {
            Some(help) => format!("{}. {help}", self.text),
            None => self.text.clone(),
        }
    }
}

/// A failure as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::certs) struct Failed {
    pub(in crate::certs) fault: Fault,
    pub(in crate::certs) text: String,
    pub(in crate::certs) at: Timestamp,
}

/// The memory of one certificate. Together with the certificate and the time it determines the
/// schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::certs) struct Memory {
    /// When to renew. Chosen once, so that a restart does not choose again.
    pub(in crate::certs) renew_at: Option<Timestamp>,
    /// The CA's suggestion.
    pub(in crate::certs) window: Option<Window>,
    /// When to ask the CA for its suggestion again.
    pub(in crate::certs) ask_at: Option<Timestamp>,
    /// Failures in a row.
    pub(in crate::certs) failures: u32,
    pub(in crate::certs) last_failure: Option<Failed>,
    /// The earliest time of the next order.
    pub(in crate::certs) not_before: Option<Timestamp>,
    /// Orders that led to nothing.
    pub(in crate::certs) fruitless: Fruitless,
    /// A CA could not validate the name. It is validated at staging, where there is one, before the
    /// next order.
    pub(in crate::certs) unproved: bool,
    /// Orders at staging that led to nothing.
    pub(in crate::certs) rehearsals: Fruitless,
    /// The index of the CA in use.
    pub(in crate::certs) ca: usize,
    /// The failures of that CA in a row.
    pub(in crate::certs) ca_failures: u32,
    /// The challenge type that succeeded last.
    pub(in crate::certs) challenge: Option<Challenge>,
}

impl Memory {
    /// Counts an order that is about to be placed, at staging or not.
    pub(in crate::certs) fn ordering(&mut self, staging: bool, now: Timestamp) {
        self.tally(staging).placed(now);
    }

    /// Takes back the count of an order that was not placed after all.
    pub(in crate::certs) fn not_placed(&mut self, staging: bool) {
        self.tally(staging).forget_last();
    }

    fn tally(&mut self, staging: bool) -> &mut Fruitless {
        if staging { &mut self.rehearsals } else { &mut self.fruitless }
    }

    /// Returns whether the caps allow an order now.
    pub(in crate::certs) fn may_order(&self, now: Timestamp) -> bool {
        self.cap_frees_at().is_none_or(|at| at <= now)
    }

    /// Records that the last order at staging led to a certificate.
    pub(in crate::certs) fn proved(&mut self, challenge: Challenge) {
        self.rehearsals.forget_last();
        self.unproved = false;
        self.challenge = Some(challenge);
    }

    /// Records that the last order led to a certificate.
    pub(in crate::certs) fn succeeded(
        &mut self,
        held: Held,
        challenge: Challenge,
        now: Timestamp,
        chance: f64,
    ) {
        self.fruitless.forget_last();
        self.unproved = false;
        self.challenge = Some(challenge);
        self.window = None;
        self.renew_at = Some(choose(held, None, now, chance));
        self.ask_at = Some(now);
        self.forget_failures();
        self.ca = 0;
    }

    /// Records a failed attempt. `cas` is the number of CAs to choose from.
    pub(in crate::certs) fn failed(
        &mut self,
        failure: Failure,
        held: Option<Held>,
        cas: usize,
        now: Timestamp,
        chance: f64,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.unproved |= failure.fault == Fault::Validation;
        self.ca_failures = self.ca_failures.saturating_add(1);
        let leave = match failure.fault {
            Fault::Refused | Fault::RateLimited => true,
            Fault::Unreachable | Fault::Validation | Fault::BadAnswer => {
                self.ca_failures >= PATIENCE_WITH_A_CA
            }
        };
        let mut pause = backoff(&failure, self.failures, held, now, chance);
        if leave && cas > 1 {
            let next = (self.ca + 1) % cas;
            // Try the next CA at once, but do not cycle through the list.
            if next != 0 {
                pause = pause.min(SignedDuration::from_secs(2));
            }
            (self.ca, self.ca_failures) = (next, 0);
        }
        self.not_before = Some(now + pause);
        self.last_failure = Some(Failed { fault: failure.fault, text: failure.said(), at: now });
    }

    /// Records the CA's renewal window, or that it gave none. `again` is how long it asks to wait
    /// before the next request.
    pub(in crate::certs) fn told(
        &mut self,
        held: Held,
        window: Option<Window>,
        again: SignedDuration,
        now: Timestamp,
        chance: f64,
    ) {
        self.ask_at = Some(now + again.clamp(SignedDuration::from_mins(1), DAY));
        if window != self.window {
            self.window = window;
            self.renew_at = Some(choose(held, window, now, chance));
        }
    }

    /// Schedules a renewal now for an operator. Pauses are dropped, but the caps still apply.
    pub(in crate::certs) fn renew_now(&mut self, now: Timestamp) {
        self.renew_at = Some(now);
        self.forget_failures();
    }

    fn forget_failures(&mut self) {
        self.failures = 0;
        self.ca_failures = 0;
        self.last_failure = None;
        self.not_before = None;
    }

    /// Corrects impossible values, and times so far ahead that they would never be reached, as
    /// after a jump of the clock.
    pub(in crate::certs) fn mend(&mut self, now: Timestamp, cas: usize) {
        let furthest = now + LONGEST_PAUSE + HOUR * 3;
        for moment in [&mut self.not_before, &mut self.ask_at] {
            *moment = moment.map(|at| at.min(furthest));
        }
        self.fruitless.mend(now);
        self.rehearsals.mend(now);
        if self.ca >= cas {
            self.ca = 0;
        }
    }

    /// Returns when the caps allow the next order, if they do not allow it now.
    pub(super) fn cap_frees_at(&self) -> Option<Timestamp> {
        self.fruitless.frees_at(ORDERS).max(self.rehearsals.frees_at(REHEARSALS))
    }
}
