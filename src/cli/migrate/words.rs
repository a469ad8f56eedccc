//! Splits command lines into words, as a POSIX shell and systemd do for what the vendor's guide
//! prints: quotes, backslashes and continued lines. Nothing is expanded or executed.

/// Splits a command line into words.
///
/// # Errors
/// A quote is not closed.
pub(super) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(next) => {
                    // Inside double quotes a backslash is literal unless it escapes something.
                    if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                        word.get_or_insert_default().push('\\');
                    }
                    word.get_or_insert_default().push(next);
                }
            },
            (Some(open), c) if c == open => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(_) => Err("a quote is not closed"),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

/// A line of a text whose continued lines are joined, with its number.
pub(super) struct JoinedLine {
    pub(super) number: usize,
    pub(super) text: String,
}

/// Joins lines that end in one of `marks`, such as a backslash.
pub(super) fn join_lines(text: &str, marks: &[char]) -> Vec<JoinedLine> {
    let (mut joined, mut open) = (Vec::<JoinedLine>::new(), false);
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let is_continued = line.ends_with(marks);
        let part = if is_continued { line.trim_end_matches(marks) } else { line };
        match joined.last_mut().filter(|_| open) {
            Some(last) => {
                last.text.push(' ');
                last.text.push_str(part);
            }
            None => joined.push(JoinedLine { number: at + 1, text: part.to_owned() }),
        }
        open = is_continued;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let words = |line: &str| split(line).expect("words");
        assert_eq!(words(r#"a "b c" 'd "e' f\ g "" h="i j"k"#), ["a", "b c", "d \"e", "f g", "", "h=i jk"]);
        assert_eq!(words(r#""C:\tursio\x.zip" "a\"b" "\$x""#), ["C:\\tursio\\x.zip", "a\"b", "$x"]);
        assert!(split("a 'b").is_err());
    }

    #[test]
    fn continued_lines_are_one() {
        let lines = join_lines("a \\\n  b `\n  c\nd\n", &['\\', '`']);
        let told: Vec<_> = lines.iter().map(|line| (line.number, line.text.as_str())).collect();
        assert_eq!(told, [(1, "a    b    c"), (4, "d")]);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_split_or_refused(line in "[a \\\\'\"\\n$]{0,40}") {
            let _ = split(&line);
        }
    }
}
