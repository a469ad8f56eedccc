//! When something counts as wrong, and when as well again: once it has been so for a while, where
//! it may flap.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::condition::{ConditionKey, Conditions};
use crate::spec::AlertKind;

/// How long a condition that only traffic shows, and that was there when the last process ended,
/// may be absent after a restart: until somebody has called, nobody knows whether it is over.
const RESTART_GRACE: Duration = Duration::from_secs(600);

/// The conditions that have settled, and those that may be changing.
#[derive(Debug)]
pub(super) struct Settling {
    hold: watch::Receiver<Duration>,
    settled: Conditions,
    /// Since when a condition is seen and not settled, or settled and not seen.
    changing: BTreeMap<ConditionKey, Instant>,
    /// Those that were settled in the last process and have not been seen in this one.
    carried: BTreeMap<ConditionKey, Instant>,
}

impl Settling {
    /// Creates it without any condition. `hold` is how long those that may flap must last.
    pub(super) fn new(hold: watch::Receiver<Duration>) -> Self {
        Self { hold, settled: Conditions::new(), changing: BTreeMap::new(), carried: BTreeMap::new() }
    }

    /// Carries conditions over from the last process, if only traffic shows whether they are over.
    pub(super) fn carry_over(&mut self, conditions: Conditions, now: Instant) {
        for (key, condition) in conditions.into_iter().filter(|(key, _)| is_shown_by_traffic(key.kind)) {
            self.carried.insert(key.clone(), now);
            self.settled.insert(key, condition);
        }
    }

