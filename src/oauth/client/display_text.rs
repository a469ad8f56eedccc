//! Sanitizes texts of strangers for display.
//!
//! A name that is invisible, stacks marks over its line, or changes the text direction is reduced
//! or rejected. A name whose letters look like those of another alphabet is shown with a warning
//! (Unicode Technical Standard 39), since it may be honest.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, Script};
use icu_properties::{CodePointMapData, CodePointSetData};

/// The longest name of a client, in characters.
pub(crate) const LONGEST_NAME: usize = 80;
/// The limit on marks per letter. Vietnamese and pointed Hebrew need two.
const MAX_COMBINING_MARKS: usize = 2;
/// Invisible characters that no Unicode property marks as such: an empty Braille cell, a note
/// without a head.
const BLANK_CHARS: [char; 2] = ['\u{2800}', '\u{1d159}'];
/// Letters of Cyrillic and of Greek that look like Latin ones.
const CYRILLIC_LIKE_LATIN: &str = "асеорхуѕіјһԁԛԝӏАВСЕНІЈКМОРЅТХУҮ";
const GREEK_LIKE_LATIN: &str = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονκρ";

/// Returns the name to show and store; `None` if it has no letter or digit.
pub(crate) fn sanitize_name(text: &str) -> Option<String> {
    sanitize(text, LONGEST_NAME).filter(|name| name.chars().any(char::is_alphanumeric))
}

/// Returns the text without characters that can disguise it: no control or direction characters,
/// nothing invisible, few marks per letter, a single line, at most `longest` characters. Returns
/// `None` if nothing is left.
pub(crate) fn sanitize(text: &str, longest: usize) -> Option<String> {
    let (mut shown, mut marks) = (String::new(), MAX_COMBINING_MARKS);
    let visible = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|&c| is_visible(c));
    for c in visible {
        marks = match (is_combining_mark(c), c) {
            (true, _) if marks >= MAX_COMBINING_MARKS => continue,
            (true, _) => marks + 1,
            // A mark has no letter here to combine with, and repeated blanks collapse.
            (false, ' ') if shown.is_empty() || shown.ends_with(' ') => continue,
            (false, ' ') => MAX_COMBINING_MARKS,
            (false, _) => 0,
        };
        shown.push(c);
    }
    let shown: String = shown.chars().take(longest).collect();
    let shown = shown.trim_end();
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// Whether a word of the name mixes alphabets with similar letters, or consists only of letters
/// that look like Latin ones.
pub(crate) fn is_confusable(name: &str) -> bool {
    name.split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c))
        .any(|word| is_mixed_script(word) || is_whole_script_confusable(word))
}

/// Whether the character is visible: not a control, format (including direction, Unicode Standard
/// Annex 9), filler, variation selector, or a character without a glyph.
fn is_visible(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let hidden = matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::PrivateUse
            | GeneralCategory::Surrogate
            | GeneralCategory::Unassigned
            | GeneralCategory::EnclosingMark
    );
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
    !hidden && !ignorable && !BLANK_CHARS.contains(&c)
}

fn is_combining_mark(c: char) -> bool {
    CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::NonspacingMark
}

/// Whether the word mixes scripts other than those that are written together (the "highly
/// restrictive" profile).
fn is_mixed_script(word: &str) -> bool {
    const EAST: [Script; 5] =
        [Script::Han, Script::Hiragana, Script::Katakana, Script::Bopomofo, Script::Hangul];
    let scripts = CodePointMapData::<Script>::new();
    let everywhere = |script: &Script| [Script::Common, Script::Inherited].contains(script);
    let mut found: Vec<Script> = Vec::new();
    for script in word.chars().map(|c| scripts.get(c)).filter(|script| !everywhere(script)) {
        if !found.contains(&script) {
            found.push(script);
        }
    }
    let of_the_east = found.iter().filter(|script| EAST.contains(script)).count();
    let others = found.len() - of_the_east;
    match of_the_east {
        0 => others > 1,
        _ => found.iter().any(|script| !EAST.contains(script) && *script != Script::Latin),
    }
}

