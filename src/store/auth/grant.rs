//! A grant, from its authorization code to its last refresh token, and the revocation of its access
//! tokens. The payload is data of the caller.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::incarnation::Incarnation;
use crate::base::digest::Digest;
use crate::base::{hex, random};

/// The id of a grant, unique across all tenants and for all time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantId(pub(super) [u8; 16]);

impl GrantId {
    /// Generates an id that cannot be guessed.
    pub fn random() -> Self {
        Self(random::bytes())
    }

    /// Parses 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_small = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        hex::decode(text).filter(|_| is_small).map(Self)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantId({self})")
    }
}

/// A new grant whose authorization code is about to be issued.
#[derive(Debug)]
pub struct CreateGrant {
    /// The id of the grant.
    pub id: GrantId,
    /// The client that the person allowed.
    pub client_id: String,
    /// When the code is issued.
    pub now: Timestamp,
    /// When the code expires.
    pub code_expires_at: Timestamp,
    /// The key from which the one-time tokens are derived.
    pub family_key: [u8; 32],
    /// What the person granted, in the clear; it is sealed before it reaches the disk.
    pub payload: Vec<u8>,
}

/// A grant that has not expired.
pub struct Grant {
    /// The id of the grant.
    pub id: GrantId,
    /// The client that it was given to.
    pub client_id: String,
    /// The number of the one-time token issued last.
    pub last_sequence: u32,
    /// What is known of that token.
    pub last_token: LastToken,
    /// When the grant ends, however often it is refreshed.
    pub ends_at: Timestamp,
    /// The key from which the one-time tokens are derived.
    pub family_key: [u8; 32],
    /// What the person granted, in the clear.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("id", &self.id)
            .field("number", &self.last_sequence)
            .finish_non_exhaustive()
    }
}

/// What the store knows of the one-time token that a grant issued last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastToken {
    /// How long ago it was issued, by the clock of the store.
    pub age: SignedDuration,
    /// Whether it may have reached nobody: the gateway that issued it did not learn that it had, or
    /// did not come to answer with it.
    pub is_unconfirmed: bool,
}

/// A grant in a list, without what its tokens derive from.
pub struct ListedGrant {
    /// The tenant's incarnation that it belongs to.
    pub incarnation: Incarnation,
    /// The id of the grant.
    pub id: GrantId,
    /// The client that it was given to.
    pub client_id: String,
    /// When the last one-time token was issued.
    pub issued_at: Timestamp,
    /// When the grant ends, unless it is refreshed before.
    pub expires_at: Timestamp,
    /// When the grant ends, however often it is refreshed.
    pub ends_at: Timestamp,
    /// What the person granted, in the clear; `None` if the row was tampered with.
    pub payload: Option<Vec<u8>>,
}

impl fmt::Debug for ListedGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedGrant").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The place of a grant in the order in which grants are listed: by tenant, then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantCursor {
    /// The name of the grant's tenant.
    pub tenant: Arc<str>,
    /// The id of the grant.
    pub id: GrantId,
}

/// The step from one one-time token of a grant to the next.
#[derive(Debug)]
pub struct RotateGrant {
    /// The id of the grant.
    pub id: GrantId,
    /// The number of the token that is used up.
    pub from_sequence: u32,
    /// The client that presented it.
    pub client_id: String,
    /// When the next token is issued.
    pub now: Timestamp,
    /// When the next token expires.
    pub expires_at: Timestamp,
    /// When the grant ends, however often it is refreshed.
    pub ends_at: Timestamp,
    /// The new details of the grant, in the clear; they are sealed before they reach the disk.
    pub payload: Vec<u8>,
}

/// The subject of a revocation: the access tokens of one grant or of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevokedSubject {
    /// The id of a grant.
    Grant(GrantId),
    /// The digest of a client's id.
    Client(Digest),
}

impl RevokedSubject {
    /// Returns the subject as it is stored.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Grant(id) => &id.0,
            Self::Client(digest) => digest.as_bytes(),
        }
    }

    /// Tells grants and clients apart by the length of their ids.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let client = || bytes.try_into().ok().map(|bytes| Self::Client(Digest::from_bytes(bytes)));
        bytes.try_into().ok().map(|id| Self::Grant(GrantId(id))).or_else(client)
    }
}

/// A revocation of access tokens that have not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Whose access tokens are revoked.
    pub subject: RevokedSubject,
    /// Tokens issued up to this time are revoked.
    pub issued_until: Timestamp,
    /// By this time all of them have expired.
    pub forget_at: Timestamp,
}

/// All revocations in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoredRevocations {
    /// The revocations that opened, each with the incarnation it belongs to.
    pub known: Vec<(Incarnation, Revocation)>,
    /// How many revocations were tampered with, so that it is unknown whose tokens they meant.
    pub unreadable: usize,
}
