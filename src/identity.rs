//! Floor 2: who somebody is, according to Microsoft Entra ID (OpenID Connect Core 1.0 over Entra's v2.0 endpoints).
//!
//! Owns: the addresses of Entra's endpoints, its keys, the redemption of codes, and the one function that judges
//! id_tokens. Promises: what comes out as a [`Person`] was signed by Entra for this tenant's app and is of an account
//! that the tenant takes; no token of Entra's leaves this module but the refresh token; every exchange has a deadline and a
//! bound. Leaves to `oauth`: cookies, consent, what becomes of a person, and keeping the refresh token sealed.

mod aadsts;
mod admission;
mod answer;
mod directory;
mod entra;
mod error;
mod id_token;
mod keys;
mod person;
mod provider;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

pub use aadsts::Kind;
pub use admission::{Inadmissible, Upstream, admits};
pub use entra::Entra;
pub use error::{Error, Page, Trace};
pub use person::{Groups, Person};
pub use provider::{Ask, Login, Provider, Trouble};
