//! Floor 1: pure path logic. Which tenant a path belongs to, and what of the tenant it asks for.
//!
//! Request paths are never decoded and re-interpreted.

use crate::spec::{Mount, TenantName};

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

/// A request path that was refused before routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("the path is not in origin form")]
    NotOriginForm,
    #[error("the path has a character that belongs percent-encoded")]
    Character,
    #[error("the path has an encoded slash, dot, backslash, percent sign or NUL")]
    Encoded,
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has an empty segment")]
    EmptySegment,
}

/// Refuses spellings that some other party might read as another path. The query is not looked at.
pub fn check_path(_path: &str) -> Result<(), PathFault> {
    unimplemented!("owner: routing")
}

/// Hosts and prefixes to `T`: longest whole-segment prefix on the request's host.
#[derive(Debug, Clone)]
pub struct Router<T> {
    _marker: std::marker::PhantomData<T>,
}

impl<T> Router<T> {
    pub fn new() -> Self {
        Self { _marker: std::marker::PhantomData }
    }

    /// Adds a mount. The caller has judged the claims; a second value for one mount replaces the first.
    pub fn insert(&mut self, _mount: &Mount, _value: T) {
        unimplemented!("owner: routing")
    }

    /// Whether `host` (lower case, no port) is some tenant's own.
    pub fn owns_host(&self, _host: &str) -> bool {
        unimplemented!("owner: routing")
    }

    /// The value whose path this is, and what it asks for. `host` is lower case without port; a host that is no
    /// tenant's own is the gateway's. Discovery outside the prefix (`/.well-known/oauth-…/acme[/mcp]`) included.
    pub fn find(&self, _host: &str, _path: &str) -> Option<(&T, Endpoint)> {
        unimplemented!("owner: routing")
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// One tenant's claim to its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub tenant: TenantName,
    pub mounts: Vec<Mount>,
    /// It held these mounts before this pass: incumbents win. Among equals the order of `claims` decides.
    pub incumbent: bool,
}

/// A claim that lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub loser: TenantName,
    pub holder: TenantName,
    pub mount: Mount,
    pub kind: ConflictKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// The same prefix on the same host.
    Same,
    /// They differ in case only.
    CaseOnly,
    /// The prefix would take one of the holder's own paths, e.g. `/a/mcp` of `/a`.
    TakesEndpoint,
}

/// Judges the claims of a whole pass. Every loser is named once, with its first conflict.
pub fn judge(_claims: &[Claim]) -> Vec<Conflict> {
    unimplemented!("owner: routing")
}
