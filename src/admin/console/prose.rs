//! Sentences for people, in which commands stand between backticks, as on a terminal.

use std::fmt;

use askama::filters::Escaper;

/// A text whose commands are shown as such.
pub(super) struct Prose(String);

impl<T: Into<String>> From<T> for Prose {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// What it writes is escaped.
impl askama::filters::HtmlSafe for Prose {}

impl fmt::Display for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_str();
        while let Some((before, (command, after))) =
            rest.split_once('`').and_then(|(before, rest)| Some((before, rest.split_once('`')?)))
        {
            write_escaped(f, before)?;
            f.write_str("<code>")?;
            write_escaped(f, command)?;
            f.write_str("</code>")?;
            rest = after;
        }
        write_escaped(f, rest)
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    askama::filters::Html.write_escaped_str(f, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_such_and_everything_is_escaped() {
        let shown = |text: &str| Prose::from(text).to_string();
        assert_eq!(shown("`tenantd store check` says more"), "<code>tenantd store check</code> says more");
        assert_eq!(shown("run `a`, then `b`"), "run <code>a</code>, then <code>b</code>");
        assert_eq!(shown("one ` alone"), "one ` alone");
        assert_eq!(shown("<i>`<b>`<u>"), "&#60;i&#62;<code>&#60;b&#62;</code>&#60;u&#62;");
    }
}
