//! Floor 3: who is calling. The bearer check, and each tenant's own authorization server (OAuth 2.1, RFC 8414, RFC 9728)
//! in front of Microsoft Entra ID.

#[expect(dead_code, reason = "the endpoints and the bearer check come next")]
mod access_token;
pub mod authorization_server;
mod authorize;
mod back;
pub mod bearer;
mod callback;
pub mod client;
mod consent;
mod cookie;
#[expect(dead_code, reason = "the endpoints come next")]
pub mod grants;
pub mod issuer;
#[expect(dead_code, reason = "the bearer check comes next")]
pub mod keys;
#[expect(dead_code, reason = "the endpoints come next")]
pub mod ledger;
mod metadata;
mod page;
pub mod parameters;
mod register;
#[cfg_attr(not(test), expect(dead_code, reason = "the endpoints come next"))]
mod replay;
pub mod reply;
#[cfg_attr(not(test), expect(dead_code, reason = "the bearer check comes next"))]
mod revocations;
mod scope;
mod sealed;
#[cfg_attr(not(test), expect(dead_code, reason = "the bearer check comes next"))]
mod verified;
