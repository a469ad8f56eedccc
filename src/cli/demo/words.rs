//! The words of a question. Each meaning consumes its words, so that no other can use them again.

/// The text in lower case, with one space between words and at both ends.
#[derive(Debug, Clone)]
pub(super) struct Words(String);

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let keep = |c: char| if c.is_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { ' ' };
        let spaced: String = text.chars().map(keep).collect();
        let words =
            spaced.split_whitespace().map(|word| word.trim_matches('.')).filter(|word| !word.is_empty());
        Self(words.fold(String::from(" "), |text, word| text + word + " "))
    }

    /// Returns whether the text contains a phrase or its plural.
    pub(super) fn has(&self, phrase: &str) -> bool {
        self.find(phrase).is_some()
    }

    /// Returns whether the text contains any of the phrases.
    pub(super) fn has_any(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.has(phrase))
    }

    /// Removes a phrase. Returns whether it was there.
    pub(super) fn take(&mut self, phrase: &str) -> bool {
        let Some((at, len)) = self.find(phrase) else { return false };
        self.0.replace_range(at..at + len, " ");
        true
    }

    /// Returns the word after the first of `phrases` that the text contains.
    pub(super) fn after<'a>(&'a self, phrases: &[&str]) -> Option<&'a str> {
        phrases.iter().find_map(|phrase| self.tail(phrase)?.split(' ').next().filter(|word| !word.is_empty()))
    }

    /// Returns the text after a phrase.
    pub(super) fn tail(&self, phrase: &str) -> Option<&str> {
        let (at, len) = self.find(phrase)?;
        Some(&self.0[at + len..])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }

    fn find(&self, phrase: &str) -> Option<(usize, usize)> {
        let singular = format!(" {} ", phrase.to_lowercase());
        let plurals = plurals(phrase).map(|plural| format!(" {plural} "));
        let forms = std::iter::once(singular).chain(plurals);
        forms.filter_map(|form| Some((self.0.find(&form)?, form.len()))).min()
    }
}

/// Returns both plural forms: `category` → `categories`, `region` → `regions`.
pub(super) fn plurals(word: &str) -> [String; 2] {
    let word = word.to_lowercase();
    let ies = word.strip_suffix('y').map_or_else(|| format!("{word}es"), |stem| format!("{stem}ies"));
    [format!("{word}s"), ies]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_whole_words_in_any_number() {
        let words = Words::of("Which Categories sold best, in U.S. regions?");
        assert!(words.has("category") && words.has("region") && words.has("sold best"));
        assert!(!words.has("cat") && !words.has("reg"));
        assert_eq!(words.after(&["sold"]), Some("best"));
    }

    #[test]
    fn what_is_taken_is_gone() {
        let mut words = Words::of("north of the north");
        assert!(words.take("north") && words.take("north") && !words.take("north"));
    }
}
