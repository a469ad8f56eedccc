//! Parts of a document, located in its text.

use std::borrow::Cow;

use super::JsonDocument;
use super::scan::{code_unit, find_string_end, find_value_end};

/// A value within a document. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonNode<'a> {
    document: &'a JsonDocument,
    start: usize,
    end: usize,
}

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A string or a member's name, in its escaped form between the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonString<'a>(&'a str);

impl<'a> JsonNode<'a> {
    pub(super) fn root(document: &'a JsonDocument) -> Self {
        Self { document, start: 0, end: document.size() }
    }

    fn at(document: &'a JsonDocument, start: usize) -> Self {
        let bytes = document.text.as_bytes();
        let is_container = matches!(bytes.get(start), Some(b'{' | b'['));
        let span_end = if is_container { document.spans.find_end(start) } else { None };
        Self { document, start, end: span_end.unwrap_or_else(|| find_value_end(bytes, start)) }
    }

    /// Returns the type of the value.
    pub fn kind(self) -> JsonKind {
        match self.document.text.as_bytes().get(self.start) {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Array,
            Some(b'"') => JsonKind::String,
            Some(b't' | b'f') => JsonKind::Bool,
            Some(b'n') | None => JsonKind::Null,
            Some(_) => JsonKind::Number,
        }
    }

    /// Whether the value is an object or an array.
    pub fn is_container(self) -> bool {
        matches!(self.kind(), JsonKind::Object | JsonKind::Array)
    }

    /// Returns the JSON text of the value.
    pub fn raw(self) -> &'a str {
        &self.document.text[self.start..self.end]
    }

    /// Returns the byte offset in the document at which the value starts.
    pub fn start(self) -> usize {
        self.start
    }

    /// Returns the byte offset in the document at which the value ends.
    pub fn end(self) -> usize {
        self.end
    }

    /// Returns the string, if the value is one.
    pub fn string(self) -> Option<JsonString<'a>> {
        (self.kind() == JsonKind::String)
            .then(|| JsonString(&self.document.text[self.start + 1..self.end - 1]))
    }

    /// Iterates over the members of an object in document order; over nothing for other values.
    pub fn members(self) -> JsonMembers<'a> {
        let is_empty = self.kind() != JsonKind::Object || self.end - self.start <= 2;
        JsonMembers { document: self.document, at: if is_empty { None } else { Some(self.start + 1) } }
    }

    /// Iterates over the items of an array; over nothing for other values.
    pub fn items(self) -> JsonItems<'a> {
        let is_empty = self.kind() != JsonKind::Array || self.end - self.start <= 2;
        JsonItems { document: self.document, at: if is_empty { None } else { Some(self.start + 1) } }
    }

    /// Iterates over all strings within the value, member names included, in one pass.
    pub fn strings(self) -> JsonStrings<'a> {
        JsonStrings { text: self.raw(), at: 0 }
    }

    /// Returns the member of this name. Of duplicates it is the last, the one that most readers
    /// keep.
    pub fn get(self, name: &str) -> Option<JsonNode<'a>> {
        let [found] = self.get_many(&[name]);
        found
    }

    /// Returns the members of these names, found in one pass.
    pub fn get_many<const N: usize>(self, names: &[&str; N]) -> [Option<JsonNode<'a>>; N] {
        let mut found = [None; N];
        for (name, value) in self.members() {
            if let Some(index) = names.iter().position(|wanted| name.equals(wanted)) {
                found[index] = Some(value);
            }
        }
        found
    }
}

/// An iterator over the members of an object.
#[derive(Debug, Clone)]
pub struct JsonMembers<'a> {
    document: &'a JsonDocument,
    /// The offset of the next name.
    at: Option<usize>,
}

impl<'a> Iterator for JsonMembers<'a> {
    type Item = (JsonString<'a>, JsonNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at?;
        let bytes = self.document.text.as_bytes();
        let end = find_string_end(bytes, start);
        let name = JsonString(self.document.text.get(start + 1..end - 1)?);
        let value = JsonNode::at(self.document, end + 1);
        self.at = (bytes.get(value.end) == Some(&b',')).then_some(value.end + 1);
        Some((name, value))
    }
}

