//! The single pass over a text that checks the grammar of RFC 8259 and the limits, and produces the
//! compact form.

use super::{JsonError, JsonLimits};

/// The changes in meaning that made a text valid JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs {
    /// `NaN` or `Infinity` became `null`.
    pub numbers: bool,
    /// Half a surrogate pair became U+FFFD.
    pub surrogates: bool,
}

/// The result of a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanSummary {
    /// Bytes of the compact form.
    pub(super) length: usize,
    /// Whether the text is already in compact form.
    pub(super) is_compact: bool,
    pub(super) repairs: Repairs,
}

/// Validates a text and measures its compact form.
pub(super) fn measure(text: &str, limits: &JsonLimits) -> Result<ScanSummary, JsonError> {
    Scanner::new(text, limits, LengthCounter(0)).scan_document().map(|(summary, _)| summary)
}

/// Writes the compact form of a text.
pub(super) fn write_compact(text: &str, limits: &JsonLimits, out: &mut String) -> Result<(), JsonError> {
    Scanner::new(text, limits, out).scan_document().map(|_| ())
}

/// The destination of the compact form.
trait CompactSink {
    fn push(&mut self, text: &str);
    /// Returns the bytes added so far.
    fn length(&self) -> usize;
}

/// A sink that only counts bytes.
struct LengthCounter(usize);

impl CompactSink for LengthCounter {
    fn push(&mut self, text: &str) {
        self.0 += text.len();
    }

    fn length(&self) -> usize {
        self.0
    }
}

impl CompactSink for &mut String {
    fn push(&mut self, text: &str) {
        self.push_str(text);
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// Whether a value is complete, or a container whose contents follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueState {
    Complete,
    Opened,
}

struct Scanner<'a, S> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// The text before this offset is in the compact form; what follows goes there unchanged.
    copied_to: usize,
    out: S,
    is_compact: bool,
    repairs: Repairs,
    limits: &'a JsonLimits,
    /// Number of open arrays and objects, and a bit for each that is set for objects, innermost
    /// lowest.
    depth: usize,
    objects: u128,
    values: usize,
}

impl<'a, S: CompactSink> Scanner<'a, S> {
    fn new(text: &'a str, limits: &'a JsonLimits, out: S) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            copied_to: 0,
            out,
            is_compact: true,
            repairs: Repairs::default(),
            limits,
            depth: 0,
            objects: 0,
            values: 0,
        }
    }

    fn scan_document(mut self) -> Result<(ScanSummary, S), JsonError> {
        self.skip_whitespace();
        while self.scan_value()? == ValueState::Opened || self.scan_next_value()? {}
        self.copy_until(self.at);
        if self.out.length() > self.limits.bytes {
            return Err(JsonError::TooLarge);
        }
        let summary =
            ScanSummary { length: self.out.length(), is_compact: self.is_compact, repairs: self.repairs };
        Ok((summary, self.out))
    }

    /// Scans from the end of one value to the start of the next; returns whether there is one.
    fn scan_next_value(&mut self) -> Result<bool, JsonError> {
        loop {
            self.skip_whitespace();
            if self.depth == 0 {
                return if self.at == self.bytes.len() { Ok(false) } else { Err(self.syntax_error()) };
            }
            let in_object = self.objects & 1 == 1;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.skip_whitespace();
                    if in_object {
                        self.scan_member_name()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if in_object => self.close_container(),
                Some(b']') if !in_object => self.close_container(),
                _ => return Err(self.syntax_error()),
            }
        }
    }

    fn scan_value(&mut self) -> Result<ValueState, JsonError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(JsonError::TooManyValues);
        }
        match self.peek() {
            Some(b'"') => self.scan_string()?,
            Some(b'-' | b'0'..=b'9') => self.scan_number()?,
            Some(b'{') => return self.open_container(true, b'}'),
            Some(b'[') => return self.open_container(false, b']'),
            Some(b't') => self.expect_literal("true")?,
            Some(b'f') => self.expect_literal("false")?,
            Some(b'n') => self.expect_literal("null")?,
            Some(b'N') => self.replace_non_finite("NaN")?,
            Some(b'I') => self.replace_non_finite("Infinity")?,
            _ => return Err(self.syntax_error()),
        }
        Ok(ValueState::Complete)
    }

    fn open_container(&mut self, is_object: bool, end: u8) -> Result<ValueState, JsonError> {
        // 127 is the number of bits in `objects`, less one.
        if self.depth >= self.limits.depth.min(127) {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(is_object);
        self.skip_whitespace();
        if self.peek() == Some(end) {
            self.close_container();
            return Ok(ValueState::Complete);
        }
        if is_object {
            self.scan_member_name()?;
        }
        Ok(ValueState::Opened)
    }

    fn close_container(&mut self) {
        self.at += 1;
        self.depth -= 1;
        self.objects >>= 1;
    }

    /// Scans a member's name and the colon.
    fn scan_member_name(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax_error());
        }
        self.scan_string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return Err(self.syntax_error());
        }
        self.at += 1;
        self.skip_whitespace();
        Ok(())
    }

    fn scan_string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            self.at = find_special_byte(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.scan_escape()?,
                Some(control) => self.replace(1, escape_control_character(control).as_str()),
                None => return Err(self.syntax_error()),
            }
        }
    }

    fn scan_escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.code_unit(self.at).ok_or_else(|| self.syntax_error())?;
                let is_pair = || matches!(self.code_unit(self.at + 6), Some(0xDC00..=0xDFFF));
                match unit {
                    0xD800..=0xDBFF if is_pair() => self.at += 12,
                    0xD800..=0xDFFF => {
                        self.repairs.surrogates = true;
                        self.replace(6, "\u{FFFD}");
                    }
                    _ => self.at += 6,
                }
            }
            _ => return Err(self.syntax_error()),
        }
        Ok(())
    }

    /// Returns the code unit of the `\uXXXX` at `at`.
    fn code_unit(&self, at: usize) -> Option<u16> {
        code_unit(self.bytes, at)
    }

    fn scan_number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
            if self.peek() == Some(b'I') {
                self.at = start;
                return self.replace_non_finite("-Infinity");
            }
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.scan_digits()?,
            _ => return Err(self.syntax_error()),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.scan_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.scan_digits()?;
        }
        Ok(())
    }

    fn scan_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax_error()) } else { Ok(()) }
    }

    fn expect_literal(&mut self, literal: &str) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.syntax_error());
        }
        self.at += literal.len();
        Ok(())
    }

    /// Replaces Python's word for a number that JSON cannot express with `null`.
    fn replace_non_finite(&mut self, literal: &str) -> Result<(), JsonError> {
        let start = self.at;
        self.expect_literal(literal)?;
        self.at = start;
        self.repairs.numbers = true;
        self.replace(literal.len(), "null");
        Ok(())
    }

    fn skip_whitespace(&mut self) {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        if self.at > start {
            let end = self.at;
            self.at = start;
            self.replace(end - start, "");
        }
    }

    /// Writes `text` into the compact form in place of the next `bytes` bytes.
    fn replace(&mut self, bytes: usize, text: &str) {
        self.copy_until(self.at);
        self.out.push(text);
        self.at += bytes;
        self.copied_to = self.at;
        self.is_compact = false;
    }

    fn copy_until(&mut self, end: usize) {
        // Both ends are next to ASCII characters of the grammar, so they are character boundaries.
        self.out.push(&self.text[self.copied_to..end]);
        self.copied_to = end;
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn syntax_error(&self) -> JsonError {
        JsonError::Syntax { at: self.at }
    }
}

