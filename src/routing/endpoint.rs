//! The paths that a tenant owns below its prefix, and those in front of it that describe it.

use crate::spec::Resource;

/// What a path asks of a tenant. A trailing slash makes no difference but to the metadata that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `{prefix}/mcp`
    Mcp,
    /// `{prefix}/` (and `{prefix}`)
    Page,
    /// What clients learn a tenant's login from.
    Discovery(Document),
    /// A step of its authorization server.
    OAuth(Step),
}

/// A document that describes a tenant. Each has several addresses, since clients guess differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// Of the protected resource in this spelling (RFC 9728).
    Resource(Resource),
    /// Of the authorization server (RFC 8414, and OpenID Connect Discovery's name for it).
    Server,
    /// The public keys (RFC 7517), `{prefix}/.well-known/jwks.json`.
    Keys,
}

/// An endpoint of a tenant's authorization server, directly below its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Authorize,
    Consent,
    /// `/auth/ms-callback`, to which Microsoft sends people back.
    Callback,
    Token,
    Register,
    Revoke,
    Introspect,
}

/// First segments below its prefix that are a tenant's own: no other tenant's prefix may begin with them.
const OWN_SEGMENTS: [&str; 9] =
    ["mcp", "authorize", "token", "register", "revoke", "introspect", "consent", "auth", ".well-known"];

/// Whether `segment`, directly below a prefix, is its tenant's own in any case.
pub(super) fn is_own_segment(segment: &str) -> bool {
    OWN_SEGMENTS.iter().any(|own| own.eq_ignore_ascii_case(segment))
}

impl Endpoint {
    /// The endpoint at `rest`, what remains of a path after its tenant's prefix.
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

    /// Whether a client that does not know of prefixes would ask for this path of a host: nothing can be there, since
    /// it would not say whose it is.
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

/// `oauth-authorization-server{prefix}[/mcp]`, `openid-configuration{prefix}[/mcp]`,
/// `oauth-protected-resource{prefix}[/mcp]` or `jwks.json`: with all that follows as the prefix, and without `/mcp`.
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
            // Directly below a prefix is what refusals point to (`PublicUrl::resource_metadata`): it describes the endpoint that
            // refused, since clients compare the two. The base is spelled with a slash there.
            let plain = if rest.is_empty() { Resource::Connector } else { Resource::Base };
            [Some((Document::Resource(plain), prefix)), connector]
        }
        "jwks.json" => [prefix.is_empty().then_some((Document::Keys, prefix)), None],
        _ => [None, None],
    }
}
