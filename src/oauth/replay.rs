//! Assertions that were used (`jti`, RFC 7523 section 3): each counts once.

use std::collections::HashMap;
use std::sync::Mutex;

use jiff::Timestamp;

use crate::base::digest::Digest;

/// Only those that a known client signed come here, so this is more than anybody needs in ten minutes.
const KEPT: usize = 100_000;

/// Used assertions, until they have expired anyway. In memory: within ten minutes after a restart one could be used again, by
/// whoever can read a client's connections to us.
#[derive(Debug, Default)]
pub(super) struct Replay(Mutex<HashMap<Digest, Timestamp>>);

impl Replay {
    /// Takes an assertion; `false` if it was taken before, or if so many were that no more can be remembered.
    pub(super) fn take(&self, assertion: Digest, expires: Timestamp) -> bool {
        let mut used = self.lock();
        used.len() < KEPT && used.insert(assertion, expires).is_none()
    }

    /// Forgets those that have expired.
    pub(super) fn tidy(&self, now: Timestamp) {
        self.lock().retain(|_, expires| *expires > now);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Timestamp>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    #[test]
    fn an_assertion_counts_once() {
        let (replay, now) = (Replay::default(), Timestamp::UNIX_EPOCH);
        assert!(replay.take(Digest::of(b"a"), now + 1.minute()));
        assert!(!replay.take(Digest::of(b"a"), now + 1.minute()));
        assert!(replay.take(Digest::of(b"b"), now + 2.minutes()));
        replay.tidy(now + 1.minute());
        assert_eq!(replay.lock().len(), 1);
    }
}