/// An iterator over the items of an array.
#[derive(Debug, Clone)]
pub struct JsonItems<'a> {
    document: &'a JsonDocument,
    at: Option<usize>,
}

impl<'a> Iterator for JsonItems<'a> {
    type Item = JsonNode<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = JsonNode::at(self.document, self.at?);
        self.at = (self.document.text.as_bytes().get(item.end) == Some(&b',')).then_some(item.end + 1);
        Some(item)
    }
}

/// An iterator over all strings within a value.
#[derive(Debug, Clone)]
pub struct JsonStrings<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for JsonStrings<'a> {
    type Item = JsonString<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let start = self.at + bytes.get(self.at..)?.iter().position(|byte| *byte == b'"')?;
        self.at = find_string_end(bytes, start);
        self.text.get(start + 1..self.at - 1).map(JsonString)
    }
}

impl<'a> JsonString<'a> {
    /// Whether the decoded string equals `other`.
    pub fn equals(self, other: &str) -> bool {
        match self.plain() {
            Some(plain) => plain == other,
            None => self.chars().eq(other.chars()),
        }
    }

    /// Whether both decoded strings are equal.
    pub fn same_as(self, other: JsonString<'_>) -> bool {
        self.0 == other.0
            || other.plain().map_or_else(|| self.chars().eq(other.chars()), |plain| self.equals(plain))
    }

    /// Returns the string if no character of it is escaped.
    pub fn plain(self) -> Option<&'a str> {
        (!self.0.as_bytes().contains(&b'\\')).then_some(self.0)
    }

    /// Returns the decoded string.
    pub fn decode(self) -> Cow<'a, str> {
        match self.plain() {
            Some(plain) => Cow::Borrowed(plain),
            None => Cow::Owned(self.chars().collect()),
        }
    }

    /// Returns the start of the decoded string, at most `bytes` bytes, and whether that is all of
    /// it.
    pub fn prefix(self, bytes: usize) -> (Cow<'a, str>, bool) {
        // An escape sequence is never shorter than the character it encodes.
        if self.0.len() <= bytes {
            return (self.decode(), true);
        }
        // An escape sequence takes at most six bytes for each decoded byte.
        let raw = &self.0[..self.0.floor_char_boundary(bytes.saturating_mul(6).saturating_add(12))];
        if !raw.as_bytes().contains(&b'\\') {
            return (Cow::Borrowed(&raw[..raw.floor_char_boundary(bytes)]), raw.len() <= bytes);
        }
        let mut text = String::new();
        let mut chars = self.chars();
        for c in chars.by_ref() {
            if text.len() + c.len_utf8() > bytes {
                return (Cow::Owned(text), false);
            }
            text.push(c);
        }
        (Cow::Owned(text), true)
    }

    /// Iterates over the decoded characters.
    pub fn chars(self) -> impl Iterator<Item = char> + use<'a> {
        JsonChars { text: self.0, at: 0 }
    }

    /// Returns the string in its escaped form.
    pub fn raw(self) -> &'a str {
        self.0
    }
}

struct JsonChars<'a> {
    text: &'a str,
    at: usize,
}

impl Iterator for JsonChars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let c = self.text.get(self.at..)?.chars().next()?;
        if c != '\\' {
            self.at += c.len_utf8();
            return Some(c);
        }
        let bytes = self.text.as_bytes();
        let (c, length) = match bytes.get(self.at + 1) {
            Some(b'n') => ('\n', 2),
            Some(b't') => ('\t', 2),
            Some(b'r') => ('\r', 2),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'u') => decode_unicode_escape(bytes, self.at),
            Some(&other) => (char::from(other), 2),
            None => return None,
        };
        self.at += length;
        Some(c)
    }
}

/// Decodes a `\uXXXX` or a surrogate pair; returns the character and the bytes it takes.
fn decode_unicode_escape(bytes: &[u8], at: usize) -> (char, usize) {
    let units = [code_unit(bytes, at), code_unit(bytes, at + 6)].into_iter().flatten();
    match char::decode_utf16(units).next() {
        Some(Ok(c)) => (c, 6 * c.len_utf16()),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}