/// Whether all letters are Cyrillic or Greek ones that look like Latin.
fn is_whole_script_confusable(word: &str) -> bool {
    let letters = || word.chars().filter(|c| c.is_alphabetic());
    let all_of = |alphabet: &str| letters().all(|c| alphabet.contains(c));
    letters().count() > 1 && (all_of(CYRILLIC_LIKE_LATIN) || all_of(GREEK_LIKE_LATIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_short_line() {
        assert_eq!(sanitize("  Claude\r\n\t", 64).as_deref(), Some("Claude"));
        assert_eq!(sanitize("evil\u{202e}moc.elgoog\u{200b}", 64).as_deref(), Some("evilmoc.elgoog"));
        assert_eq!(sanitize("\u{7}\u{feff} ", 64), None);
        assert_eq!(sanitize(&"ä".repeat(100), 64).map(|name| name.chars().count()), Some(64));
        assert_eq!(sanitize("<b>Größe</b>", 64).as_deref(), Some("<b>Größe</b>"), "escaping is the page's");
        assert_eq!(sanitize("a   \u{3000} b", 64).as_deref(), Some("a b"));
    }

    #[test]
    fn a_name_that_shows_as_nothing_is_none() {
        for text in [
            "\u{3164}",
            "\u{115f}\u{1160}",
            "\u{ffa0}",
            "\u{2800}",
            "\u{180e}",
            "\u{fe0f}\u{fe00}",
            "\u{e0101}",
            "\u{e000}",
            "\u{301}\u{301}",
            "\u{20dd}",
            "\u{378}",
            "...",
            "— ·",
            " ",
        ] {
            assert_eq!(sanitize_name(text), None, "{text:?}");
        }
        assert_eq!(sanitize_name("Cla\u{3164}ude\u{fe0f}").as_deref(), Some("Claude"));
    }

    #[test]
    fn marks_do_not_climb_out_of_their_line() {
        let stacked = format!("Cl{}aude", "\u{301}".repeat(78));
        assert_eq!(sanitize_name(&stacked).as_deref(), Some("Cl\u{301}\u{301}aude"));
        assert_eq!(sanitize_name("Tiê\u{301}ng Việt").as_deref(), Some("Tiê\u{301}ng Việt"));
        assert_eq!(sanitize_name("\u{301}Claude").as_deref(), Some("Claude"), "there is nothing to carry it");
    }

    #[test]
    fn letters_that_look_like_others_are_noticed() {
        for text in ["Mіcrosoft", "Сlaude", "ClaudΕ", "Сору", "Notes by ОСЕ", "Ꮯlaude", "ΑΒΕ"]
        {
            assert!(is_confusable(text), "{text}");
        }
        for text in [
            "Claude",
            "Größe & Söhne",
            "Яндекс Music",
            "Ελληνική Τράπεζα",
            "東京データ Search",
            "東京search",
            "데이터 Tool",
            "حاسوب",
            "हिन्दी",
            "VS Code 2",
            "a1-b2",
        ] {
            assert!(!is_confusable(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_stranger_says_is_short_visible_and_stays_so(text in "\\PC{0,120}", more in "[\u{300}-\u{36f}\u{fe00}-\u{fe0f}a ]{0,60}") {
            let Some(shown) = sanitize_name(&format!("{text}{more}")) else { return Ok(()) };
            proptest::prop_assert!(shown.chars().count() <= LONGEST_NAME && !shown.contains("  "));
            proptest::prop_assert!(shown.chars().all(is_visible) && shown.trim() == shown);
            let mut stacked = 0;
            for c in shown.chars() {
                stacked = if is_combining_mark(c) { stacked + 1 } else { 0 };
                proptest::prop_assert!(stacked <= MAX_COMBINING_MARKS, "{:?}", shown);
            }
            let again = sanitize_name(&shown);
            proptest::prop_assert_eq!(again.as_deref(), Some(&*shown));
        }
    }
}
