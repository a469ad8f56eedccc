//! A block: an account that an operator keeps out. What it says is data of the caller.

use std::fmt;

use crate::base::{hex, random};

/// The id of a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub(super) [u8; 16]);

/// All blocks in the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoredBlocks {
    /// The blocks that opened, with what they say, in the clear.
    pub known: Vec<(BlockId, Vec<u8>)>,
    /// The blocks that were tampered with, so that it is unknown whom they keep out.
    pub unreadable: Vec<BlockId>,
}

impl BlockId {
    /// Generates an id.
    pub fn random() -> Self {
        Self(random::bytes())
    }

    /// Returns the id with these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Parses 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({self})")
    }
}
