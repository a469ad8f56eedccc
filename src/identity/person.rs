//! An account that has proven itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Somebody who logged in. `tid` and `oid` identify the account for ever; the names are for eyes and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The directory's id.
    pub tid: Arc<str>,
    /// The account's id in it.
    pub oid: Arc<str>,
    /// What people call them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// `preferred_username`: changes, and is given to others in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Arc<str>>,
    /// Values of the app roles they were assigned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Arc<str>>,
    pub groups: Groups,
    /// An account of another directory that was invited into this one.
    pub guest: bool,
}

/// The groups somebody is in, as far as the token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Groups {
    /// Object ids; empty also where the app's registration asks for no `groups` claim.
    Known(Vec<Arc<str>>),
    /// More than fit into a token, so that none is told.
    TooMany,
}
