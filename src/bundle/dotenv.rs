//! Reads the vendor's `.env` as Docker Compose does: `NAME=value` or `NAME: value`, `export`,
//! quotes over several lines, escapes, comments, and `$NAME` of names in the same file (compose-go,
//! `dotenv/parser.go`).
//!
//! Unlike Compose, it never substitutes the gateway's environment. A line that cannot be read is a
//! fault and not ignored: it may be the truncated `OAUTH_ENABLED=true` of a half-written file. For
//! the same reason every kind of line ending ends a line, and a control character in a line is a
//! fault.

mod expand;

use std::borrow::Cow;
use std::collections::HashMap;

use super::fields;
use super::tree::{ConfigKey, ConfigNode, ConfigValue, MAX_BYTES, Position, SyntaxError, ValueStyle};

const MAX_LINES: usize = 5_000;
const MAX_ERRORS: usize = 20;
/// The limit on all values together, in bytes: each may contain earlier ones several times.
const MAX_VALUES: usize = 2 * MAX_BYTES;

const DOLLAR_HELP: &str = "write a literal $ in single quotes or twice ($$); the gateway's own variables \
                           cannot be used";

/// The result of reading a `.env`.
pub(super) struct ParsedEnv {
    /// A mapping whose keys are the names in lower case.
    pub(super) root: Result<ConfigNode, Vec<SyntaxError>>,
    /// Names given twice, with the position of the last one, which counts.
    pub(super) repeated: Vec<(String, Position)>,
}

/// Returns the text with its line endings normalized to line feeds.
pub(super) fn with_line_feeds(text: &str) -> Cow<'_, str> {
    match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => text.into(),
    }
}

/// Parses a `.env`.
pub(super) fn parse(text: &str) -> ParsedEnv {
    let text = with_line_feeds(text);
    let mut reader = EnvReader::default();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut at = Position { line: 1, column: 1 };
    while !rest.is_empty() {
        if at.line > MAX_LINES {
            reader.report(at, "more than 5,000 lines");
            break;
        }
        let taken = reader.read_statement(rest, at);
        at.line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    reader.finish()
}

/// Expands the references in a text that is not part of a `.env`.
pub(super) fn interpolate(text: &str, values: &HashMap<String, String>) -> Result<String, &'static str> {
    expand::expand(text, values).map(|(text, _)| text)
}

/// A name and its value as written.
struct EnvStatement<'a> {
    name: &'a str,
    /// The byte offset of the value.
    offset: usize,
    value: QuotedValue,
    /// The number of bytes consumed, including the line ending.
    length: usize,
}

/// A value by its kind of quotes, which are removed.
enum QuotedValue {
    Single(String),
    Double(String),
    Unquoted(String),
}

#[derive(Default)]
struct EnvReader {
    pairs: Vec<(ConfigKey, ConfigNode)>,
    /// The values so far, by their names as written.
    values: HashMap<String, String>,
    size: usize,
    errors: Vec<SyntaxError>,
    repeated: Vec<(String, Position)>,
}

impl EnvReader {
    /// Reads one statement and returns the number of bytes consumed.
    fn read_statement(&mut self, rest: &str, at: Position) -> usize {
        let line = first_line(rest);
        match parse_statement(rest).and_then(|found| found.map(|found| self.add(rest, found, at)).transpose())
        {
            Ok(Some(taken)) => taken,
            Ok(None) => line.len(),
            Err(what) => {
                self.report(at, what);
                line.len()
            }
        }
    }

    fn add(&mut self, rest: &str, statement: EnvStatement<'_>, at: Position) -> Result<usize, &'static str> {
        let EnvStatement { name, offset, value, length: taken } = statement;
        let plain = matches!(value, QuotedValue::Unquoted(_));
        let (text, is_literal) = match value {
            QuotedValue::Single(text) => (text, true),
            QuotedValue::Double(text) => expand::expand(&expand::unescape(&text), &self.values)?,
            QuotedValue::Unquoted(text) => expand::expand(&text, &self.values)?,
        };
        if text.contains('\0') {
            return Err("it has a NUL character");
        }
        self.size += text.len();
        if self.size > MAX_VALUES {
            return Err("the values of this file have more than 512 KiB in total");
        }
        self.values.insert(name.to_owned(), text.clone());
        let column = rest[..offset].chars().count() + 1;
        let manner = if is_literal { ValueStyle::Literal } else { ValueStyle::Normal };
        let value = ConfigValue::Scalar { text: text.into(), plain };
        let node = ConfigNode { at: Position { column, ..at }, value, style: manner };
        self.put(ConfigKey { at, text: name.to_ascii_lowercase().into() }, node);
        Ok(taken)
    }

    fn put(&mut self, key: ConfigKey, node: ConfigNode) {
        if let Some(index) = self.pairs.iter().position(|(earlier, _)| earlier.text == key.text) {
            self.pairs.remove(index);
            self.repeated.push((key.text.to_ascii_uppercase(), key.at));
        }
        self.pairs.push((key, node));
    }

    fn report(&mut self, at: Position, what: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(SyntaxError {
                code: "env-syntax",
                message: format!("this line of the .env cannot be read: {what}"),
                help: if what.contains("variable") || what.contains("${") {
                    DOLLAR_HELP
                } else {
                    "write one NAME=value per line; comments begin with #"
                },
                at,
            });
        }
    }

