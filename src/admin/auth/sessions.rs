//! Sessions of people who logged in with a token: in memory, few, and short.
//!
//! A session is as good as its token, which is looked up in the file again with every request.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::digest::Digest;
use crate::base::random;
use crate::base::sync::lock;

/// How long a session lasts without a request.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// How long a session lasts at most.
pub(in crate::admin) const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// The sessions at a time; a further one ends the one that was idle longest.
const MOST: usize = 256;

/// The sessions, by the digest of their id: who reads the memory of the map gets no cookie.
#[derive(Debug, Default)]
pub(in crate::admin) struct Sessions(Mutex<HashMap<Digest, Session>>);

#[derive(Debug)]
struct Session {
    /// The digest of the token that began it.
    token: Digest,
    begun: Instant,
    used: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= IDLE || now.duration_since(self.begun) >= LIFETIME
    }
}

impl Sessions {
    /// Begins a session and returns its id.
    pub(super) fn begin(&self, token: Digest, now: Instant) -> String {
        let id = random::token();
        let mut all = lock(&self.0);
        all.retain(|_, session| !session.is_over(now));
        if all.len() >= MOST {
            let idle = all.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            idle.and_then(|id| all.remove(&id));
        }
        all.insert(Digest::of(id.as_bytes()), Session { token, begun: now, used: now });
        id
    }

    /// Returns the digest of the token that began a session, and counts this as a use.
    pub(super) fn find(&self, id: &str, now: Instant) -> Option<Digest> {
        let mut all = lock(&self.0);
        let key = Digest::of(id.as_bytes());
        let session = all.get_mut(&key)?;
        if session.is_over(now) {
            all.remove(&key);
            return None;
        }
        session.used = now;
        Some(session.token)
    }

    /// Ends a session.
    pub(in crate::admin) fn end(&self, id: &str) {
        lock(&self.0).remove(&Digest::of(id.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    #[test]
    fn a_session_ends_when_it_is_idle_old_or_told_to() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let (sessions, token) = (Sessions::default(), Digest::of(b"token"));
        let find = |id: &str| sessions.find(id, clock.monotonic());
        let [idle, told, old] = [(); 3].map(|()| sessions.begin(token, clock.monotonic()));
        sessions.end(&told);
        assert_eq!((find(&idle), find(&told), find("none")), (Some(token), None, None));
        let step = IDLE - Duration::from_secs(1);
        for _ in 0..12 {
            clock.advance(step);
            assert_eq!(find(&old), Some(token));
        }
        assert_eq!(find(&idle), None);
        clock.advance(step);
        assert_eq!(find(&old), None, "it is in use, but old");
    }

    #[test]
    fn there_are_so_many_and_the_idlest_gives_way() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let (sessions, token) = (Sessions::default(), Digest::of(b"token"));
        let first = sessions.begin(token, clock.monotonic());
        let second = sessions.begin(token, clock.monotonic());
        clock.advance(Duration::from_secs(1));
        sessions.find(&first, clock.monotonic());
        (2..=MOST).for_each(|_| drop(sessions.begin(token, clock.monotonic())));
        assert!(sessions.find(&first, clock.monotonic()).is_some());
        assert!(sessions.find(&second, clock.monotonic()).is_none());
        assert_eq!(lock(&sessions.0).len(), MOST);
    }
}
