//! The error that all parts of the authorization server share.

/// An internal failure. It says nothing about the caller's credentials, so the response is 503 and
/// never 401, over which clients would discard them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway cannot reach its own records now")]
pub struct Unavailable;
