//! Microsoft Entra ID (OpenID Connect over Entra's v2.0 endpoints). Everything that is Entra's own
//! is here: directories, kinds of accounts, claims, error codes, and the words for them.

mod aadsts;
mod accounts;
mod claims;
mod directories;
mod examination;
mod provider;

#[cfg(test)]
pub(super) use accounts::PERSONAL_ACCOUNTS_DIRECTORY;
pub(super) use directories::EntraConnection;
pub use provider::EntraProvider;

use super::brand::Brand;

/// The words of Entra.
pub(super) const BRAND: Brand = Brand {
    name: "Microsoft",
    service: "Entra",
    app: "app registration in Azure",
    redirect_uris: "Entra (platform Web)",
    redirect_uri_error: "Microsoft says that the redirect URI does not match (AADSTS50011)",
    redirect_uri_place: "the app in Entra, platform Web",
    groups_advice: "\"Groups assigned to the application\" in the app registration, or app roles instead of \
                    groups, solve this.",
};
