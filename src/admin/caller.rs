//! Who sends a request to the admin listener, and what they may do.

use super::account::Ends;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// See everything.
    Read,
    /// Change things, too.
    Operate,
}

/// The caller of one request.
#[derive(Debug)]
pub(super) struct AdminCaller {
    /// The ends of the connection, which tell the account on this machine.
    pub(super) ends: Ends,
    /// What they may do; `None` is nothing but what everybody may.
    pub(super) role: Option<Role>,
}

impl AdminCaller {
    /// Returns the caller at the other end of a connection: who is on this machine may change
    /// things.
    pub(super) fn at(ends: Ends) -> Self {
        let is_here = ends.peer.ip().to_canonical().is_loopback();
        Self { ends, role: Some(if is_here { Role::Operate } else { Role::Read }) }
    }
}
