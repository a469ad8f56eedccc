//! Shortening of texts that are shown.

/// Returns the first `chars` characters of a text that has more than that.
pub fn prefix_if_longer(text: &str, chars: usize) -> Option<&str> {
    // No text has more characters than bytes.
    if text.len() <= chars {
        return None;
    }
    text.char_indices().nth(chars).map(|(end, _)| &text[..end])
}

/// Returns a text, or its first `chars` characters followed by `…`.
pub fn clip(text: &str, chars: usize) -> String {
    match prefix_if_longer(text, chars) {
        Some(start) => format!("{start}…"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_only_if_it_is_longer() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöü", 2), "äö…");
        assert_eq!(clip("", 0), "");
        assert_eq!((prefix_if_longer("abc", 3), prefix_if_longer("abc", 0)), (None, Some("")));
    }
}
