//! The paths that a tenant owns below its prefix, and the paths in front of it that describe it.

use crate::spec::ResourceSpelling;

/// The endpoint of a tenant that a path names. A trailing slash makes a difference only for the
/// metadata that repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `{prefix}/mcp`
    Mcp,
    /// `{prefix}/` (and `{prefix}`)
    Page,
    /// `{prefix}/favicon.ico`
    Icon,
    /// A document from which clients learn about the tenant's login.
    Discovery(DiscoveryDocument),
    /// An endpoint of its authorization server.
    OAuth(OAuthEndpoint),
}

/// A document that describes a tenant. Each has several URLs, since clients guess differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryDocument {
    /// Metadata of the protected resource in this spelling (RFC 9728).
    Resource(ResourceSpelling),
    /// Metadata of the authorization server (RFC 8414, also under OpenID Connect Discovery's name).
    AuthorizationServer,
    /// The public keys (RFC 7517), at `{prefix}/.well-known/jwks.json`.
    Jwks,
}

/// An endpoint of a tenant's authorization server, directly below its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthEndpoint {
    Authorize,
    Consent,
    /// `/auth/ms-callback`, the redirect URI registered at Microsoft.
    Callback,
    /// `/auth/account`, where a person sees and ends what is connected.
    Account,
    Token,
    Register,
    Revoke,
    Introspect,
}

/// The first segments below a prefix that belong to its tenant: no other tenant's prefix may begin
/// with them.
const RESERVED_SEGMENTS: [&str; 10] = [
    "mcp",
    "authorize",
    "token",
    "register",
    "revoke",
    "introspect",
    "consent",
    "auth",
    ".well-known",
    "favicon.ico",
];

/// Returns whether `segment`, directly below a prefix, belongs to its tenant, regardless of case.
pub(super) fn is_reserved_segment(segment: &str) -> bool {
    RESERVED_SEGMENTS.iter().any(|own| own.eq_ignore_ascii_case(segment))
}

impl Endpoint {
    /// Returns the endpoint at `rest`, the part of a path behind the tenant's prefix.
    pub(super) fn from_path(rest: &str) -> Option<Self> {
        let plain = match rest {
            "" | "/" => return Some(Self::Page),
            _ => rest.strip_suffix('/').unwrap_or(rest),
        };
        match plain {
            "/mcp" => Some(Self::Mcp),
            "/favicon.ico" => Some(Self::Icon),
            "/mcp/.well-known/oauth-protected-resource" => {
                Some(Self::Discovery(DiscoveryDocument::Resource(ResourceSpelling::Connector)))
            }
            "/mcp/.well-known/oauth-authorization-server" | "/mcp/.well-known/openid-configuration" => {
                Some(Self::Discovery(DiscoveryDocument::AuthorizationServer))
            }
            _ => match rest.strip_prefix("/.well-known/") {
                Some(document) => parse_discovery(document)
                    .into_iter()
                    .flatten()
                    .find(|(_, prefix)| prefix.is_empty())
                    .map(|(document, _)| Self::Discovery(document)),
                None => OAuthEndpoint::from_path(plain).map(Self::OAuth),
            },
        }
    }

    /// Returns whether a client that does not know of prefixes would request this path of a host.
    /// No tenant can be there, since the path does not say which one is meant.
    pub fn is_missing_prefix(path: &str) -> bool {
        matches!(Self::from_path(path), Some(Self::Discovery(_) | Self::OAuth(_)))
    }
}

impl OAuthEndpoint {
    /// Returns the path below the tenant's prefix.
    pub fn path(self) -> &'static str {
        match self {
            Self::Authorize => "/authorize",
            Self::Consent => "/consent",
            Self::Callback => "/auth/ms-callback",
            Self::Account => "/auth/account",
            Self::Token => "/token",
            Self::Register => "/register",
            Self::Revoke => "/revoke",
            Self::Introspect => "/introspect",
        }
    }

    fn from_path(path: &str) -> Option<Self> {
        match path {
            "/authorize" => Some(Self::Authorize),
            "/consent" => Some(Self::Consent),
            "/auth/ms-callback" => Some(Self::Callback),
            "/auth/account" => Some(Self::Account),
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
pub(super) fn parse_discovery(document: &str) -> [Option<(DiscoveryDocument, &str)>; 2] {
    let (name, rest) = document.split_at(document.find('/').unwrap_or(document.len()));
    let prefix = rest.strip_suffix('/').unwrap_or(rest);
    let of_connector = prefix.strip_suffix("/mcp");
    match name {
        "oauth-authorization-server" | "openid-configuration" => [
            Some((DiscoveryDocument::AuthorizationServer, prefix)),
            of_connector.map(|prefix| (DiscoveryDocument::AuthorizationServer, prefix)),
        ],
        "oauth-protected-resource" => {
            let spelling = if rest.ends_with('/') {
                ResourceSpelling::ConnectorSlash
            } else {
                ResourceSpelling::Connector
            };
            let connector = of_connector.map(|prefix| (DiscoveryDocument::Resource(spelling), prefix));
            // Refusals point to the URL directly below a prefix (`PublicUrl::resource_metadata`).
            // It describes the endpoint that refused, since clients compare the two; the base is
            // spelled with a slash there.
            let plain = if rest.is_empty() { ResourceSpelling::Connector } else { ResourceSpelling::Base };
            [Some((DiscoveryDocument::Resource(plain), prefix)), connector]
        }
        "jwks.json" => [prefix.is_empty().then_some((DiscoveryDocument::Jwks, prefix)), None],
        _ => [None, None],
    }
}
