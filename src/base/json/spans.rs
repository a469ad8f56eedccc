//! Where the larger arrays and objects of a document end, so that they can be skipped.
//!
//! A tool's answer is looked through some ten times: for its rows, their number, its columns.
//! Without these spans each time would read all of its bytes.

use super::scan::{find_string_end, find_structural_byte};

/// The least bytes of a container that has a span; smaller ones are read again.
const MIN_BYTES: usize = 64;

/// The spans of a document's larger containers, by their start.
///
/// They take at most an eighth of the document's size; containers beyond that have none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ContainerSpans(Vec<Span>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl ContainerSpans {
    /// Returns how many bytes the spans of a document of `length` bytes will allocate.
    pub(super) fn max_bytes(length: usize) -> usize {
        Self::max_count(length) * size_of::<Span>()
    }

    /// Finds the spans of a validated compact text, in one pass. The pass that validates cannot
    /// find them, since it allocates nothing: memory is reserved only for what is valid.
    pub(super) fn find(text: &str) -> Self {
        let bytes = text.as_bytes();
        let max = Self::max_count(bytes.len());
        if max == 0 {
            return Self::default();
        }
        let mut spans = Vec::with_capacity(max);
        // The open containers: where each starts, and the index of its span if it has one.
        let mut open: Vec<(usize, Option<usize>)> = Vec::new();
        let mut at = 0;
        loop {
            at = find_structural_byte(bytes, at);
            match bytes.get(at) {
                None => break,
                Some(b'"') => at = find_string_end(bytes, at),
                Some(b'{' | b'[') => {
                    let has_room = spans.len() < max;
                    open.push((at, has_room.then_some(spans.len())));
                    if has_room {
                        spans.push(Span { start: to_offset(at), end: 0 });
                    }
                    at += 1;
                }
                Some(_) => {
                    at += 1;
                    let Some((start, index)) = open.pop() else { break };
                    match index {
                        // What is within a small container is smaller still, so its span is the
                        // last.
                        Some(index) if at - start < MIN_BYTES => spans.truncate(index),
                        Some(index) => spans[index].end = to_offset(at),
                        None => {}
                    }
                }
            }
        }
        Self(spans)
    }

    /// Returns the offset at which the container that starts at `start` ends, if it has a span.
    pub(super) fn find_end(&self, start: usize) -> Option<usize> {
        let start = u32::try_from(start).ok()?;
        let index = self.0.binary_search_by_key(&start, |span| span.start).ok()?;
        usize::try_from(self.0[index].end).ok()
    }

    /// Releases unused capacity.
    pub(super) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Returns how many bytes the spans occupy.
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity() * size_of::<Span>()
    }

    /// Offsets are 32 bits wide, so a document beyond that has no spans.
    fn max_count(length: usize) -> usize {
        if u32::try_from(length).is_ok() { length / MIN_BYTES } else { 0 }
    }
}

/// Narrows an offset into a document that is short enough for spans.
fn to_offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
