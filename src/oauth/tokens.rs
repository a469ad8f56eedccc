//! Access tokens: their form, the keys that sign them, and the cache of those that were verified.
//! The issuer puts them together.

pub(super) mod access_token;
pub mod signing_keys;
pub(super) mod verified_cache;
