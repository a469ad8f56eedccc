//! What is remembered of one certificate across restarts, and how events change it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{DAY, Fruitless, HOUR, Held, LONGEST_PAUSE, ORDERS, REHEARSALS, Window, backoff, choose};

/// A CA is left for the next one after so many failures in a row.
const PATIENCE_WITH_A_CA: u32 = 3;

/// How the right to a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::certs) enum Challenge {
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    #[serde(rename = "http-01")]
    Http,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::certs) enum Fault {
    /// The CA is not reached, or not well.
    Unreachable,
    /// The CA did not find its challenge answered.
    Validation,
    /// The CA asked for a pause.
    RateLimited,
    /// What was asked for will not be had: an operator must change something.
    Refused,
    /// What came is no certificate for us.
    BadAnswer,
}

/// A failure as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::certs) struct Failure {
    pub(in crate::certs) fault: Fault,
    /// What was found, for people.
    pub(in crate::certs) text: String,
    /// What to do, as sentences of their own.
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

    /// What was found and what to do.
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

/// What is remembered. Unknown to it are only the certificate itself and the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::certs) struct Memory {
    /// When to renew, chosen once: a restart doesn't roll the dice again.
    pub(in crate::certs) renew_at: Option<Timestamp>,
    /// The CA's suggestion, and when it wants to be asked again.
    pub(in crate::certs) window: Option<Window>,
    pub(in crate::certs) ask_at: Option<Timestamp>,
    /// In a row.
    pub(in crate::certs) failures: u32,
    pub(in crate::certs) last_failure: Option<Failed>,
    /// No order before this.
    pub(in crate::certs) not_before: Option<Timestamp>,
    /// Orders that led to nothing.
    pub(in crate::certs) fruitless: Fruitless,
    /// A CA could not see that the name is ours: it is proved at staging, where there is one, before the next order.
    pub(in crate::certs) unproved: bool,
    /// Orders at staging that led to nothing.
    pub(in crate::certs) rehearsals: Fruitless,
    /// Which CA of the list is asked, and its failures in a row.
    pub(in crate::certs) ca: usize,
    pub(in crate::certs) ca_failures: u32,
    /// What succeeded last.
    pub(in crate::certs) challenge: Option<Challenge>,
}

impl Memory {
    /// An order is about to be placed, at staging or not.
    pub(in crate::certs) fn ordering(&mut self, staging: bool, now: Timestamp) {
        self.tally(staging).placed(now);
    }

    /// The order was not placed after all.
    pub(in crate::certs) fn not_placed(&mut self, staging: bool) {
        self.tally(staging).forget_last();
    }

    fn tally(&mut self, staging: bool) -> &mut Fruitless {
        if staging { &mut self.rehearsals } else { &mut self.fruitless }
    }

    /// Whether one more order may be placed now.
    pub(in crate::certs) fn may_order(&self, now: Timestamp) -> bool {
        self.cap_frees_at().is_none_or(|at| at <= now)
    }

    /// The order at staging that was placed last brought a certificate.
    pub(in crate::certs) fn proved(&mut self, challenge: Challenge) {
        self.rehearsals.forget_last();
        self.unproved = false;
        self.challenge = Some(challenge);
    }

    /// The order that was placed last brought a certificate.
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

    /// An attempt failed. `cas` is how many there are to choose from.
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
            // The next one at once, but not round and round.
            if next != 0 {
                pause = pause.min(SignedDuration::from_secs(2));
            }
            (self.ca, self.ca_failures) = (next, 0);
        }
        self.not_before = Some(now + pause);
        self.last_failure = Some(Failed { fault: failure.fault, text: failure.said(), at: now });
    }

    /// The CA said when it would like to see a renewal, or nothing of use. `again` is when it wants to be asked next.
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

    /// An operator wants a new certificate now; what keeps us from it is forgotten, but for the caps.
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

    /// Corrects what can't be, or the clock has jumped: nothing may lie so far ahead that it is never reached.
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

    /// When the caps on fruitless orders allow the next one, if they don't now.
    pub(super) fn cap_frees_at(&self) -> Option<Timestamp> {
        self.fruitless.frees_at(ORDERS).max(self.rehearsals.frees_at(REHEARSALS))
    }
}
