//! Floor 2: authentication of people at an identity provider (OpenID Connect Core 1.0).
//!
//! Owns: the provider's endpoints, its signing keys, the redemption of codes, and the verification
//! of id_tokens. Promises: every [`Account`] returned comes from an id_token that the provider
//! signed for this tenant's app, and is one that the tenant admits; the refresh token is the only
//! token of the provider that leaves this module; every exchange has a deadline and a bound.
//! Leaves to `oauth`: cookies, consent, what a person is allowed to do, and sealing the refresh
//! token.
//!
//! `oidc` has what OpenID Connect says of any provider, `entra` what is Microsoft Entra's own, its
//! words included. A new provider is a folder beside `entra`, a variant of [`Provider`] and one of
//! `ProviderSpec`.

mod account;
mod brand;
mod entra;
mod error;
mod examination;
mod exchange;
mod meaning;
mod oidc;
mod provider;
mod provider_login;
#[cfg(test)]
pub(crate) mod tests;

pub use account::{Account, AccountId, GroupMembership, RuleRejection};
pub use brand::Brand;
pub use entra::EntraProvider;
pub use error::{Error, PageText, ProviderTrace};
pub use examination::{AppExamination, ClockReading, Registration};
pub use exchange::ProviderProblem;
pub use meaning::LoginErrorKind;
pub use provider::{Provider, Providers, find_brand};
pub use provider_login::{AuthRequest, LoginRejection, ProviderApp, ProviderLogin};
