//! The vendor's `.env`, read as the compose stack reads it: `NAME=value`, `export `, quotes, comments.
//!
//! Nothing is interpolated. A line that cannot be read is a fault, not ignored: it may be the cut-off
//! `OAUTH_ENABLED=true` of a half-written file.

use super::yaml::{Fault, Key, Mark, Node, Value};

const MAX_LINES: usize = 5_000;

/// A `.env` as read.
pub(super) struct Read {
    /// A mapping whose keys are the names in small letters.
    pub(super) root: Result<Node, Vec<Fault>>,
    /// Names given twice, and where the one that counts, the last, stands.
    pub(super) repeated: Vec<(String, Mark)>,
}

/// Reads a `.env`.
pub(super) fn parse(text: &str) -> Read {
    let mut pairs: Vec<(Key, Node)> = Vec::new();
    let (mut faults, mut repeated) = (Vec::new(), Vec::new());
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let at = Mark { line: index + 1, column: 1 };
        if index >= MAX_LINES {
            faults.push(fault(at, "more than 5,000 lines"));
            break;
        }
        match assignment(line, at) {
            Ok(None) => {}
            Ok(Some((key, node))) => {
                if let Some(place) = pairs.iter().position(|(earlier, _)| earlier.text == key.text) {
                    pairs.remove(place);
                    repeated.push((key.text.to_ascii_uppercase(), at));
                }
                pairs.push((key, node));
            }
            Err(what) if faults.len() < 20 => faults.push(fault(at, what)),
            Err(_) => {}
        }
    }
    let root = Node { at: Mark { line: 1, column: 1 }, value: Value::map(pairs) };
    Read { root: if faults.is_empty() { Ok(root) } else { Err(faults) }, repeated }
}

fn fault(at: Mark, what: &str) -> Fault {
    Fault {
        code: "env-syntax",
        message: format!("this line of the .env cannot be read: {what}"),
        help: "write NAME=value, one a line; comments begin with #",
        at,
    }
}

type Pair = (Key, Node);

fn assignment(line: &str, at: Mark) -> Result<Option<Pair>, &'static str> {
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    }
    let trimmed = trimmed.strip_prefix("export ").unwrap_or(trimmed).trim_start();
    let (name, value) = trimmed.split_once('=').ok_or("it has no \"=\"")?;
    let name = name.trim_end();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("its name is not made of letters, digits and _");
    }
    let (text, plain) = value_of(value.trim())?;
    if text.contains('\0') {
        return Err("it has a NUL character");
    }
    let column = line.chars().count() - value.trim_start().chars().count() + 1;
    let node = Node { at: Mark { column, ..at }, value: Value::Scalar { text: text.into(), plain } };
    Ok(Some((Key { at, text: name.to_ascii_lowercase().into() }, node)))
}

/// The value and whether it stood without quotes.
fn value_of(value: &str) -> Result<(String, bool), &'static str> {
    match value.chars().next() {
        Some('\'') => single(&value[1..]).map(|text| (text, false)),
        Some('"') => double(&value[1..]).map(|text| (text, false)),
        _ => Ok((without_comment(value).to_owned(), true)),
    }
}

fn single(rest: &str) -> Result<String, &'static str> {
    let (text, after) = rest.split_once('\'').ok_or("a quote is not closed")?;
    nothing_but_comment(after)?;
    Ok(text.to_owned())
}

fn double(rest: &str) -> Result<String, &'static str> {
    let mut text = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next().ok_or("a quote is not closed")? {
            '"' => break,
            '\\' => match chars.next().ok_or("a quote is not closed")? {
                'n' => text.push('\n'),
                'r' => text.push('\r'),
                't' => text.push('\t'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    nothing_but_comment(chars.as_str())?;
    Ok(text)
}

fn nothing_but_comment(after: &str) -> Result<(), &'static str> {
    match after.trim_start() {
        "" => Ok(()),
        rest if rest.starts_with('#') => Ok(()),
        _ => Err("something follows the closing quote"),
    }
}

fn without_comment(value: &str) -> &str {
    if value.starts_with('#') {
        return "";
    }
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

    #[test]
    fn the_last_of_two_counts() {
        let Read { root, repeated } = parse("A=1\nA=2\n");
        assert_eq!(
            root.ok().and_then(|root| root.member("a").map(|(_, n)| n.text() == Some("2"))),
            Some(true)
        );
        assert_eq!(repeated.len(), 1);
    }
}
