//! JSON documents that stay text: validated and bounded in one pass, never parsed into a tree.
//!
//! A tree of JSON takes 40 to 70 times the memory of its text, and it alters values that do not fit
//! its types, such as numbers with many digits. A [`JsonDocument`] is its own text in compact form
//! (RFC 8259, no white space between tokens). A [`JsonNode`] finds parts of it in place; where its
//! larger arrays and objects end is kept beside the text, in an eighth of its size at most.
//!
//! Input that Python's `json` module accepts beyond RFC 8259 is accepted as well, because backends
//! are written with it: `NaN` and `Infinity` become `null`, half a surrogate pair becomes U+FFFD,
//! and raw control characters in strings are escaped. [`JsonDocument::repairs`] returns which of
//! these changed the meaning.

mod node;
mod scan;
mod spans;
#[cfg(test)]
mod tests;

use std::fmt;

pub use node::{JsonItems, JsonKind, JsonMembers, JsonNode, JsonString, JsonStrings};
pub use scan::Repairs;
use spans::ContainerSpans;

/// The bounds of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Bytes of the compact form.
    pub bytes: usize,
    /// Nesting depth of arrays and objects, 127 at most.
    pub depth: usize,
    /// Number of values of any kind; member names do not count.
    pub values: usize,
}

/// The reason why a text is not an acceptable document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("it is not JSON (byte {at})")]
    Syntax { at: usize },
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is nested too deeply")]
    TooDeep,
    #[error("it has too many values")]
    TooManyValues,
    #[error("it is too large")]
    TooLarge,
}

/// A complete JSON value as compact text.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonDocument {
    text: String,
    spans: ContainerSpans,
    repairs: Repairs,
}

/// A validated text whose compact form has not been made yet.
#[derive(Debug)]
pub struct CheckedJson {
    text: String,
    summary: scan::ScanSummary,
    limits: JsonLimits,
}

impl CheckedJson {
    /// Validates a text without allocating memory.
    ///
    /// # Errors
    /// The first fault in the text, or the first limit that it exceeds.
    pub fn check(text: Vec<u8>, limits: &JsonLimits) -> Result<Self, JsonError> {
        let text = String::from_utf8(text).map_err(|_| JsonError::NotUtf8)?;
        let summary = scan::measure(&text, limits)?;
        Ok(Self { text, summary, limits: *limits })
    }

    /// Returns how many bytes the document will allocate in addition to the text.
    pub fn extra_bytes(&self) -> usize {
        let text = if self.summary.is_compact { 0 } else { self.summary.length };
        text + ContainerSpans::max_bytes(self.summary.length)
    }

    /// Makes the compact form.
    pub fn into_document(self) -> JsonDocument {
        let Self { text, summary, limits } = self;
        if summary.is_compact {
            return JsonDocument::new(text, summary.repairs);
        }
        let mut compact = String::with_capacity(summary.length);
        scan::write_compact(&text, &limits, &mut compact).expect("it was checked");
        JsonDocument::new(compact, summary.repairs)
    }
}

impl JsonDocument {
    fn new(text: String, repairs: Repairs) -> Self {
        Self { spans: ContainerSpans::find(&text), text, repairs }
    }

    /// Validates a text and makes its compact form.
    ///
    /// Allocates an eighth of the text's length for spans, and unless `text` is compact already the
    /// length of the compact form, [`JsonLimits::bytes`] at most, for which it frees `text`.
    ///
    /// # Errors
    /// The first fault in the text, or the first limit that it exceeds.
    pub fn parse(text: Vec<u8>, limits: &JsonLimits) -> Result<Self, JsonError> {
        CheckedJson::check(text, limits).map(CheckedJson::into_document)
    }

    /// Returns the root value.
    pub fn root(&self) -> JsonNode<'_> {
        JsonNode::root(self)
    }

    /// Returns the compact text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the length of the text in bytes.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// Releases unused capacity. Call it on documents that are kept.
    pub fn into_shrunk(mut self) -> Self {
        self.text.shrink_to_fit();
        self.spans.shrink_to_fit();
        self
    }

    /// Returns how many bytes of memory the text and its spans occupy.
    pub fn capacity(&self) -> usize {
        self.text.capacity() + self.spans.capacity()
    }

    /// Returns which repairs changed the meaning of the document.
    pub fn repairs(&self) -> Repairs {
        self.repairs
    }
}

#[cfg(test)]
impl JsonDocument {
    /// Creates a document from a value.
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self::new(value.to_string(), Repairs::default())
    }

    /// Parses the document the way most readers do.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).expect("a document is JSON")
    }
}

impl AsRef<[u8]> for JsonDocument {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Shows only the size, because a document may hold personal data.
impl fmt::Debug for JsonDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonDocument").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}
