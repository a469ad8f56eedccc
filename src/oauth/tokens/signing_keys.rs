//! The signing keys of a tenant (ES256, RFC 7518 section 3.4). Each tenant has its own, so that no
//! token of one tenant is valid at another; a key is named by its thumbprint (RFC 7638).
//!
//! A new key is published a day before it signs, because verifiers cache key sets for hours; the
//! previous key stays published until its last token has expired. In an emergency the old keys are
//! removed at once, which invalidates all access tokens.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::access_token;
use crate::base::digest::Digest;
use crate::oauth::error::Unavailable;
use crate::store::auth::AuthStore;
use crate::store::{Incarnation, SigningKey};

/// How long a key is published before it signs.
const PUBLISH_AHEAD: SignedDuration = SignedDuration::from_hours(24);
/// The time between two looks for newer keys.
const LOOK_FOR_NEWER_PAUSE: Duration = Duration::from_secs(1);
/// The allowed difference between clocks.
const SKEW: SignedDuration = SignedDuration::from_mins(2);

/// The keys of one tenant, loaded on first use.
#[derive(Debug, Default)]
pub(in crate::oauth) struct SigningKeyCache {
    set: ArcSwapOption<SigningKeySet>,
    /// Held while keys are loaded or changed. When newer ones were looked for, because a token named
    /// an unknown one.
    loading: Mutex<Option<Instant>>,
}

/// The keys in the store.
#[derive(Debug)]
pub(in crate::oauth) struct SigningKeySet {
    /// In the order in which they sign.
    keys: Vec<LoadedSigningKey>,
    pub(in crate::oauth) jwks: Bytes,
}

/// The public description of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedKey {
    /// The thumbprint of the key (RFC 7638).
    pub kid: String,
    /// When the key begins to sign.
    pub signs_from: Timestamp,
    /// `next`, `signing` or `verifying`.
    pub state: &'static str,
}

/// How fast keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRotation {
    /// A new key signs from tomorrow on; clients notice nothing.
    Gentle,
    /// A new key signs now and the old ones are removed: every access token of the tenant becomes
    /// invalid, refresh tokens stay valid.
    Emergency,
}

struct LoadedSigningKey {
    kid: String,
    signs_from: Timestamp,
    pair: EcdsaKeyPair,
}

impl SigningKeyCache {
    /// Returns the keys; loads or creates them if necessary.
    pub(in crate::oauth) async fn load(
        &self,
        store: &AuthStore,
        incarnation: &Incarnation,
        now: Timestamp,
    ) -> Result<Arc<SigningKeySet>, Unavailable> {
        let at_hand = || self.set.load_full().filter(|set| !set.has_retired_keys(now));
        if let Some(set) = at_hand() {
            return Ok(set);
        }
        let _one_at_a_time = self.loading.lock().await;
        match at_hand() {
            Some(set) => Ok(set),
            None => self.load_from_store(store, incarnation, now).await,
        }
    }

    /// Loads keys again that were loaded before, because another gateway changed them.
    pub(in crate::oauth) async fn reload(
        &self,
        store: &AuthStore,
        incarnation: &Incarnation,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let _one_at_a_time = self.loading.lock().await;
        let is_loaded = self.set.load().is_some();
        match is_loaded {
            true => self.load_from_store(store, incarnation, now).await.map(drop),
            false => Ok(()),
        }
    }

    /// Loads keys again because a token names an unknown one, which anybody can do: at most once in a
    /// second. Whoever comes while somebody looks waits for what that one finds.
    pub(in crate::oauth) async fn look_for_newer(
        &self,
        store: &AuthStore,
        incarnation: &Incarnation,
        now: Timestamp,
        monotonic: Instant,
    ) -> Result<(), Unavailable> {
        let mut last = self.loading.lock().await;
        if last.is_some_and(|last| monotonic < last + LOOK_FOR_NEWER_PAUSE) {
            return Ok(());
        }
        self.load_from_store(store, incarnation, now).await?;
        *last = Some(monotonic);
        Ok(())
    }

    /// Creates a new key and returns the keys.
    pub(in crate::oauth) async fn rotate(
        &self,
        store: &AuthStore,
        incarnation: &Incarnation,
        now: Timestamp,
        how: KeyRotation,
    ) -> Result<Arc<SigningKeySet>, Unavailable> {
        let _one_at_a_time = self.loading.lock().await;
        let known = store.load_signing_keys(incarnation).await.map_err(Unavailable::from_store)?;
        let (signs_from, is_replaced): (_, fn(&SigningKey, Timestamp) -> bool) = match how {
            // Replaces a next key that has not signed yet, so that there is at most one.
            KeyRotation::Gentle => (now + PUBLISH_AHEAD, |key, now| key.signs_from > now),
            KeyRotation::Emergency => (now, |_, _| true),
        };
        let gone = known.into_iter().filter(|key| is_replaced(key, now)).map(|key| key.kid).collect();
        let keys = store.replace_signing_keys(incarnation, Some(generate(signs_from)), gone).await;
        self.cache_keys(keys.map_err(Unavailable::from_store)?)
    }

