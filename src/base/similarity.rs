//! Suggests the known name that a misspelled name probably meant.

/// The Jaro-Winkler similarity below which two names count as different.
const MIN_SIMILARITY: f64 = 0.85;
/// The longest name that is compared. No known name is longer, and the cost of a comparison is the
/// product of the lengths.
const MAX_BYTES: usize = 128;

/// Returns the value paired with the known name most similar to `name`, if one is close enough.
/// Case and common separators are ignored.
pub fn closest<'k, T>(name: &str, known: impl IntoIterator<Item = (&'k str, T)>) -> Option<T> {
    if name.len() > MAX_BYTES {
        return None;
    }
    let name = name.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    known
        .into_iter()
        .map(|(known, value)| (strsim::jaro_winkler(&name, known), value))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_similar_and_another_name_is_not() {
        let known = || ["query", "limit", "topic"].map(|name| (name, name));
        for (written, meant) in [("limt", "limit"), ("Querry", "query"), ("topics", "topic")] {
            assert_eq!(closest(written, known()), Some(meant), "{written}");
        }
        for stranger in ["toolCallId", "sessionId", "action", "chatInput", "tool", "random_string"] {
            assert_eq!(closest(stranger, known()), None, "{stranger}");
        }
        assert_eq!(closest(&"limit".repeat(100_000), known()), None);
    }
}
