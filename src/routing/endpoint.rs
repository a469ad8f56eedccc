//! The paths that a tenant owns below its prefix.

/// What a path asks of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `{prefix}/mcp`
    Mcp,
    /// `{prefix}/` (and `{prefix}`)
    Page,
    /// A discovery document in any of its spellings, in or outside the prefix.
    Discovery,
    /// `{prefix}/authorize`, `/token`, `/register`, `/revoke`, `/introspect`, `/consent`, `/auth/…`
    OAuth,
}

/// First segments below its prefix that are a tenant's own: no other tenant's prefix may begin with them.
const OWN_SEGMENTS: [&str; 9] =
    ["mcp", "authorize", "token", "register", "revoke", "introspect", "consent", "auth", ".well-known"];

/// Whether `segment`, directly below a prefix, is its tenant's own in any case.
pub(super) fn is_own_segment(segment: &str) -> bool {
    OWN_SEGMENTS.iter().any(|own| own.eq_ignore_ascii_case(segment))
}

impl Endpoint {
    /// The endpoint at `rest`, what remains of a path after its tenant's prefix. Exact; nothing is below an endpoint
    /// but the callbacks below `/auth/`.
    pub(super) fn at(rest: &str) -> Option<Self> {
        match rest {
            "/mcp" => Some(Self::Mcp),
            "" | "/" => Some(Self::Page),
            "/authorize" | "/token" | "/register" | "/revoke" | "/introspect" | "/consent" => {
                Some(Self::OAuth)
            }
            _ => match rest.strip_prefix("/.well-known/") {
                Some(document) => matches!(
                    document,
                    "oauth-authorization-server"
                        | "openid-configuration"
                        | "oauth-protected-resource"
                        | "oauth-protected-resource/mcp"
                )
                .then_some(Self::Discovery),
                None => rest.strip_prefix("/auth/").filter(|step| !step.is_empty()).map(|_| Self::OAuth),
            },
        }
    }
}
