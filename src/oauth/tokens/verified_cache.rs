//! A cache of verified access tokens, by digest, which makes the check of a call cost microseconds.
//! It is bounded for the whole gateway. What can have changed since (revocation, keys, expiry,
//! rules) is checked on every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::access_token::AccessToken;
use crate::base::digest::Digest;
use crate::base::sync::lock_unpoisoned;

const SHARDS: usize = 16;
/// The capacity per generation and shard; two generations of 16 shards are 32,768 tokens, about 20
/// MB.
const MAX_PER_GENERATION: usize = 1024;

/// The cache. The most recently used generation is kept whenever the other one is dropped.
#[derive(Debug)]
pub(in crate::oauth) struct VerifiedTokenCache([Mutex<TokenCacheShard>; SHARDS]);

#[derive(Debug, Default)]
struct TokenCacheShard {
    young: HashMap<Digest, Arc<AccessToken>>,
    old: HashMap<Digest, Arc<AccessToken>>,
}

impl Default for VerifiedTokenCache {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl VerifiedTokenCache {
    pub(in crate::oauth) fn get(&self, digest: &Digest) -> Option<Arc<AccessToken>> {
        let mut shard = self.shard(digest);
        if let Some(token) = shard.young.get(digest) {
            return Some(Arc::clone(token));
        }
        let token = shard.old.remove(digest)?;
        shard.insert(*digest, Arc::clone(&token));
        Some(token)
    }

    pub(in crate::oauth) fn insert(&self, digest: Digest, token: Arc<AccessToken>) {
        self.shard(&digest).insert(digest, token);
    }

    fn shard(&self, digest: &Digest) -> std::sync::MutexGuard<'_, TokenCacheShard> {
        let shard = &self.0[usize::from(digest.as_bytes()[0]) % SHARDS];
        lock_unpoisoned(shard)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let sizes = self.0.iter().map(|shard| lock_unpoisoned(shard));
        sizes.map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

impl TokenCacheShard {
    fn insert(&mut self, digest: Digest, token: Arc<AccessToken>) {
        if self.young.len() >= MAX_PER_GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_tokens_stay_cached_and_the_cache_is_bounded() {
        let verified = VerifiedTokenCache::default();
        let wanted = Digest::of(b"wanted");
        verified.insert(wanted, Arc::new(AccessToken::example()));
        for number in 0..5 * SHARDS * MAX_PER_GENERATION {
            verified.insert(Digest::of(&number.to_be_bytes()), Arc::new(AccessToken::example()));
            if number % 100 == 0 {
                assert!(verified.get(&wanted).is_some(), "{number}");
            }
        }
        assert!(verified.len() <= 2 * SHARDS * MAX_PER_GENERATION);
    }
}
