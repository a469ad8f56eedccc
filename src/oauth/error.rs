//! The one failure that all parts of the authorization server share.

/// Our own part fails. It says nothing about the caller's credentials, so no client may throw them away over it: 503, never 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway cannot reach its own records now")]
pub struct Unavailable;
