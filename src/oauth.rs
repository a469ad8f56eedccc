//! Floor 3: authentication of callers. The bearer check, and an authorization server for each
//! tenant (OAuth 2.1, RFC 8414, RFC 9728) in front of Microsoft Entra ID.

mod access_token;
mod authorization_response;
mod authorize;
pub mod bearer;
mod callback;
pub mod client;
mod client_auth;
mod consent;
pub mod context;
mod cookie;
mod credential_fingerprint;
pub mod error;
pub mod grants;
mod incarnations;
mod introspect;
pub mod issuer;
mod login_page;
mod metadata;
pub mod parameters;
mod pkce;
mod register;
mod replay;
pub mod response;
mod revocations;
mod revoke;
mod scope;
mod sealed;
pub mod server;
pub mod signing_keys;
#[cfg(test)]
mod testkit;
mod token;
mod verified_cache;
