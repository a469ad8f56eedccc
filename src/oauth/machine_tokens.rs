//! The access tokens of machine clients that were issued or used since the start, in memory: the
//! store does not have them, as they live for an hour at most. One from before a restart is known
//! as soon as it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use jiff::Timestamp;

use super::tokens::access_token::AccessToken;
use crate::store::{GrantId, Incarnation};

/// The limit on remembered tokens; it takes about 3 MiB.
const MAX_TOKENS: usize = 10_000;

/// The known tokens.
#[derive(Debug, Default)]
pub(super) struct MachineTokens(DashMap<GrantId, RememberedToken>);

#[derive(Debug)]
struct RememberedToken {
    token: MachineToken,
    /// Seconds since 1970; 0 before the first use.
    last_used: AtomicI64,
}

/// A token that a machine client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MachineToken {
    pub(super) id: GrantId,
    pub(super) incarnation: Incarnation,
    pub(super) client_id: Arc<str>,
    /// The operator's name for the client.
    pub(super) label: Arc<str>,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl MachineToken {
    /// Describes a token that somebody shows.
    pub(super) fn from_access_token(
        token: &AccessToken,
        incarnation: &Incarnation,
        label: &Arc<str>,
    ) -> Self {
        Self {
            id: token.grant_id,
            incarnation: incarnation.clone(),
            client_id: Arc::clone(&token.claims.client_id),
            label: Arc::clone(label),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        }
    }
}

impl MachineTokens {
    /// Remembers a token that was issued. Beyond the limit, tokens are left out.
    pub(super) fn insert(&self, token: MachineToken) {
        if self.0.len() < MAX_TOKENS {
            self.0.insert(token.id, RememberedToken { token, last_used: AtomicI64::new(0) });
        }
    }

    /// Records a use of a token, which `describe` describes if it is not known yet.
    pub(super) fn record_use(&self, id: GrantId, now: Timestamp, describe: impl FnOnce() -> MachineToken) {
        let used = |known: &RememberedToken| known.last_used.store(now.as_second(), Ordering::Relaxed);
        if let Some(known) = self.0.get(&id) {
            return used(&known);
        }
        self.insert(describe());
        if let Some(known) = self.0.get(&id) {
            used(&known);
        }
    }

    /// Returns the tokens that have not expired, each with its last use.
    pub(super) fn current(&self, now: Timestamp) -> Vec<(MachineToken, Option<Timestamp>)> {
        let current = self.0.iter().filter(|known| known.token.expires_at > now);
        let with_use = current.map(|known| {
            let last_used = known.last_used.load(Ordering::Relaxed);
            let last_used = (last_used > 0).then(|| Timestamp::from_second(last_used).ok()).flatten();
            (known.token.clone(), last_used)
        });
        with_use.collect()
    }

    /// Forgets expired tokens.
    pub(super) fn remove_expired(&self, now: Timestamp) {
        self.0.retain(|_, known| known.token.expires_at > now);
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn token() -> MachineToken {
        MachineToken {
            id: GrantId::random(),
            incarnation: Incarnation::new(&"acme".into()),
            client_id: "job".into(),
            label: "Nightly job".into(),
            issued_at: NOW,
            expires_at: NOW + 1.hour(),
        }
    }

    #[test]
    fn a_token_is_known_from_its_issue_or_its_first_use_until_it_expires() {
        let (tokens, issued, shown) = (MachineTokens::default(), token(), token());
        tokens.insert(issued.clone());
        let used = NOW + 1.minute();
        tokens.record_use(shown.id, used, || shown.clone());
        let mut current = tokens.current(NOW);
        current.sort_by_key(|(_, last_used)| *last_used);
        assert_eq!(current, [(issued.clone(), None), (shown, Some(used))]);
        tokens.record_use(issued.id, used, || panic!("it is known"));
        assert!(tokens.current(NOW).iter().all(|(_, last_used)| *last_used == Some(used)));
        assert!(tokens.current(NOW + 1.hour()).is_empty());
        tokens.remove_expired(NOW + 1.hour());
        assert!(tokens.0.is_empty());
    }

    #[test]
    fn their_number_is_bounded() {
        let tokens = MachineTokens::default();
        (0..MAX_TOKENS + 1).for_each(|_| tokens.insert(token()));
        let more = token();
        tokens.record_use(more.id, NOW, || more.clone());
        assert_eq!(tokens.0.len(), MAX_TOKENS);
    }
}
