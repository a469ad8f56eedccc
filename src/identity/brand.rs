//! What a provider calls itself and its parts, for the texts that people read. Each provider
//! supplies one.

/// The words of an identity provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brand {
    /// Whose login it is: "log in with …".
    pub name: &'static str,
    /// The service behind the login.
    pub service: &'static str,
    /// What the provider calls the entry that a tenant's operator makes there.
    pub app: &'static str,
    /// Where redirect URIs are registered, in short.
    pub redirect_uris: &'static str,
    /// How the provider says that it does not know a redirect URI.
    pub redirect_uri_error: &'static str,
    /// What the redirect URI is then added to.
    pub redirect_uri_place: &'static str,
    /// How to have the provider tell the groups of people who are in many.
    pub groups_advice: &'static str,
}
