//! The bytes of a result.
//!
//! rmcp's types take structured content as a tree and text as a string. Both exist as bytes
//! already, shared with the document that they come from. So a source returns an empty result for
//! rmcp together with a [`Payload`], and `protocol/payload_slot` replaces the empty members in
//! rmcp's output.

use std::sync::Arc;

use bytes::Bytes;
use rmcp::model::{CallToolResult, ResourceContents};
use serde_json::json;

use crate::backend;
use crate::base::budget::Reservation;
use crate::base::json::JsonDocument;

/// The empty members as rmcp writes them, of a tool result and of a resource.
pub(super) const NO_RESULT: &str = r#""content":[],"structuredContent":{}"#;
const NO_TEXT: &str = r#""text":"""#;

/// The bytes of a result. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    /// The text in rmcp's message that this payload replaces.
    instead_of: &'static str,
    pieces: Vec<Bytes>,
    readable: usize,
}

impl Payload {
    /// The members `content` and `structuredContent` of a tool result, with `readable` bytes of
    /// text for the model.
    pub(super) fn for_tool_result(pieces: Vec<Bytes>, readable: usize) -> Self {
        Self { instead_of: NO_RESULT, pieces, readable }
    }

    /// The member `text` of a resource, from a JSON string.
    pub(super) fn for_resource(string: Bytes) -> Self {
        let readable = string.len();
        Self { instead_of: NO_TEXT, pieces: vec![Bytes::from_static(br#""text":"#), string], readable }
    }

    /// Returns the text in rmcp's message that the payload replaces.
    pub(super) fn instead_of(&self) -> &'static str {
        self.instead_of
    }

    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    #[cfg(test)]
    pub(super) fn chunks(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Returns how many bytes the payload has besides those that it shares with a document.
    pub(super) fn bytes_besides(&self, document: &JsonDocument) -> usize {
        let is_own = |piece: &&Bytes| piece.as_ptr() != document.as_str().as_ptr();
        self.pieces.iter().filter(is_own).map(Bytes::len).sum()
    }

    /// Returns how many bytes the payload adds to a message.
    pub(super) fn total_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Returns how many bytes of text a model gets to read.
    pub(super) fn readable_bytes(&self) -> usize {
        self.readable
    }
}

/// Returns the tool result that a payload is written into.
pub(super) fn placeholder_result() -> CallToolResult {
    let mut result = CallToolResult::success(Vec::new());
    result.structured_content = Some(json!({}));
    result
}

/// Returns the resource that a payload is written into.
pub(super) fn placeholder_resource(uri: &str) -> ResourceContents {
    ResourceContents::text("", uri).with_mime_type("application/json")
}

/// Bytes with their reservation.
pub(super) struct ReservedBytes<T> {
    bytes: T,
    _reservation: Option<Reservation>,
}

impl<T> ReservedBytes<T> {
    pub(super) fn new(bytes: T, reservation: Option<Reservation>) -> Self {
        Self { bytes, _reservation: reservation }
    }
}

impl ReservedBytes<Vec<u8>> {
    /// Replaces a document's reservation of `held` bytes by one for `bytes`.
    pub(super) fn reserve(
        bytes: Vec<u8>,
        mut reservation: Option<Reservation>,
        held: usize,
    ) -> Result<Bytes, backend::Error> {
        if let Some(reservation) = &mut reservation {
            reservation.try_grow(bytes.capacity() as u64).map_err(backend::Error::BudgetExhausted)?;
            reservation.shrink(held as u64);
        }
        Ok(Bytes::from_owner(Self { bytes, _reservation: reservation }))
    }
}

impl AsRef<[u8]> for ReservedBytes<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for ReservedBytes<Arc<JsonDocument>> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_str().as_bytes()
    }
}
