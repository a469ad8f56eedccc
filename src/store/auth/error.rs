//! Why the auth store did not do what it was asked to.

use std::fmt;

/// A failure of the auth store. Callers tell failures apart by their kind only; the rest is for
/// people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The store cannot be read or written now. What was asked for did not happen, or it is unknown
    /// whether it did; asking again does it once.
    Unavailable,
    /// A value does not open: it was sealed with another key, or changed.
    Corrupt,
    /// The call did not come to its end, because the gateway shuts down or its code panicked.
    Interrupted,
}

impl Error {
    pub(super) fn interrupted() -> Self {
        crate::store::Error::Interrupted.into()
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Self {
        let kind = match &error {
            crate::store::Error::CannotUnseal => ErrorKind::Corrupt,
            crate::store::Error::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Unavailable,
        };
        Self { kind, cause: error.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}
