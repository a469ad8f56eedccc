//! Quotes text for a POSIX shell, so that people can paste what is printed.

/// Returns `text` as one word of a command line: in single quotes, unless it is plain. Control
/// characters are left out.
pub fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    let printable: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", printable.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_special_characters_are_quoted() {
        assert_eq!(quote("/srv/tenants.d/größe_1+2"), "/srv/tenants.d/größe_1+2");
        assert_eq!(quote("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(quote("a\u{1b}[31m;b"), "'a[31m;b'");
    }
}