    fn finish(self) -> ParsedEnv {
        let Self { pairs, errors: faults, repeated, .. } = self;
        let root = ConfigNode::usual(Position { line: 1, column: 1 }, ConfigValue::map(pairs));
        ParsedEnv { root: if faults.is_empty() { Ok(root) } else { Err(faults) }, repeated }
    }
}

/// Returns the first line, including its line ending.
fn first_line(text: &str) -> &str {
    text.split_inclusive('\n').next().unwrap_or_default()
}

/// Parses the first statement of the text; `None` if its first line has none.
fn parse_statement(text: &str) -> Result<Option<EnvStatement<'_>>, &'static str> {
    let line = first_line(text);
    reject_controls(line)?;
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    }
    let trimmed = line.trim_start();
    let after_export = trimmed.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
    let trimmed = after_export.unwrap_or(trimmed).trim_start();
    let (name, value) = trimmed.split_once(['=', ':']).ok_or("it has no \"=\"")?;
    let name = name.trim_end();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-[]".contains(&byte)) {
        return Err("its name has other characters than letters, digits and _");
    }
    let behind = value;
    let value = value.trim_start_matches([' ', '\t']);
    let offset = line.len() - value.len();
    let (value, taken) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => parse_quoted(text, offset, quote)?,
        // A comment needs white space before it.
        Some('#') if behind.len() > value.len() => (QuotedValue::Unquoted(String::new()), line.len()),
        _ => (QuotedValue::Unquoted(strip_comment(value).to_owned()), line.len()),
    };
    Ok(Some(EnvStatement { name, offset, value, length: taken }))
}

fn reject_controls(line: &str) -> Result<(), &'static str> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let is_odd = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}');
    match line.contains(is_odd) {
        true => Err("it has a control character"),
        false => Ok(()),
    }
}

/// Returns the quoted value, and the number of bytes up to the end of its last line.
fn parse_quoted(text: &str, offset: usize, quote: char) -> Result<(QuotedValue, usize), &'static str> {
    let inside = &text[offset + quote.len_utf8()..];
    let (value, length) = read_until_quote(inside, quote).ok_or("a quote is not closed")?;
    let raw = &inside[..length];
    for line in raw.split('\n').skip(1) {
        reject_controls(line)?;
        reject_swallowed(line)?;
    }
    let after = first_line(&inside[length + quote.len_utf8()..]);
    reject_controls(after)?;
    reject_text_after_value(after)?;
    let taken = text.len() - inside.len() + length + quote.len_utf8() + after.len();
    let value = if quote == '"' { QuotedValue::Double(value) } else { QuotedValue::Single(value) };
    Ok((value, taken))
}

/// Returns the text before the closing quote, and its length in bytes as written. A backslash
/// escapes a quote; before anything else it is kept.
fn read_until_quote(inside: &str, quote: char) -> Option<(String, usize)> {
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, c) in inside.char_indices() {
        if c == quote && !is_escaped {
            return Some((value, at));
        }
        if c == '\\' && !is_escaped {
            is_escaped = true;
            continue;
        }
        if is_escaped && c != quote {
            value.push('\\');
        }
        is_escaped = false;
        value.push(c);
    }
    None
}

/// Refuses a line inside quotes that sets a known field: a missing closing quote must not swallow
/// the line that turns login on.
fn reject_swallowed(line: &str) -> Result<(), &'static str> {
    let name = line.split(['=', ':']).next().unwrap_or_default().trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim_start().to_ascii_lowercase();
    match line.contains(['=', ':']) && fields::lookup(fields::TENANT, &name).is_some() {
        true => Err("an earlier quote seems not to be closed"),
        false => Ok(()),
    }
}

fn reject_text_after_value(after: &str) -> Result<(), &'static str> {
    match after.trim() {
        "" => Ok(()),
        rest if rest.starts_with('#') => Ok(()),
        _ => Err("there is text after the closing quote"),
    }
}

