//! Floor 2: authentication of people with Microsoft Entra ID (OpenID Connect Core 1.0 over Entra's
//! v2.0 endpoints).
//!
//! Owns: the addresses of Entra's endpoints, its signing keys, the redemption of codes, and the
//! single function that verifies id_tokens. Promises: every [`Person`] returned comes from an
//! id_token that Entra signed for this tenant's app, and belongs to an account that the tenant
//! admits; the refresh token is the only Entra token that leaves this module; every exchange has a
//! deadline and a bound. Leaves to `oauth`: cookies, consent, what a person is allowed to do, and
//! sealing the refresh token.

mod aadsts;
mod account;
mod account_rules;
mod directory;
mod entra;
mod error;
mod id_token;
mod jwks;
mod provider;
#[cfg(test)]
pub(crate) mod tests;
mod token_response;
mod transport;

pub use aadsts::LoginErrorKind;
pub use account::{GroupMembership, Person};
pub use account_rules::{AccountRejection, ProviderApp, check_login};
pub use entra::Entra;
pub use error::{Error, PageText, ProviderTrace};
pub use provider::{AuthRequest, Provider, ProviderLogin, ProviderProblem};
