//! The error that all parts of the authorization server share.

use crate::store;

/// An internal failure. It says nothing about the caller's credentials, so the response is 503 and
/// never 401, over which clients would discard them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the gateway cannot reach its store now")]
pub struct Unavailable;

impl Unavailable {
    /// Logs a failure of the store, which is an internal one.
    pub(super) fn from_store(error: store::auth::Error) -> Self {
        if error.kind() != store::auth::ErrorKind::Interrupted {
            tracing::error!(%error, "the store cannot be used, so logins must wait");
        }
        Self
    }
}
