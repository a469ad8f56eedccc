//! Values that are not the intended ones: placeholders, masked secrets, and values with characters
//! that were picked up by copying.

/// Whether a secret is a placeholder: one of the vendor's (`paste-your-api-key-here`,
/// `<your-key>`), a customary one (`changeme`, `xxx`, `TODO`), a masked or truncated secret, or one
/// of these in quotes.
///
/// Only words make a placeholder: `paste-9f2kd81` may be a key.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'', '`']).trim().to_ascii_lowercase();
    let squeezed: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    text.is_empty()
        || is_unfinished(&text)
        || text.ends_with("...")
        || (squeezed.len() >= 3 && squeezed.bytes().all(|b| b == b'x'))
        || text.bytes().all(|b| b"*.-_".contains(&b))
        || PLACEHOLDER_WORDS.contains(&squeezed.as_str())
}

/// Whether a value of any kind (a secret, a header) is not filled in: an instruction, or a masked
/// secret.
pub(super) fn is_unfinished(text: &str) -> bool {
    is_masked(text) || has_words_in_brackets(text) || is_instruction(text)
}

const PLACEHOLDER_WORDS: &[&str] = &[
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

/// Whether a text is an instruction (`paste-your-api-key-here`, `your-client-secret`, `change-me`)
/// that consists of words only, apart from a few digits at its end.
fn is_instruction(text: &str) -> bool {
    let text = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let dashed = text.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
    let squeezed = dashed.replace('-', "");
    let begins = ["paste-", "your-", "insert-", "enter-"].iter().any(|word| dashed.starts_with(word))
        || ["replaceme", "changeme", "replacewith"].iter().any(|word| squeezed.starts_with(word));
    begins && dashed.bytes().all(|byte| byte.is_ascii_lowercase() || b"-<>'".contains(&byte))
}

/// Whether a text is a masked secret, as portals show it after its creation: `gTx****`.
fn is_masked(text: &str) -> bool {
    ["***", "•••", "●●●", "…"].iter().any(|stars| text.contains(stars))
}

/// Whether a text contains words in angle brackets, such as `<your-key>` or `<api key>`; `a<b>c`
/// may be a key.
fn has_words_in_brackets(text: &str) -> bool {
    let Some((_, rest)) = text.split_once('<') else { return false };
    let Some((inside, rest)) = rest.split_once('>') else { return false };
    let are_words =
        inside.len() > 2 && inside.bytes().all(|b| b.is_ascii_alphabetic() || b"-_ .'".contains(&b));
    are_words || has_words_in_brackets(rest)
}

/// The end of a message about a value that [`is_quoted`].
pub(super) const QUOTED: &str =
    "has quotes around it that are part of it, as a shell or an editor leaves them; take them away";

/// Whether a text includes the quotes around it, as shells and editors leave them: `"key"`.
pub(super) fn is_quoted(text: &str) -> bool {
    let text = text.trim();
    ["\"", "'", "`"].iter().any(|quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote))
}

/// Whether a character is invisible or was picked up by copying: neither ASCII nor a letter or
/// digit (a byte order mark, a zero-width space, a soft hyphen, a curly quote, a no-break space).
pub(super) fn is_copy_artifact(c: char) -> bool {
    c.is_control() || !(c.is_ascii() || c.is_alphanumeric())
}

/// Whether a text contains `<…>`.
pub(super) fn has_angle_brackets(text: &str) -> bool {
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
            "paste your client secret here",
            "<your-tursio-hostname>",
            "key-<your key>",
            "changeme123",
        ] {
            assert!(is_placeholder(text), "{text}");
        }
        for text in ["key-sales", "sk-live-1234", "0123", "tursio-abc", "xxl-key", "yo-ur"] {
            assert!(!is_placeholder(text), "{text}");
        }
        // These begin like an instruction or resemble one, but are keys.
        for text in
            ["paste-9f2kd81", "your-4fe1c09b7a", "changeme-8c1f2e9a", "Insert.7hQ_pz", "a<b>c", "x<9f2k>y"]
        {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
