//! Makes untrusted text safe for terminals and log lines.
//!
//! File names, names of clients and responses of backends are chosen by others. Terminals obey some
//! characters (they move the cursor, set the title, write to the clipboard), some characters
//! reorder the text that people read, and a newline forges a line. All text shown to people passes
//! through this module.

use std::borrow::Cow;

const REPLACEMENT: char = '\u{fffd}';

/// Returns the text as one line, with each harmful character replaced. Keeps the number of
/// characters, so that columns stay aligned.
pub fn printable(text: &str) -> Cow<'_, str> {
    without(text, is_harmful)
}

/// Replaces harmful characters in a text that is laid out in lines: newlines and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    without(text, |c| is_harmful(c) && !matches!(c, '\n' | '\t'))
}

/// Returns an equivalent JSON text without harmful characters. Outside of strings JSON has none but
/// newlines.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    let escaped = |c: char| is_harmful(c) && c != '\n';
    if !text.contains(escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match escaped(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Returns whether a character is a control character, a line or paragraph separator, or reorders
/// text. All of them are in the basic plane.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn without(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    match text.contains(&harmful) {
        true => text.chars().map(|c| if harmful(c) { REPLACEMENT } else { c }).collect(),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &str = "a\u{1b}]0;x\u{7}b\nc\td\u{9b}31m\u{202e}e\u{2028}f\u{7f}g ü 日本 👩‍👩‍👧";

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(printable(BAD), "a�]0;x�b�c�d�31m�e�f�g ü 日本 👩‍👩‍👧");
        assert_eq!(printable(BAD).chars().count(), BAD.chars().count());
        assert_eq!(printable_lines(BAD), "a�]0;x�b\nc\td�31m�e�f�g ü 日本 👩‍👩‍👧");
        assert!(matches!(printable("plain ü"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_says_the_same() {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "a": BAD, "b": [1] })).expect("JSON");
        let shown = printable_json(&text);
        assert!(!shown.contains(|c| is_harmful(c) && c != '\n'), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).expect("still JSON");
        assert_eq!(read["a"], BAD);
    }
}
