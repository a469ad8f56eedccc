//! A circuit breaker: after several consecutive outages it pauses calls to the backend for a
//! growing time, then lets one trial call through.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Error;

/// The number of consecutive outages that open the breaker.
const FAILURE_THRESHOLD: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The circuit breaker of one tenant.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<BreakerState>);

#[derive(Debug, Default)]
struct BreakerState {
    consecutive_outages: u32,
    /// Until when the breaker is open; afterwards one trial call is allowed.
    open_until: Option<Instant>,
    is_trial_running: bool,
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls go through; so many in a row have failed so far.
    Closed {
        /// The outages in a row.
        outages: u32,
    },
    /// No call goes through for this long.
    Open {
        /// The rest of the pause.
        pause: Duration,
    },
    /// The pause is over; the next call decides.
    HalfOpen,
}

/// The permission to make one call. Dropping it without an outcome (the caller left) counts for
/// nothing.
#[derive(Debug)]
pub(super) struct BreakerPermit<'a> {
    breaker: &'a Breaker,
    is_trial: bool,
}

impl Breaker {
    /// Admits a call, unless the breaker is open or a trial call is in progress.
    pub(super) fn check(&self, now: Instant) -> Result<BreakerPermit<'_>, Error> {
        let mut state = self.state();
        let Some(until) = state.open_until else {
            return Ok(BreakerPermit { breaker: self, is_trial: false });
        };
        if now < until || state.is_trial_running {
            let retry_after = until.saturating_duration_since(now).max(FIRST_PAUSE);
            return Err(Error::CircuitOpen { retry_after });
        }
        state.is_trial_running = true;
        Ok(BreakerPermit { breaker: self, is_trial: true })
    }

    /// Returns the state of the circuit.
    pub(super) fn circuit_state(&self, now: Instant) -> CircuitState {
        let state = self.state();
        match state.open_until {
            None => CircuitState::Closed { outages: state.consecutive_outages },
            Some(until) if now < until => CircuitState::Open { pause: until - now },
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// Resets the breaker, because the backend works again or is a different one.
    pub(super) fn reset(&self) {
        *self.state() = BreakerState::default();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl BreakerPermit<'_> {
    /// Reports that the backend responded, with whatever status.
    pub(super) fn record_success(self) {
        self.breaker.reset();
    }

    /// Reports an outage.
    pub(super) fn record_outage(self, now: Instant) {
        let mut state = self.breaker.state();
        // Calls in flight when the breaker opened fail together and count once.
        if state.open_until.is_some() && !self.is_trial {
            return;
        }
        state.consecutive_outages = state.consecutive_outages.saturating_add(1);
        if state.consecutive_outages >= FAILURE_THRESHOLD {
            state.open_until = Some(now + pause_after(state.consecutive_outages));
        }
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.state().is_trial_running = false;
        }
    }
}

fn pause_after(consecutive_outages: u32) -> Duration {
    let doublings = consecutive_outages.saturating_sub(FAILURE_THRESHOLD).min(8);
    (FIRST_PAUSE * (1 << doublings)).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn clock() -> ManualClock {
        ManualClock::at(jiff::Timestamp::UNIX_EPOCH)
    }

    fn fail(breaker: &Breaker, times: u32, now: Instant) {
        for _ in 0..times {
            breaker.check(now).expect("still closed").record_outage(now);
        }
    }

    #[test]
    fn outages_in_a_row_open_it_and_one_call_tries_after_the_pause() {
        let (breaker, clock) = (Breaker::default(), clock());
        fail(&breaker, FAILURE_THRESHOLD, clock.monotonic());
        assert!(matches!(breaker.check(clock.monotonic()), Err(Error::CircuitOpen { .. })));

        clock.advance(FIRST_PAUSE);
        let trial = breaker.check(clock.monotonic()).expect("the trial");
        assert!(breaker.check(clock.monotonic()).is_err(), "only one tries");
        trial.record_success();
        assert!(breaker.check(clock.monotonic()).is_ok());
    }

    #[test]
    fn an_answer_between_outages_starts_the_count_anew() {
        let (breaker, now) = (Breaker::default(), clock().monotonic());
        fail(&breaker, FAILURE_THRESHOLD - 1, now);
        breaker.check(now).expect("closed").record_success();
        fail(&breaker, FAILURE_THRESHOLD - 1, now);
        assert!(breaker.check(now).is_ok());
    }

    #[test]
    fn pauses_grow_up_to_half_a_minute() {
        let pauses: Vec<u64> =
            (FAILURE_THRESHOLD..FAILURE_THRESHOLD + 7).map(|n| pause_after(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn calls_that_fail_together_open_it_once() {
        let (breaker, clock) = (Breaker::default(), clock());
        let calls: Vec<_> = (0..64).map(|_| breaker.check(clock.monotonic()).expect("closed")).collect();
        calls.into_iter().for_each(|call| call.record_outage(clock.monotonic()));
        clock.advance(FIRST_PAUSE);
        assert!(breaker.check(clock.monotonic()).is_ok());
    }

    #[test]
    fn a_trial_whose_caller_goes_away_leaves_the_place_to_the_next() {
        let (breaker, clock) = (Breaker::default(), clock());
        fail(&breaker, FAILURE_THRESHOLD, clock.monotonic());
        clock.advance(FIRST_PAUSE);
        drop(breaker.check(clock.monotonic()).expect("the trial"));
        assert!(breaker.check(clock.monotonic()).is_ok());
    }
}
