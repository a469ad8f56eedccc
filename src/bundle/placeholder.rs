//! Values that an export or a template left to be filled in.

/// Whether a value still waits to be filled in: `paste-your-…-here`, `your-api-key`, `<…>`, `changeme`, `xxx…`, `TODO`,
/// `replace-me`, what is cut short with an ellipsis, and those in quotes.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'', '`']).trim().to_ascii_lowercase();
    let squeezed: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let dashed = text.replace(['_', ' ', '.'], "-");
    text.is_empty()
        || has_brackets(&text)
        || text.contains('…')
        || is_masked(&text)
        || text.ends_with("...")
        || ["paste-", "your-", "insert-", "enter-"].iter().any(|word| dashed.starts_with(word))
        || (squeezed.len() >= 3 && squeezed.bytes().all(|b| b == b'x'))
        || text.bytes().all(|b| b"*.-_".contains(&b))
        || WORDS.contains(&squeezed.as_str())
        || ["replaceme", "changeme", "replacewith"].iter().any(|word| squeezed.starts_with(word))
}

const WORDS: &[&str] = &[
    "todo",
    "tbd",
    "fixme",
    "apikey",
    "secret",
    "placeholder",
    "none",
    "null",
    "undefined",
    "yourapikey",
    "yourkey",
];

/// What a portal shows of a secret that it no longer tells: `gTx****`.
fn is_masked(text: &str) -> bool {
    ["***", "•••", "●●●"].iter().any(|stars| text.contains(stars))
}

/// Whether a character cannot be seen or came along when copying: no sign of ASCII, and no letter or digit either (a byte
/// order mark, a zero-width or soft hyphen, a curly quote, a blank that does not break).
pub(super) fn came_along(c: char) -> bool {
    c.is_control() || !(c.is_ascii() || c.is_alphanumeric())
}

/// `<…>` anywhere.
pub(super) fn has_brackets(text: &str) -> bool {
    text.find('<').is_some_and(|open| text[open..].contains('>'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_placeholders_are_known() {
        for text in [
            "paste-your-api-key-here",
            "your-api-key",
            "YOUR_API_KEY",
            "<api key>",
            "changeme",
            "change-me",
            "xxx",
            "XXXXXXXX",
            "TODO",
            "replace-me",
            "replace_me_now",
            "",
            "''",
            "\"your-api-key\"",
            "  ",
            "****",
            "gTx8Q~…",
            "gTx******************",
            "gTx•••",
            "sk-12...",
        ] {
            assert!(is_placeholder(text), "{text}");
        }
        for text in ["key-sales", "sk-live-1234", "0123", "tursio-abc", "xxl-key", "yo-ur"] {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
