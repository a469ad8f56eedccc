//! Floor 3: authentication of callers. The bearer check, and an authorization server for each
//! tenant (OAuth 2.1, RFC 8414, RFC 9728) in front of Microsoft Entra ID.

mod access_token;
mod authentication;
pub mod authorization_server;
mod authorize;
mod back;
pub mod bearer;
#[cfg(test)]
mod bed;
mod callback;
pub mod client;
mod consent;
mod cookie;
pub mod error;
pub mod grants;
mod introspect;
pub mod issuer;
pub mod keys;
pub mod ledger;
mod lives;
mod marks;
mod metadata;
mod page;
pub mod parameters;
mod pkce;
mod register;
mod replay;
pub mod reply;
mod revocations;
mod revoke;
mod scope;
mod sealed;
mod token;
mod verified;
