//! JSON documents that stay text: read once, checked and bounded while they are read, and never made into a tree.
//!
//! A tree of JSON takes 40 to 70 times the bytes of its text and changes what does not fit its types, such as numbers
//! with many digits. A [`Document`] is its own text, in one compact form (RFC 8259, no white space between tokens). Its
//! parts are looked up where they stand, by [`Node`], which costs a pass over what is skipped and no memory.
//!
//! What Python's `json` module takes beyond RFC 8259 is taken as well, because backends are written with it: `NaN` and
//! `Infinity` become `null`, half a surrogate pair becomes U+FFFD, raw control characters in strings are escaped.
//! [`Document::repairs`] says what was changed in meaning.

mod node;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;

pub use node::{Items, Kind, Members, Node, Text, Texts};
pub use scan::Repairs;

/// What a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the compact form.
    pub bytes: usize,
    /// Arrays and objects within each other, 127 at most.
    pub depth: usize,
    /// Values of any kind, names of members not counted.
    pub values: usize,
}

/// Why a text is no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is not JSON (byte {at})")]
    Syntax { at: usize },
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("it holds too many values")]
    TooManyValues,
    #[error("it is too large")]
    TooLarge,
}

/// A whole JSON value, as compact text.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    text: String,
    repairs: Repairs,
}

/// A text that is a document, before its compact form is made.
#[derive(Debug)]
pub struct Checked {
    text: String,
    read: scan::Read,
    limits: Limits,
}

impl Checked {
    /// Checks a text, and takes no memory.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub fn check(text: Vec<u8>, limits: &Limits) -> Result<Self, Fault> {
        let text = String::from_utf8(text).map_err(|_| Fault::NotUtf8)?;
        let read = scan::measure(&text, limits)?;
        Ok(Self { text, read, limits: *limits })
    }

    /// How many bytes of memory the compact form takes besides the text.
    pub fn needs(&self) -> usize {
        if self.read.is_compact { 0 } else { self.read.length }
    }

    /// Makes the compact form.
    pub fn into_document(self) -> Document {
        let Self { text, read, limits } = self;
        if read.is_compact {
            return Document { text, repairs: read.repairs };
        }
        let mut compact = String::with_capacity(read.length);
        scan::write(&text, &limits, &mut compact).expect("it was checked");
        Document { text: compact, repairs: read.repairs }
    }
}

impl Document {
    /// Reads a document. Takes no memory besides `text`, unless the compact form differs: then the length of that form,
    /// [`Limits::bytes`] at most, and `text` is given back.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub fn parse(text: Vec<u8>, limits: &Limits) -> Result<Self, Fault> {
        Checked::check(text, limits).map(Checked::into_document)
    }

    /// The value as a whole.
    pub fn root(&self) -> Node<'_> {
        Node::whole(&self.text)
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many bytes the text has.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// The same in no more memory than its text needs: for what is kept.
    pub fn shrunk(mut self) -> Self {
        self.text.shrink_to_fit();
        self
    }

    /// How many bytes of memory the text takes.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// What was changed in meaning.
    pub fn repairs(&self) -> Repairs {
        self.repairs
    }
}

#[cfg(test)]
impl Document {
    /// The document of a value.
    pub fn of(value: &serde_json::Value) -> Self {
        Self { text: value.to_string(), repairs: Repairs::default() }
    }

    /// What most readers make of it.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).expect("a document is JSON")
    }
}

impl AsRef<[u8]> for Document {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Without what it says: a document may be anybody's data.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}
