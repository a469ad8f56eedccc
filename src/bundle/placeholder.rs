//! Values that are not what they stand for: left to be filled in, masked, or with something that came along when copying.

/// Whether a secret still waits to be filled in: what the vendor's texts have in its place (`paste-your-api-key-here`,
/// `<your-key>`), what people write (`changeme`, `xxx`, `TODO`), what is masked or cut short, and those in quotes.
///
/// Words alone make a placeholder: `paste-9f2kd81` may well be a key.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'', '`']).trim().to_ascii_lowercase();
    let squeezed: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    text.is_empty()
        || is_unfinished(&text)
        || text.ends_with("...")
        || (squeezed.len() >= 3 && squeezed.bytes().all(|b| b == b'x'))
        || text.bytes().all(|b| b"*.-_".contains(&b))
        || WORDS.contains(&squeezed.as_str())
}

/// Whether any value is none yet, which a secret or a header may stand for: an instruction, or what a portal masks.
pub(super) fn is_unfinished(text: &str) -> bool {
    is_masked(text) || has_words_in_brackets(text) || is_instruction(text)
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

/// `paste-your-api-key-here`, `your-client-secret`, `change-me`: an instruction in words and nothing else, apart from the few
/// digits that people put behind such.
fn is_instruction(text: &str) -> bool {
    let text = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let dashed = text.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
    let squeezed = dashed.replace('-', "");
    let begins = ["paste-", "your-", "insert-", "enter-"].iter().any(|word| dashed.starts_with(word))
        || ["replaceme", "changeme", "replacewith"].iter().any(|word| squeezed.starts_with(word));
    begins && dashed.bytes().all(|byte| byte.is_ascii_lowercase() || b"-<>'".contains(&byte))
}

/// What a portal shows of a secret that it no longer tells: `gTx****`.
fn is_masked(text: &str) -> bool {
    ["***", "•••", "●●●", "…"].iter().any(|stars| text.contains(stars))
}

/// `<your-key>` or `<api key>` anywhere; `a<b>c` may be a key.
fn has_words_in_brackets(text: &str) -> bool {
    let Some((_, rest)) = text.split_once('<') else { return false };
    let Some((inside, rest)) = rest.split_once('>') else { return false };
    let are_words =
        inside.len() > 2 && inside.bytes().all(|b| b.is_ascii_alphabetic() || b"-_ .'".contains(&b));
    are_words || has_words_in_brackets(rest)
}

/// What is said of a value that [`is_quoted`].
pub(super) const QUOTED: &str =
    "has quotes around it that are part of it, as a shell or an editor leaves them; take them away";

/// Whether quotes are part of a text, as a shell or an editor leaves them: `"key"`.
pub(super) fn is_quoted(text: &str) -> bool {
    let text = text.trim();
    ["\"", "'", "`"].iter().any(|quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote))
}

/// Whether a character is invisible or was picked up by copying: neither ASCII nor a letter or
/// digit (a byte order mark, a zero-width space, a soft hyphen, a curly quote, a no-break space).
pub(super) fn came_along(c: char) -> bool {
    c.is_control() || !(c.is_ascii() || c.is_alphanumeric())
}

/// Whether a text contains `<…>`.
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
        // They begin or look like an instruction, and nobody would write it so.
        for text in
            ["paste-9f2kd81", "your-4fe1c09b7a", "changeme-8c1f2e9a", "Insert.7hQ_pz", "a<b>c", "x<9f2k>y"]
        {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
