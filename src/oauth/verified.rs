//! A cache of verified access tokens, by digest, which makes the check of a call cost microseconds.
//! It is bounded for the whole gateway. What can have changed since (revocation, keys, expiry,
//! rules) is checked on every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::access_token::Token;
use crate::base::digest::Digest;

const SHARDS: usize = 16;
/// The capacity per generation and shard; two generations of 16 shards are 32,768 tokens, about 20
/// MB.
const KEPT: usize = 1024;

/// The cache. The most recently used generation is kept whenever the other one is dropped.
#[derive(Debug)]
pub(super) struct Verified([Mutex<Shard>; SHARDS]);

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Digest, Arc<Token>>,
    old: HashMap<Digest, Arc<Token>>,
}

impl Default for Verified {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Verified {
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Token>> {
        let mut shard = self.shard(digest);
        if let Some(token) = shard.young.get(digest) {
            return Some(Arc::clone(token));
        }
        let token = shard.old.remove(digest)?;
        shard.keep(*digest, Arc::clone(&token));
        Some(token)
    }

    pub(super) fn keep(&self, digest: Digest, token: Arc<Token>) {
        self.shard(&digest).keep(digest, token);
    }

    fn shard(&self, digest: &Digest) -> std::sync::MutexGuard<'_, Shard> {
        let shard = &self.0[usize::from(digest.as_bytes()[0]) % SHARDS];
        shard.lock().expect("no holder of this lock panics")
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let sizes = self.0.iter().map(|shard| shard.lock().expect("unpoisoned"));
        sizes.map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

impl Shard {
    fn keep(&mut self, digest: Digest, token: Arc<Token>) {
        if self.young.len() >= KEPT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_bounded() {
        let verified = Verified::default();
        let wanted = Digest::of(b"wanted");
        verified.keep(wanted, Arc::new(Token::example()));
        for number in 0..5 * SHARDS * KEPT {
            verified.keep(Digest::of(&number.to_be_bytes()), Arc::new(Token::example()));
            if number % 100 == 0 {
                assert!(verified.find(&wanted).is_some(), "{number}");
            }
        }
        assert!(verified.len() <= 2 * SHARDS * KEPT);
    }
}
