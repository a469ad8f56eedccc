//! What strangers say about themselves, made fit to be shown.

/// Of a client's name, in characters.
pub(crate) const LONGEST_NAME: usize = 80;

/// A name as it is shown and kept; `None` if nothing of it can be shown.
pub(crate) fn name(text: &str) -> Option<String> {
    plain(text, LONGEST_NAME)
}

/// The text without what could make it look like another: no control and no direction characters, one line, so many
/// characters at most. `None` if nothing is left.
pub(crate) fn plain(text: &str, longest: usize) -> Option<String> {
    let shown = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|&c| is_plain(c));
    let shown: String = shown.take(longest).collect();
    let shown = shown.trim();
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// Not a control character, a direction mark (Unicode Standard Annex 9), or a space that has no width.
fn is_plain(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    let invisible = matches!(c, '\u{ad}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !turns && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_short_line() {
        assert_eq!(plain("  Claude\r\n\t", 64).as_deref(), Some("Claude"));
        assert_eq!(plain("evil\u{202e}moc.elgoog\u{200b}", 64).as_deref(), Some("evilmoc.elgoog"));
        assert_eq!(plain("\u{7}\u{feff} ", 64), None);
        assert_eq!(plain(&"ä".repeat(100), 64).map(|name| name.chars().count()), Some(64));
        assert_eq!(plain("<b>Größe</b>", 64).as_deref(), Some("<b>Größe</b>"), "escaping is the page's");
    }
}
