//! When the latest tokens of a grant were replaced: refresh tokens, and the code, which is number 0.
//!
//! A network delivers a request late: it was sent into a cut, its client gave up and renewed
//! elsewhere, twice. Such a request shows a token that is no longer the predecessor. For as long as
//! the predecessor would yield its successor, an older token is refused without an end of the grant:
//! whoever has it gets nothing. From a minute after the token was replaced it ends the grant.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a replaced refresh token yields its successor again: Claude refreshes from two places,
/// and responses get lost.
pub(super) const REUSE_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// No honest client replaces more tokens within the grace period.
const MAX_REMEMBERED: usize = 16;

/// The tokens that were replaced within the grace period, the latest one last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ReplacedTokens(Vec<ReplacedToken>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ReplacedToken {
    #[serde(rename = "n")]
    sequence: u32,
    /// In seconds since 1970, by the clock of the gateway that replaced it.
    #[serde(rename = "at")]
    replaced_at: i64,
}

impl ReplacedTokens {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records that the token with this number is replaced now, and forgets what is too old to count.
    pub(super) fn record(&mut self, sequence: u32, now: Timestamp) {
        self.0.retain(|token| token.was_replaced_lately(now));
        if self.0.len() >= MAX_REMEMBERED {
            self.0.remove(0);
        }
        self.0.push(ReplacedToken { sequence, replaced_at: now.as_second() });
    }

    /// Returns whether a request with the token of this number arrived within the grace period from
    /// the token's own replacement.
    pub(super) fn contains_lately(&self, sequence: u32, arrived_at: Timestamp) -> bool {
        self.0.iter().any(|token| token.sequence == sequence && token.was_replaced_lately(arrived_at))
    }
}

impl ReplacedToken {
    /// The clocks of two gateways may differ; one that is far ahead gets no longer grace for it.
    fn was_replaced_lately(self, now: Timestamp) -> bool {
        now.as_second().abs_diff(self.replaced_at) < REUSE_GRACE_PERIOD.as_secs().unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_REMEMBERED, ReplacedTokens, Timestamp};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_token_counts_for_a_minute_from_its_own_replacement_by_either_clock() {
        let mut replaced = ReplacedTokens::default();
        replaced.record(7, at(1000));
        replaced.record(8, at(1050));
        for (sequence, now, is_late) in [
            (7, 1059, true),
            (7, 1060, false),
            (7, 941, true),
            (7, 940, false),
            (8, 1109, true),
            (9, 1051, false),
        ] {
            assert_eq!(replaced.contains_lately(sequence, at(now)), is_late, "{sequence} at {now}");
        }
    }

    #[test]
    fn few_are_remembered_and_none_for_long() {
        let mut replaced = ReplacedTokens::default();
        for sequence in 1..=100 {
            replaced.record(sequence, at(1000));
        }
        assert_eq!(replaced.0.len(), MAX_REMEMBERED);
        assert!(replaced.contains_lately(100, at(1000)) && !replaced.contains_lately(84, at(1000)));
        replaced.record(101, at(1060));
        assert_eq!(replaced.0.len(), 1);
    }

    #[test]
    fn they_are_stored_with_their_numbers() {
        let mut replaced = ReplacedTokens::default();
        replaced.record(7, at(1000));
        let stored = serde_json::to_string(&replaced).expect("JSON");
        assert_eq!(stored, r#"[{"n":7,"at":1000}]"#);
        assert_eq!(serde_json::from_str::<ReplacedTokens>(&stored).expect("read"), replaced);
    }
}
