//! Templates of URLs and JSON bodies: `{{mark}}` is replaced as a whole JSON value in a body and percent-encoded in a
//! URL, never pasted as text.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

/// The values of marks.
pub type Values = Map<String, Value>;

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    #[error("\"{{{{\" without \"}}}}\"")]
    Unclosed,
    #[error("{0:?} is no mark; a mark is a name such as query in double braces")]
    BadMark(String),
    #[error("a mark stands inside a JSON string; write {{{{query}}}} without quotes around it")]
    MarkInString,
    #[error("the body is not JSON: {0}")]
    NotJson(String),
}

/// A URL with marks in its query or path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Mark(String),
}

/// What RFC 3986 leaves unreserved stays; all else is encoded.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl UrlTemplate {
    /// Reads a template. That the text around the marks is an absolute http(s) URL is for the caller to check.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        Ok(Self { parts: split(text)? })
    }

    /// Fills the marks in. A query pair whose mark has no value is left out; elsewhere it becomes nothing.
    pub fn render(&self, values: &Values) -> String {
        let mut url = String::new();
        for part in &self.parts {
            match part {
                // After a dropped pair its own separator is in place already.
                Part::Text(text) if url.ends_with(['?', '&']) => url.push_str(text.trim_start_matches('&')),
                Part::Text(text) => url.push_str(text),
                Part::Mark(mark) => match values.get(mark) {
                    None | Some(Value::Null) => drop_dangling_pair(&mut url),
                    Some(Value::String(text)) => url.extend(utf8_percent_encode(text, COMPONENT)),
                    Some(other) => url.extend(utf8_percent_encode(&other.to_string(), COMPONENT)),
                },
            }
        }
        url.trim_end_matches(['?', '&']).to_owned()
    }

    /// The names of its marks.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Mark(mark) => Some(mark.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text before the first mark: enough to know the origin.
    pub fn head(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }
}

/// `…?a=1&topic=` becomes `…?a=1&`: the pair whose value is missing goes, its separator stays for the next.
fn drop_dangling_pair(url: &mut String) {
    if !url.ends_with('=') {
        return;
    }
    if let Some(start) = url.rfind(['?', '&']) {
        url.truncate(start + 1);
    }
}

/// A JSON body with marks as values.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyTemplate {
    root: Node,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Mark(String),
    Literal(Value),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl BodyTemplate {
    /// Reads a JSON text in which a mark may stand wherever a value may.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let mut json = String::with_capacity(text.len());
        let mut marks = Vec::new();
        for part in split(text)? {
            match part {
                Part::Text(text) => json.push_str(&text),
                Part::Mark(mark) => {
                    if inside_string(&json) {
                        return Err(TemplateFault::MarkInString);
                    }
                    json.push_str(&format!("\"\\u0000{}\"", marks.len()));
                    marks.push(mark);
                }
            }
        }
        let value = serde_json::from_str(&json).map_err(|error| TemplateFault::NotJson(error.to_string()))?;
        Ok(Self { root: Node::from(value, &marks) })
    }

    /// Fills the marks in. A member or element whose mark has no value is left out.
    pub fn render(&self, values: &Values) -> Value {
        self.root.render(values).unwrap_or(Value::Null)
    }

    /// The names of its marks.
    pub fn marks(&self) -> Vec<&str> {
        let mut marks = Vec::new();
        self.root.marks(&mut marks);
        marks
    }
}

impl Node {
    fn from(value: Value, marks: &[String]) -> Self {
        match value {
            Value::String(text) => {
                match text.strip_prefix('\0').and_then(|index| index.parse::<usize>().ok()) {
                    Some(index) if index < marks.len() => Self::Mark(marks[index].clone()),
                    _ => Self::Literal(Value::String(text)),
                }
            }
            Value::Array(items) => {
                Self::Array(items.into_iter().map(|item| Self::from(item, marks)).collect())
            }
            Value::Object(members) => Self::Object(
                members.into_iter().map(|(name, member)| (name, Self::from(member, marks))).collect(),
            ),
            literal => Self::Literal(literal),
        }
    }

    fn render(&self, values: &Values) -> Option<Value> {
        Some(match self {
            Self::Mark(mark) => return values.get(mark).filter(|value| !value.is_null()).cloned(),
            Self::Literal(value) => value.clone(),
            Self::Array(items) => items.iter().filter_map(|item| item.render(values)).collect(),
            Self::Object(members) => Value::Object(
                members
                    .iter()
                    .filter_map(|(name, member)| Some((name.clone(), member.render(values)?)))
                    .collect(),
            ),
        })
    }

    fn marks<'a>(&'a self, out: &mut Vec<&'a str>) {
        match self {
            Self::Mark(mark) => out.push(mark),
            Self::Literal(_) => {}
            Self::Array(items) => items.iter().for_each(|item| item.marks(out)),
            Self::Object(members) => members.iter().for_each(|(_, member)| member.marks(out)),
        }
    }
}

fn split(text: &str) -> Result<Vec<Part>, TemplateFault> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let close = rest[open..].find("}}").map(|at| open + at).ok_or(TemplateFault::Unclosed)?;
        let mark = rest[open + 2..close].trim();
        if mark.is_empty() || !mark.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(TemplateFault::BadMark(mark.to_owned()));
        }
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        parts.push(Part::Mark(mark.to_owned()));
        rest = &rest[close + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Whether JSON text ends inside a string.
fn inside_string(json: &str) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(value: Value) -> Values {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn a_mark_in_a_body_is_a_whole_value() {
        let body = BodyTemplate::parse(r#"{"query": {{query}}, "n": {{ limit }}, "k": ["x", {{gone}}]}"#)
            .expect("valid");
        let rendered = body.render(&values(json!({"query": "a\", \"admin\": true, \"", "limit": 3})));
        assert_eq!(rendered, json!({"query": "a\", \"admin\": true, \"", "n": 3, "k": ["x"]}));
        assert_eq!(body.marks(), ["query", "limit", "gone"]);
    }

    #[test]
    fn a_member_without_value_is_left_out() {
        let body = BodyTemplate::parse(r#"{"query": {{query}}, "connection_id": {{connection_id}}}"#)
            .expect("valid");
        assert_eq!(body.render(&values(json!({"query": "q"}))), json!({"query": "q"}));
    }

    #[test]
    fn a_mark_in_a_url_is_percent_encoded() {
        let url =
            UrlTemplate::parse("http://h/c?connection_id={{connection_id}}&topic={{topic}}").expect("valid");
        let rendered = url.render(&values(json!({"connection_id": "a&b=c/../d ü", "topic": "x"})));
        assert_eq!(rendered, "http://h/c?connection_id=a%26b%3Dc%2F..%2Fd%20%C3%BC&topic=x");
        assert_eq!(url.render(&values(json!({"topic": "x"}))), "http://h/c?topic=x");
        assert_eq!(url.render(&Values::new()), "http://h/c");
    }

    #[test]
    fn bad_templates_are_named() {
        assert_eq!(BodyTemplate::parse(r#"{"q": "x {{query}}"}"#), Err(TemplateFault::MarkInString));
        assert_eq!(UrlTemplate::parse("http://h/{{a"), Err(TemplateFault::Unclosed));
        assert_eq!(UrlTemplate::parse("http://h/{{a b}}"), Err(TemplateFault::BadMark("a b".into())));
        assert!(matches!(BodyTemplate::parse("{"), Err(TemplateFault::NotJson(_))));
    }
}
