//! Expands `$NAME` and escapes in the values of a `.env` as Docker Compose does: `$$`, `$NAME`,
//! `${NAME}`, `${NAME:-x}` and the like. Names refer to earlier lines of the same file. A variable
//! of the gateway's environment that tenants may use (`TENANT_…`) is left as a reference, for the
//! resolver of secrets.

use std::collections::HashMap;

use crate::bundle::confinement::VARIABLE_PREFIX;

/// The limit on expressions inside expressions.
const MAX_DEPTH: usize = 8;
/// The limit on one value after expansion, in bytes.
const MAX_VALUE: usize = 64 << 10;

const INVALID: &str = "a ${…} in it cannot be read";
const UNSET: &str = "it uses a variable that no earlier line sets";
const TOO_LONG: &str = "its value has more than 64 KiB";

/// Returns the expanded value, and whether it is literal (contains no reference).
pub(super) fn expand(text: &str, values: &HashMap<String, String>) -> Result<(String, bool), &'static str> {
    let mut expanding = Expander { values, out: String::new(), is_literal: true };
    expanding.expand_text(text, 0)?;
    Ok((expanding.out, expanding.is_literal))
}

struct Expander<'a> {
    values: &'a HashMap<String, String>,
    out: String,
    is_literal: bool,
}

impl Expander<'_> {
    fn expand_text(&mut self, text: &str, depth: usize) -> Result<(), &'static str> {
        if depth > MAX_DEPTH {
            return Err(INVALID);
        }
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            self.push(before)?;
            rest = self.expand_reference(after, depth)?;
        }
        self.push(rest)
    }

    /// Expands the text after a dollar sign; returns the rest.
    fn expand_reference<'t>(&mut self, after: &'t str, depth: usize) -> Result<&'t str, &'static str> {
        if let Some(rest) = after.strip_prefix('$') {
            self.push("$")?;
            return Ok(rest);
        }
        if let Some(inside) = after.strip_prefix('{') {
            let end = find_closing_brace(inside).ok_or(INVALID)?;
            self.expand_braces(&inside[..end], depth)?;
            return Ok(&inside[end + 1..]);
        }
        let (name, rest) = after.split_at(measure_name(after));
        if name.is_empty() {
            self.push("$")?;
        } else {
            self.expand_name(name)?;
        }
        Ok(rest)
    }

    fn expand_name(&mut self, name: &str) -> Result<(), &'static str> {
        match self.values.get(name) {
            Some(value) => self.push(value),
            None if name.starts_with(VARIABLE_PREFIX) => {
                self.is_literal = false;
                self.push(&format!("${{{name}}}"))
            }
            None => Err(UNSET),
        }
    }

    /// Expands `NAME`, `NAME:-default`, `NAME-default`, `NAME:+instead`, `NAME+instead`,
    /// `NAME:?why`, `NAME?why`.
    fn expand_braces(&mut self, inside: &str, depth: usize) -> Result<(), &'static str> {
        let (name, rest) = inside.split_at(measure_name(inside));
        if name.is_empty() {
            return Err(INVALID);
        }
        let (needs_text, operator) = match rest.strip_prefix(':') {
            Some(operator) => (true, operator),
            None => (false, rest),
        };
        let is_set = self.values.get(name).is_some_and(|value| !(needs_text && value.is_empty()));
        let mut operator = operator.chars();
        match operator.next() {
            None if !needs_text => self.expand_name(name),
            Some('-') if !is_set => self.expand_text(operator.as_str(), depth + 1),
            Some('-') => self.expand_name(name),
            Some('+') if is_set => self.expand_text(operator.as_str(), depth + 1),
            Some('+') => Ok(()),
            Some('?') if is_set => self.expand_name(name),
            Some('?') => Err(UNSET),
            _ => Err(INVALID),
        }
    }

    fn push(&mut self, text: &str) -> Result<(), &'static str> {
        self.out.push_str(text);
        if self.out.len() > MAX_VALUE { Err(TOO_LONG) } else { Ok(()) }
    }
}

/// Returns the length of the name at the beginning, in bytes.
fn measure_name(text: &str) -> usize {
    let is_name = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    text.bytes().enumerate().take_while(|&at| is_name(at)).count()
}

/// Returns the offset of the closing brace.
fn find_closing_brace(inside: &str) -> Option<usize> {
    let mut open = 0;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Replaces the escapes of a value in double quotes; keeps unknown ones.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        let (one, taken) = match chars.next() {
            Some('a') => ("\u{7}".into(), 1),
            Some('b') => ("\u{8}".into(), 1),
            Some('f') => ("\u{c}".into(), 1),
            Some('n') => ("\n".into(), 1),
            Some('r') => ("\r".into(), 1),
            Some('t') => ("\t".into(), 1),
            Some('v') => ("\u{b}".into(), 1),
            // An escaped dollar sign begins no name.
            Some('$') => ("$$".into(), 1),
            Some(c @ ('"' | '\\')) => (c.to_string(), 1),
            Some('0') => octal(&after[1..]).map_or_else(|| ("\\".to_owned(), 0), |c| (c.to_string(), 4)),
            _ => ("\\".to_owned(), 0),
        };
        out.push_str(&one);
        rest = &after[taken..];
    }
    out + rest
}

/// Returns the character of three octal digits.
fn octal(text: &str) -> Option<char> {
    let digits = text.get(..3).filter(|digits| digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))?;
    u8::from_str_radix(digits, 8).ok().map(char::from)
}
