//! The paths that a tenant owns below its prefix, and the paths in front of it that describe it.

use crate::spec::Resource;

/// The endpoint of a tenant that a path names. A trailing slash makes a difference only for the
/// metadata that repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `{prefix}/mcp`
    Mcp,
    /// `{prefix}/` (and `{prefix}`)
    Page,
    /// A document from which clients learn about the tenant's login.
    Discovery(Document),
    /// An endpoint of its authorization server.
    OAuth(Step),
}

/// A document that describes a tenant. Each has several URLs, since clients guess differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// Metadata of the protected resource in this spelling (RFC 9728).
    Resource(Resource),
    /// Metadata of the authorization server (RFC 8414, also under OpenID Connect Discovery's name).
    Server,
    /// The public keys (RFC 7517), at `{prefix}/.well-known/jwks.json`.
    Keys,
}

/// An endpoint of a tenant's authorization server, directly below its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Authorize,
    Consent,
    /// `/auth/ms-callback`, the redirect URI registered at Microsoft.
    Callback,
    Token,
    Register,
    Revoke,
    Introspect,
}

/// The first segments below a prefix that belong to its tenant: no other tenant's prefix may begin
/// with them.
const OWN_SEGMENTS: [&str; 9] =
    ["mcp", "authorize", "token", "register", "revoke", "introspect", "consent", "auth", ".well-known"];

/// Returns whether `segment`, directly below a prefix, belongs to its tenant, regardless of case.
pub(super) fn is_own_segment(segment: &str) -> bool {
    OWN_SEGMENTS.iter().any(|own| own.eq_ignore_ascii_case(segment))
}

impl Endpoint {
    /// Returns the endpoint at `rest`, the part of a path behind the tenant's prefix.
    pub(super) fn at(rest: &str) -> Option<Self> {
        let plain = match rest {
            "" | "/" => return Some(Self::Page),
            _ => rest.strip_suffix('/').unwrap_or(rest),
        };
        match plain {
            "/mcp" => Some(Self::Mcp),
            "/mcp/.well-known/oauth-protected-resource" => {
                Some(Self::Discovery(Document::Resource(Resource::Connector)))
            }
            "/mcp/.well-known/oauth-authorization-server" | "/mcp/.well-known/openid-configuration" => {
                Some(Self::Discovery(Document::Server))
            }
            _ => match rest.strip_prefix("/.well-known/") {
                Some(document) => readings(document)
                    .into_iter()
                    .flatten()
                    .find(|(_, prefix)| prefix.is_empty())
                    .map(|(document, _)| Self::Discovery(document)),
                None => Step::at(plain).map(Self::OAuth),
            },
        }
    }

    /// Returns whether a client that does not know of prefixes would request this path of a host.
    /// No tenant can be there, since the path does not say which one is meant.
    pub fn is_missing_its_prefix(path: &str) -> bool {
        matches!(Self::at(path), Some(Self::Discovery(_) | Self::OAuth(_)))
    }
}

impl Step {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/authorize" => Some(Self::Authorize),
            "/consent" => Some(Self::Consent),
            "/auth/ms-callback" => Some(Self::Callback),
            "/token" => Some(Self::Token),
            "/register" => Some(Self::Register),
            "/revoke" => Some(Self::Revoke),
            "/introspect" => Some(Self::Introspect),
            _ => None,
        }
    }
}

/// Parses the last part of a discovery path: `oauth-authorization-server{prefix}[/mcp]`,
/// `openid-configuration{prefix}[/mcp]`, `oauth-protected-resource{prefix}[/mcp]` or `jwks.json`.
/// Returns both readings, with everything behind the name as the prefix, and without `/mcp`.
pub(super) fn readings(document: &str) -> [Option<(Document, &str)>; 2] {
    let (name, rest) = document.split_at(document.find('/').unwrap_or(document.len()));
    let prefix = rest.strip_suffix('/').unwrap_or(rest);
    let of_connector = prefix.strip_suffix("/mcp");
    match name {
        "oauth-authorization-server" | "openid-configuration" => {
            [Some((Document::Server, prefix)), of_connector.map(|prefix| (Document::Server, prefix))]
        }
        "oauth-protected-resource" => {
            let spelling = if rest.ends_with('/') { Resource::ConnectorSlash } else { Resource::Connector };
            let connector = of_connector.map(|prefix| (Document::Resource(spelling), prefix));
            // Refusals point to the URL directly below a prefix (`PublicUrl::resource_metadata`).
            // It describes the endpoint that refused, since clients compare the two; the base is
            // spelled with a slash there.
            let plain = if rest.is_empty() { Resource::Connector } else { Resource::Base };
            [Some((Document::Resource(plain), prefix)), connector]
        }
        "jwks.json" => [prefix.is_empty().then_some((Document::Keys, prefix)), None],
        _ => [None, None],
    }
}