/// Returns the escape sequence of a control character.
fn escape_control_character(control: u8) -> String {
    match control {
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        other => format!("\\u{other:04x}"),
    }
}

/// Returns the code unit of the `\uXXXX` at `at`.
pub(super) fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at.checked_add(6)?)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

/// Eight bytes of a text, examined together: most input is plain text.
struct Word(u64);

impl Word {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

    fn load(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
    }

    /// Marks the bytes that equal `byte`. Marks above the lowest may be wrong.
    fn mark_equal(&self, byte: u8) -> u64 {
        let differences = self.0 ^ Self::LOW_BITS.wrapping_mul(u64::from(byte));
        differences.wrapping_sub(Self::LOW_BITS) & !differences & Self::HIGH_BITS
    }

    /// Marks the bytes below `bound`, at most 0x80. Marks above the lowest may be wrong.
    fn mark_below(&self, bound: u8) -> u64 {
        self.0.wrapping_sub(Self::LOW_BITS.wrapping_mul(u64::from(bound))) & !self.0 & Self::HIGH_BITS
    }

    /// Returns the offset of the lowest mark.
    fn find_first_mark(marks: u64) -> Option<usize> {
        (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
    }

    /// Returns the offset of the first quote, backslash or control character.
    fn find_special_byte(&self) -> Option<usize> {
        Self::find_first_mark(self.mark_equal(b'"') | self.mark_equal(b'\\') | self.mark_below(0x20))
    }

    /// Returns the offset of the first quote, brace or bracket.
    fn find_structural_byte(&self) -> Option<usize> {
        // A bracket and a brace differ by one bit.
        let braces = Self(self.0 | Self::LOW_BITS.wrapping_mul(0x20));
        Self::find_first_mark(self.mark_equal(b'"') | braces.mark_equal(b'{') | braces.mark_equal(b'}'))
    }
}

/// Returns the offset of the next quote, backslash or control character of a string, or the end.
fn find_special_byte(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = Word::load(bytes, at) {
        match word.find_special_byte() {
            Some(offset) => return at + offset,
            None => at += 8,
        }
    }
    let plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..=0x1F);
    at.min(bytes.len()) + bytes[at.min(bytes.len())..].iter().take_while(plain).count()
}

/// Returns the offset of the next quote, brace or bracket, or the end.
pub(super) fn find_structural_byte(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = Word::load(bytes, at) {
        match word.find_structural_byte() {
            Some(offset) => return at + offset,
            None => at += 8,
        }
    }
    let other = |byte: &&u8| !matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
    at.min(bytes.len()) + bytes[at.min(bytes.len())..].iter().take_while(other).count()
}

/// Returns the offset after the closing quote of the string that starts here, in a validated text.
pub(super) fn find_string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        at = find_special_byte(bytes, at);
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(b'"') => return at + 1,
            // Cannot occur in a validated text.
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

/// Returns the offset at which the value that starts here ends, in a validated compact text.
pub(super) fn find_value_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start) {
        Some(b'"') => find_string_end(bytes, start),
        Some(b'{' | b'[') => find_container_end(bytes, start),
        _ => {
            let inside = |byte: &u8| !matches!(byte, b'}' | b']' | b',');
            let rest = bytes.get(start..).unwrap_or_default();
            start + rest.iter().take_while(|byte| inside(byte)).count()
        }
    }
}

fn find_container_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        at = find_structural_byte(bytes, at);
        match bytes.get(at) {
            Some(b'"') => at = find_string_end(bytes, at),
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(_) => {
                at += 1;
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            None => return bytes.len(),
        }
    }
}