fn strip_comment(value: &str) -> &str {
    let cut = value.find(" #").into_iter().chain(value.find("\t#")).min();
    cut.map_or(value, |at| &value[..at]).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let Ok(root) = parse(text).root else { panic!("unreadable: {text}") };
        root.pairs()
            .iter()
            .map(|(key, node)| (key.text.to_string(), node.text().expect("text").to_owned()))
            .collect()
    }

    #[test]
    fn the_compose_spelling_is_read() {
        let text = "\u{feff}# c\r\nMCP_PORT=8002\r\n export A = 'x y' # c\nB=\"a\\\"b\"\nC=un quoted #c\nD=a#b\nE=\n";
        let expected =
            [("mcp_port", "8002"), ("a", "x y"), ("b", "a\"b"), ("c", "un quoted"), ("d", "a#b"), ("e", "")];
        assert_eq!(read(text), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_line_cut_off_is_a_fault() {
        let faults = parse("OAUTH_ENABL\nA=\"x\nB=1\nC='x' y\n").root.err().expect("faults");
        assert_eq!(faults.iter().map(|fault| fault.at.line).collect::<Vec<_>>(), [1, 2, 4]);
    }

    fn one(text: &str) -> String {
        let read = read(&format!("PART=xyz\nEMPTY=\n{text}\n"));
        read.into_iter().find(|(name, _)| name == "a").unwrap_or_else(|| panic!("{text}")).1
    }

    #[test]
    fn values_are_what_compose_takes_them_for() {
        for (line, value) in [
            ("A=ab$$cd", "ab$cd"),
            ("A=\"ab$$cd\"", "ab$cd"),
            ("A='ab$$cd'", "ab$$cd"),
            ("A=ab-$PART", "ab-xyz"),
            ("A=\"ab-${PART}!\"", "ab-xyz!"),
            ("A='ab-${PART}'", "ab-${PART}"),
            ("A=${NONE:-x}", "x"),
            ("A=${EMPTY:-x${PART}}", "xxyz"),
            ("A=${EMPTY-x}", ""),
            ("A=${PART:+y}${NONE+z}", "y"),
            ("A=a$1 $ b", "a$1 $ b"),
            ("A=\"ab\\qcd\\x41\"", "ab\\qcd\\x41"),
            ("A=\"a\\tb\\\\c\\$PART\\0101\"", "a\tb\\c$PARTA"),
            ("A='it\\'s'", "it's"),
            ("A='a\\nb'", "a\\nb"),
            ("A: abc", "abc"),
            ("A:abc", "abc"),
            ("export\tA=x", "x"),
            ("A=\"x\ny\" # c", "x\ny"),
            ("A=#x", "#x"),
            ("A= #x", ""),
            ("A=https://h/x", "https://h/x"),
            ("A=$TENANT_X", "${TENANT_X}"),
        ] {
            assert_eq!(one(line), value, "{line}");
        }
    }

    #[test]
    fn what_compose_cannot_know_here_is_a_fault() {
        for line in ["A=$NONE", "A=${NONE}", "A=${PART", "A=${}", "A=${NONE?}", "A=${A:-${B:-${NONE}}}"] {
            assert!(parse(&format!("PART=x\n{line}\n")).root.is_err(), "{line}");
        }
        let doubling: String = (1..40).map(|n| format!("A{n}=$A{}$A{0}\n", n - 1)).collect();
        assert!(parse(&format!("A0=xxxxxxxx\n{doubling}")).root.is_err());
        let deep = format!("A={}x{}", "${B:-".repeat(60), "}".repeat(60));
        assert!(parse(&deep).root.is_err());
    }

    #[test]
    fn every_line_end_ends_a_line_and_no_other_control_character_hides_one() {
        let read = read("# login\rOAUTH_ENABLED=true\rA=1\r\nB=2\n\rC='x\ry'");
        let expected = [("oauth_enabled", "true"), ("a", "1"), ("b", "2"), ("c", "x\ny")];
        assert_eq!(read, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        for odd in ['\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}', '\u{1b}', '\u{7f}'] {
            for text in
                [format!("# x{odd}OAUTH_ENABLED=true"), format!("A=1{odd}B=2"), format!("A='1\n{odd}'")]
            {
                assert!(parse(&text).root.is_err(), "{text:?}");
            }
        }
    }

    #[test]
    fn a_quote_that_swallows_a_field_is_a_fault() {
        assert!(parse("A='it\nOAUTH_ENABLED=true\n# it'\n").root.is_err());
        assert!(parse("A=\"it\n export microsoft_client_id: x\n\"\n").root.is_err());
    }

    #[test]
    fn places_are_counted_behind_values_of_several_lines() {
        let root = parse("A='x\ny'\n\n  B = 'z'\n").root.expect("readable");
        let (key, node) = root.member("b").expect("b");
        assert_eq!((key.at.line, node.at), (4, Position { line: 4, column: 7 }));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[A$\\\\{}'\"=: #\\n\\r\\-a]{0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn the_last_of_two_counts() {
        let ParsedEnv { root, repeated } = parse("A=1\nA=2\n");
        assert_eq!(
            root.ok().and_then(|root| root.member("a").map(|(_, n)| n.text() == Some("2"))),
            Some(true)
        );
        assert_eq!(repeated.len(), 1);
    }
}
