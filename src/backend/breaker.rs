//! A small circuit breaker: a backend that failed several times in a row is left alone for growing pauses, so that
//! its callers get an answer at once and it gets a chance to recover.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Error;

/// So many failures in a row open the breaker.
const FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Closed while all is well; open for a pause after failures; then one probe decides.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Whether a call may go out now. After a pause the first caller is the probe; others wait for its verdict.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Error> {
        let mut state = self.state();
        match state.open_until {
            None => Ok(()),
            Some(until) if now < until => Err(Error::Resting { pause: until - now }),
            Some(_) => {
                // The probe's own pause runs already: if its caller goes away, the next one probes after it.
                state.open_until = Some(now + pause(state.failures));
                Ok(())
            }
        }
    }

    /// Takes note of how a call ended.
    pub(super) fn record(&self, error: Option<&Error>, now: Instant) {
        let mut state = self.state();
        match error {
            Some(error) if error.trips_the_breaker() => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= FAILURES {
                    state.open_until = Some(now + pause(state.failures));
                }
            }
            Some(Error::Busy | Error::Resting { .. }) => {}
            _ => *state = State::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(FAILURES).min(10);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[test]
    fn five_failures_open_it_and_one_success_closes_it() {
        let (breaker, clock) = (Breaker::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for _ in 0..FAILURES {
            assert!(breaker.admit(clock.monotonic()).is_ok());
            breaker.record(Some(&Error::Unreachable), clock.monotonic());
        }
        assert!(matches!(breaker.admit(clock.monotonic()), Err(Error::Resting { .. })));
        clock.advance(FIRST_PAUSE);
        assert!(breaker.admit(clock.monotonic()).is_ok(), "the probe goes out");
        assert!(breaker.admit(clock.monotonic()).is_err(), "only one probe");
        breaker.record(None, clock.monotonic());
        assert!(breaker.admit(clock.monotonic()).is_ok());
    }

    #[test]
    fn a_refused_question_is_no_failure_of_the_backend() {
        let (breaker, clock) = (Breaker::default(), ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        for _ in 0..100 {
            breaker.record(Some(&Error::Refused { status: 400, detail: None }), clock.monotonic());
        }
        assert!(breaker.admit(clock.monotonic()).is_ok());
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause(FAILURES), FIRST_PAUSE);
        assert_eq!(pause(FAILURES + 1), FIRST_PAUSE * 2);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