    /// Takes in what is wrong now. Returns whether the settled conditions changed.
    pub(super) fn update(&mut self, seen: Conditions, now: Instant) -> bool {
        self.carried.retain(|key, _| !seen.contains_key(key));
        let mut has_changed = false;
        let gone: Vec<_> = self.settled.keys().filter(|key| !seen.contains_key(key)).cloned().collect();
        self.changing.retain(|key, _| seen.contains_key(key) != self.settled.contains_key(key));
        for key in gone {
            if self.has_lasted(&key, now) {
                self.changing.remove(&key);
                self.carried.remove(&key);
                self.settled.remove(&key);
                has_changed = true;
            }
        }
        for (key, condition) in seen {
            if self.settled.get(&key) == Some(&condition) {
                continue;
            }
            if self.settled.contains_key(&key) || self.has_lasted(&key, now) {
                self.changing.remove(&key);
                self.settled.insert(key, condition);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Returns the settled conditions.
    pub(super) fn settled(&self) -> &Conditions {
        &self.settled
    }

    /// Whether a change of this condition has lasted long enough; notes when it began.
    fn has_lasted(&mut self, key: &ConditionKey, now: Instant) -> bool {
        let hold = match self.carried.get(key) {
            Some(_) => RESTART_GRACE,
            None if may_flap(key.kind) => *self.hold.borrow(),
            None => Duration::ZERO,
        };
        let since = *self.changing.entry(key.clone()).or_insert(now);
        now.saturating_duration_since(since) >= hold
    }
}

/// Whether it may come and go by itself.
fn may_flap(kind: AlertKind) -> bool {
    use AlertKind::{AuditLosing, DiskLow, StoreUnwritable, TenantDegraded};
    matches!(kind, TenantDegraded | StoreUnwritable | DiskLow | AuditLosing)
}

/// Whether only traffic shows that it is over.
fn is_shown_by_traffic(kind: AlertKind) -> bool {
    matches!(kind, AlertKind::TenantDegraded | AlertKind::LoginRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::condition::{Condition, Subject};
    use crate::base::clock::{Clock, ManualClock};

    const HOLD: Duration = Duration::from_secs(30);

    fn new_settling() -> Settling {
        Settling::new(watch::channel(HOLD).1)
    }

    fn conditions(kinds: &[AlertKind]) -> Conditions {
        let condition = |kind: &AlertKind| {
            let key = ConditionKey { kind: *kind, id: "acme".to_owned() };
            (key, Condition::new(Subject::tenant("acme"), kind.as_str(), "repair it"))
        };
        kinds.iter().map(condition).collect()
    }

    fn kinds(settling: &Settling) -> Vec<AlertKind> {
        settling.settled().keys().map(|key| key.kind).collect()
    }

    #[test]
    fn what_may_flap_settles_after_the_hold_and_the_rest_at_once() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let mut settling = new_settling();
        let both = [AlertKind::TenantRejected, AlertKind::TenantDegraded];
        assert!(settling.update(conditions(&both), clock.monotonic()));
        assert_eq!(kinds(&settling), [AlertKind::TenantRejected]);
        clock.advance(HOLD - Duration::from_secs(1));
        assert!(!settling.update(conditions(&both), clock.monotonic()));
        clock.advance(Duration::from_secs(1));
        assert!(settling.update(conditions(&both), clock.monotonic()));
        assert_eq!(kinds(&settling), both);

        assert!(settling.update(Conditions::new(), clock.monotonic()));
        assert_eq!(kinds(&settling), [AlertKind::TenantDegraded]);
        clock.advance(HOLD);
        assert!(settling.update(Conditions::new(), clock.monotonic()));
        assert_eq!(kinds(&settling), []);
    }

    #[test]
    fn a_hold_that_is_shortened_counts_at_once() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let (sender, hold) = watch::channel(HOLD);
        let mut settling = Settling::new(hold);
        let degraded = || conditions(&[AlertKind::TenantDegraded]);
        assert!(!settling.update(degraded(), clock.monotonic()));
        clock.advance(HOLD / 2);
        assert!(!settling.update(degraded(), clock.monotonic()));
        sender.send_replace(HOLD / 2);
        assert!(settling.update(degraded(), clock.monotonic()));
    }

    #[test]
    fn what_comes_and_goes_within_the_hold_never_settles() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let mut settling = new_settling();
        let degraded = || conditions(&[AlertKind::TenantDegraded]);
        for _ in 0..10 {
            assert!(!settling.update(degraded(), clock.monotonic()));
            clock.advance(HOLD * 2 / 3);
            assert!(!settling.update(degraded(), clock.monotonic()));
            assert!(!settling.update(Conditions::new(), clock.monotonic()));
            clock.advance(HOLD * 2 / 3);
        }
    }

    #[test]
    fn a_text_or_level_that_changes_is_news_of_a_settled_condition() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let mut settling = new_settling();
        let mut expiring = conditions(&[AlertKind::ApiKeyExpires]);
        assert!(settling.update(expiring.clone(), clock.monotonic()));
        assert!(!settling.update(expiring.clone(), clock.monotonic()));
        expiring.values_mut().for_each(|condition| condition.level = 1);
        assert!(settling.update(expiring, clock.monotonic()));
    }

    #[test]
    fn what_only_traffic_shows_is_carried_over_a_restart_for_a_while() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let mut settling = new_settling();
        let before = [AlertKind::TenantRejected, AlertKind::TenantDegraded];
        settling.carry_over(conditions(&before), clock.monotonic());
        assert_eq!(kinds(&settling), [AlertKind::TenantDegraded]);
        settling.update(Conditions::new(), clock.monotonic());
        clock.advance(RESTART_GRACE - Duration::from_secs(1));
        assert!(!settling.update(Conditions::new(), clock.monotonic()));
        clock.advance(Duration::from_secs(1));
        assert!(settling.update(Conditions::new(), clock.monotonic()));
        assert_eq!(kinds(&settling), []);
    }

    #[test]
    fn what_is_seen_again_after_a_restart_is_over_after_the_usual_hold() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let mut settling = new_settling();
        let degraded = || conditions(&[AlertKind::TenantDegraded]);
        settling.carry_over(degraded(), clock.monotonic());
        assert!(!settling.update(degraded(), clock.monotonic()), "it is no news");
        settling.update(Conditions::new(), clock.monotonic());
        clock.advance(HOLD);
        assert!(settling.update(Conditions::new(), clock.monotonic()));
    }
}
