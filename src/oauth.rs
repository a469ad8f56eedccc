//! Floor 3: authentication of callers. The bearer check, and an authorization server for each
//! tenant (OAuth 2.1, RFC 8414, RFC 9728) in front of Microsoft Entra ID.

mod account_session;
mod authorization_request;
mod authorization_response;
pub mod authorization_server;
pub mod bearer;
pub mod blocks;
pub mod client;
mod client_auth;
pub mod context;
mod cookie;
mod credential_fingerprint;
pub mod endpoints;
pub mod error;
mod follow;
mod form_origin;
pub mod grants;
mod incarnations;
pub mod issuer;
mod last_uses;
mod login;
mod login_counts;
mod login_page;
pub mod logins;
mod machine_tokens;
pub mod parameters;
mod pkce;
mod replay;
pub mod response;
mod revocations;
pub mod scope;
mod sealed;
#[cfg(test)]
mod testkit;
pub mod tokens;