    async fn load_from_store(
        &self,
        store: &AuthStore,
        incarnation: &Incarnation,
        now: Timestamp,
    ) -> Result<Arc<SigningKeySet>, Unavailable> {
        let mut keys = store.load_signing_keys(incarnation).await.map_err(Unavailable::from_store)?;
        if keys.is_empty() {
            let first = store.insert_first_signing_key(incarnation, generate(now)).await;
            keys = first.map_err(Unavailable::from_store)?;
        }
        let retired = count_retired(keys.iter().map(|key| key.signs_from), now);
        let gone: Vec<_> = keys.drain(..retired).map(|key| key.kid).collect();
        if !gone.is_empty() {
            let left = store.replace_signing_keys(incarnation, None, gone).await;
            keys = left.map_err(Unavailable::from_store)?;
        }
        self.cache_keys(keys)
    }

    fn cache_keys(&self, stored: Vec<SigningKey>) -> Result<Arc<SigningKeySet>, Unavailable> {
        let keys = stored
            .into_iter()
            .map(LoadedSigningKey::from_stored)
            .collect::<Option<Vec<_>>>()
            .ok_or(Unavailable)?;
        let jwks = json!({ "keys": keys.iter().map(LoadedSigningKey::to_jwk).collect::<Vec<_>>() });
        let set = Arc::new(SigningKeySet { keys, jwks: jwks.to_string().into() });
        self.set.store(Some(Arc::clone(&set)));
        Ok(set)
    }
}

impl SigningKeySet {
    /// Signs a message with the current key, and returns message and signature as a JWS. `message`
    /// creates the signing input from the key's id.
    pub(in crate::oauth) fn sign(&self, now: Timestamp, message: impl FnOnce(&str) -> String) -> String {
        let key = &self.keys[signing_index(self.keys.iter().map(|key| key.signs_from), now)];
        let mut text = message(&key.kid);
        let signature = key.pair.sign(&SystemRandom::new(), text.as_bytes());
        let signature = signature.expect("a key that was read can sign");
        text.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }

    /// Whether the key with this id made the signature.
    pub(in crate::oauth) fn verify(&self, kid: &str, message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = self.keys.iter().find(|key| key.kid == kid) else { return false };
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key());
        public.verify(message, signature).is_ok()
    }

    /// Whether a key with this id is still in use.
    pub(in crate::oauth) fn contains(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid == kid)
    }

    fn has_retired_keys(&self, now: Timestamp) -> bool {
        count_retired(self.keys.iter().map(|key| key.signs_from), now) > 0
    }

    pub(in crate::oauth) fn published_keys(&self, now: Timestamp) -> Vec<PublishedKey> {
        let signs = signing_index(self.keys.iter().map(|key| key.signs_from), now);
        let state = |place: usize| match place.cmp(&signs) {
            std::cmp::Ordering::Less => "verifying",
            std::cmp::Ordering::Equal => "signing",
            std::cmp::Ordering::Greater => "next",
        };
        let published = |(place, key): (usize, &LoadedSigningKey)| PublishedKey {
            kid: key.kid.clone(),
            signs_from: key.signs_from,
            state: state(place),
        };
        self.keys.iter().enumerate().map(published).collect()
    }
}

/// Returns the index of the key that signs, given the keys' start times in order: the last that has
/// started, else the first.
fn signing_index(beginnings: impl Iterator<Item = Timestamp>, now: Timestamp) -> usize {
    beginnings.take_while(|from| *from <= now).count().saturating_sub(1)
}

/// Returns how many of the oldest keys are obsolete: their last token has expired.
fn count_retired(beginnings: impl Iterator<Item = Timestamp>, now: Timestamp) -> usize {
    let gone = |from: &Timestamp| *from + access_token::MAX_LIFETIME + SKEW <= now;
    beginnings.skip(1).take_while(gone).count()
}

/// Generates a key.
fn generate(signs_from: Timestamp) -> SigningKey {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("keys can be made");
    let pkcs8 = pair.to_pkcs8v1().expect("a key that was made can be written").as_ref().to_vec();
    SigningKey { kid: thumbprint(&pair), signs_from, pkcs8 }
}

/// Returns the coordinates of the public point in the encoding of a JWK.
fn public_coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    // The uncompressed form: 0x04, then both coordinates (SEC 1 section 2.3.3).
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y))
}

/// Returns the SHA-256 of the required members, in order, without spaces (RFC 7638).
fn thumbprint(pair: &EcdsaKeyPair) -> String {
    let (x, y) = public_coordinates(pair);
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(Digest::of(members.as_bytes()).as_bytes())
}

impl LoadedSigningKey {
    fn from_stored(stored: SigningKey) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &stored.pkcs8).ok()?;
        Some(Self { kid: stored.kid, signs_from: stored.signs_from, pair })
    }

    fn to_jwk(&self) -> serde_json::Value {
        let (x, y) = public_coordinates(&self.pair);
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "alg": "ES256", "use": "sig" })
    }
}

impl fmt::Debug for LoadedSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedSigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
