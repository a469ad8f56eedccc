//! Templates of URLs and JSON bodies. `{{mark}}` is replaced by a complete JSON value in a body and
//! percent-encoded in a URL; it is never pasted as text. A value in a path stays within one
//! segment, so no value changes the path requested.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

/// The values of marks, by name.
pub type TemplateValues = Map<String, Value>;

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("\"{{{{\" without \"}}}}\"")]
    Unclosed,
    #[error("{0:?} is not a mark; a mark is a name such as query in double braces")]
    BadMark(String),
    #[error("a mark is inside a JSON string; write {{{{query}}}} without quotes around it")]
    MarkInString,
    #[error("the body is not JSON: {0}")]
    NotJson(String),
}

/// A value that must not stand where its mark is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument {mark:?} {why}")]
pub struct InvalidMarkValue {
    /// The name of the mark and of the argument.
    pub mark: String,
    /// What is wrong, as the end of a sentence.
    pub why: &'static str,
}

/// A URL with marks in its path or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Mark(String),
}

/// Keeps what RFC 3986 leaves unreserved, and encodes everything else.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl UrlTemplate {
    /// Parses a template. The caller checks that the text around the marks is an absolute http(s)
    /// URL.
    ///
    /// # Errors
    /// The mark that cannot be parsed.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { parts: split(text)? })
    }

    /// Fills the marks in. A query pair whose mark has no value is left out.
    ///
    /// # Errors
    /// A value that must not stand where its mark is: see [`UrlTemplate::check_values`].
    pub fn render(&self, values: &TemplateValues) -> Result<String, InvalidMarkValue> {
        let mut url = String::new();
        for (part, position) in self.parts_with_position() {
            match part {
                // After a dropped pair its separator is already in place.
                TemplatePart::Text(text) if url.ends_with(['?', '&']) => {
                    url.push_str(text.trim_start_matches('&'))
                }
                TemplatePart::Text(text) => url.push_str(text),
                TemplatePart::Mark(mark) => match check_value(mark, position, values)? {
                    None => drop_dangling_pair(&mut url),
                    Some(text) => url.extend(utf8_percent_encode(&text, COMPONENT)),
                },
            }
        }
        Ok(url.trim_end_matches(['?', '&']).to_owned())
    }

    /// Checks that the values of the marks selected by `of` may stand where the marks are.
    ///
    /// In a path a value must stay within one segment, whatever a proxy or a framework makes of it:
    /// it is not empty, does not consist of dots, and has no slash, backslash or control character,
    /// in any spelling. In a query it must not contain NUL.
    ///
    /// # Errors
    /// The first value that may not.
    pub fn check_values(
        &self,
        values: &TemplateValues,
        of: impl Fn(&str) -> bool,
    ) -> Result<(), InvalidMarkValue> {
        for (part, position) in self.parts_with_position() {
            if let TemplatePart::Mark(mark) = part
                && of(mark)
            {
                check_value(mark, position, values)?;
            }
        }
        Ok(())
    }

    /// Returns the names of the marks in the path, each of which needs a value.
    pub fn path_marks(&self) -> impl Iterator<Item = &str> {
        self.parts_with_position().filter_map(|(part, position)| match part {
            TemplatePart::Mark(mark) if position == UrlPosition::Path => Some(mark.as_str()),
            _ => None,
        })
    }

    fn parts_with_position(&self) -> impl Iterator<Item = (&TemplatePart, UrlPosition)> {
        let mut position = UrlPosition::Path;
        self.parts.iter().map(move |part| {
            if let TemplatePart::Text(text) = part
                && text.contains('?')
            {
                position = UrlPosition::Query;
            }
            (part, position)
        })
    }

    /// Returns the names of all marks.
    pub fn marks(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Mark(mark) => Some(mark.as_str()),
            TemplatePart::Text(_) => None,
        })
    }

    /// Returns the text before the first mark, which includes the origin.
    pub fn head(&self) -> &str {
        match self.parts.first() {
            Some(TemplatePart::Text(text)) => text,
            _ => "",
        }
    }
}

/// The part of the URL in which a mark stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UrlPosition {
    Path,
    Query,
}

/// Returns the text of a mark's value, if it may stand there; `None`, in a query only, if there is
/// no value.
fn check_value<'a>(
    mark: &str,
    position: UrlPosition,
    values: &'a TemplateValues,
) -> Result<Option<Cow<'a, str>>, InvalidMarkValue> {
    let text = match values.get(mark) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(Cow::Borrowed(text.as_str())),
        Some(other) => Some(Cow::Owned(other.to_string())),
    };
    let why = match (position, text.as_deref()) {
        (UrlPosition::Path, None) => Some("is missing"),
        (UrlPosition::Path, Some(text)) => path_fault(text),
        (UrlPosition::Query, Some(text)) if text.contains('\0') => Some("contains a NUL character"),
        (UrlPosition::Query, _) => None,
    };
    match why {
        None => Ok(text),
        Some(why) => Err(InvalidMarkValue { mark: mark.to_owned(), why }),
    }
}

/// No meaningful text is encoded more often than this.
const MOST_DECODINGS: usize = 4;

/// Returns why a value cannot be part of one path segment. Checks it as it is, and decoded as often
/// as a chain of proxies might decode it.
fn path_fault(value: &str) -> Option<&'static str> {
    let mut text = Cow::Borrowed(value);
    for _ in 0..=MOST_DECODINGS {
        if let Some(fault) = segment_fault(&text) {
            return Some(fault);
        }
        let Ok(decoded) = percent_decode_str(&text).decode_utf8() else {
            return Some("contains percent-encoded bytes that are not text");
        };
        if *decoded == *text {
            return None;
        }
        text = Cow::Owned(decoded.into_owned());
    }
    Some("is percent-encoded too many times")
}

fn segment_fault(text: &str) -> Option<&'static str> {
    // Some servers drop what follows a semicolon before they resolve dot segments (RFC 3986 section
    // 3.3 leaves that to them).
    let bare = text.split(';').next().unwrap_or_default().trim();
    match () {
        () if text.chars().any(is_slash) => Some("contains a slash or backslash"),
        () if text.chars().any(char::is_control) => Some("contains a control character"),
        () if bare.is_empty() => Some("is empty"),
        () if bare.chars().all(is_dot) => Some("consists of dots"),
        () => None,
    }
}

/// Includes characters that Unicode compatibility forms (NFKC) or fonts turn into a slash.
fn is_slash(c: char) -> bool {
    matches!(c, '/' | '\\' | '\u{2044}' | '\u{2215}' | '\u{29f8}' | '\u{ff0f}' | '\u{ff3c}' | '\u{fe68}')
}

fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{2024}'..='\u{2026}' | '\u{ff0e}' | '\u{fe52}')
}

/// Turns `…?a=1&topic=` into `…?a=1&`: drops the pair without a value, and keeps its separator for
/// the next one.
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
    root: BodyNode,
}

#[derive(Debug, Clone, PartialEq)]
enum BodyNode {
    Mark(String),
    Literal(Value),
    Array(Vec<BodyNode>),
    Object(Vec<(String, BodyNode)>),
}

impl BodyTemplate {
    /// Parses a JSON text in which a mark may stand for any value.
    ///
    /// # Errors
    /// The mark that cannot be parsed, or the JSON error.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut json = String::with_capacity(text.len());
        let mut marks = Vec::new();
        for part in split(text)? {
            match part {
                TemplatePart::Text(text) => json.push_str(&text),
                TemplatePart::Mark(mark) => {
                    if inside_string(&json) {
                        return Err(TemplateError::MarkInString);
                    }
                    json.push_str(&format!("\"\\u0000{}\"", marks.len()));
                    marks.push(mark);
                }
            }
        }
        let value = serde_json::from_str(&json).map_err(|error| TemplateError::NotJson(error.to_string()))?;
        Ok(Self { root: BodyNode::from(value, &marks) })
    }

    /// Fills the marks in. A member or element whose mark has no value is left out.
    pub fn render(&self, values: &TemplateValues) -> Value {
        self.root.render(values).unwrap_or(Value::Null)
    }

    /// Returns the names of all marks.
    pub fn marks(&self) -> Vec<&str> {
        let mut marks = Vec::new();
        self.root.marks(&mut marks);
        marks
    }
}

impl BodyNode {
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

    fn render(&self, values: &TemplateValues) -> Option<Value> {
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

fn split(text: &str) -> Result<Vec<TemplatePart>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let close = rest[open..].find("}}").map(|at| open + at).ok_or(TemplateError::Unclosed)?;
        let mark = rest[open + 2..close].trim();
        if mark.is_empty() || !mark.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(TemplateError::BadMark(mark.to_owned()));
        }
        if open > 0 {
            parts.push(TemplatePart::Text(rest[..open].to_owned()));
        }
        parts.push(TemplatePart::Mark(mark.to_owned()));
        rest = &rest[close + 2..];
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Returns whether a JSON text ends inside a string.
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
    use proptest::prelude::*;
    use serde_json::json;

    fn values(value: Value) -> TemplateValues {
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
        let render = |given| url.render(&values(given)).expect("fits");
        let rendered = render(json!({"connection_id": "a&b=c/../d ü", "topic": "x"}));
        assert_eq!(rendered, "http://h/c?connection_id=a%26b%3Dc%2F..%2Fd%20%C3%BC&topic=x");
        assert_eq!(render(json!({"topic": "x"})), "http://h/c?topic=x");
        assert_eq!(render(json!({})), "http://h/c");
    }

    fn path(value: Value) -> Result<String, &'static str> {
        let url = UrlTemplate::parse("http://h/t/42/{{region}}/search?q={{q}}").expect("valid");
        url.render(&values(json!({"region": value, "q": "x"}))).map_err(|unfit| unfit.why)
    }

    #[test]
    fn a_value_in_a_path_is_part_of_one_segment() {
        let plain = |segment: &str| Ok(format!("http://h/t/42/{segment}/search?q=x"));
        for (value, segment) in [
            (json!("north"), "north"),
            (json!("a b&c=d?e#f"), "a%20b%26c%3Dd%3Fe%23f"),
            (json!("v1.2"), "v1.2"),
            (json!(".hidden"), ".hidden"),
            (json!("100%"), "100%25"),
            (json!("a;b"), "a%3Bb"),
            (json!("nö"), "n%C3%B6"),
            (json!(7), "7"),
            (json!(true), "true"),
        ] {
            assert_eq!(path(value.clone()), plain(segment), "{value}");
        }
        for (value, why) in [
            (json!(null), "is missing"),
            (json!(""), "is empty"),
            (json!("  "), "is empty"),
            (json!(";x"), "is empty"),
            (json!("%20"), "is empty"),
            (json!("."), "consists of dots"),
            (json!(".."), "consists of dots"),
            (json!("..."), "consists of dots"),
            (json!(" .. "), "consists of dots"),
            (json!("..;a=b"), "consists of dots"),
            (json!("%2e%2E"), "consists of dots"),
            (json!("%252e%252e"), "consists of dots"),
            (json!("\u{2025}"), "consists of dots"),
            (json!("\u{ff0e}\u{ff0e}"), "consists of dots"),
            (json!("../.."), "contains a slash or backslash"),
            (json!("a/b"), "contains a slash or backslash"),
            (json!("a%2fb"), "contains a slash or backslash"),
            (json!("a%252Fb"), "contains a slash or backslash"),
            (json!("a\\b"), "contains a slash or backslash"),
            (json!("a%5cb"), "contains a slash or backslash"),
            (json!("a\u{ff0f}b"), "contains a slash or backslash"),
            (json!({"a": "/"}), "contains a slash or backslash"),
            (json!("a\0"), "contains a control character"),
            (json!("a%00"), "contains a control character"),
            (json!("a\r\nb"), "contains a control character"),
            (json!("%c0%ae%c0%ae"), "contains percent-encoded bytes that are not text"),
            (json!("%25252525252e"), "is percent-encoded too many times"),
        ] {
            assert_eq!(path(value.clone()), Err(why), "{value}");
        }
    }

    #[test]
    fn an_unfit_value_names_its_argument() {
        let url = UrlTemplate::parse("http://h/{{region}}?q={{q}}").expect("valid");
        let told = |given| url.check_values(&values(given), |_| true).map_err(|unfit| unfit.to_string());
        assert_eq!(told(json!({"region": ".."})), Err("argument \"region\" consists of dots".to_owned()));
        assert_eq!(told(json!({})), Err("argument \"region\" is missing".to_owned()));
        assert_eq!(
            told(json!({"region": "n", "q": "a\0"})),
            Err("argument \"q\" contains a NUL character".to_owned())
        );
        assert_eq!(told(json!({"region": "n", "q": "../.."})), Ok(()));
        assert_eq!(url.check_values(&TemplateValues::new(), |mark| mark == "q"), Ok(()));
        assert_eq!(url.path_marks().collect::<Vec<_>>(), ["region"]);
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            r"[./\\%2eEfF5cC;?#&=\x00-\x20\u{2024}\u{ff0f}a]{0,12}",
            proptest::collection::vec(any::<u8>(), 0..8)
                .prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02x}")).collect()),
        ]
    }

    proptest! {
        #[test]
        fn no_value_changes_which_path_is_asked(a in text(), b in text(), q in text()) {
            let url = UrlTemplate::parse("http://h/t/{{a}}/v{{b}}/search?x=1&q={{q}}&y=2").expect("valid");
            let Ok(rendered) = url.render(&values(json!({"a": a, "b": b, "q": q}))) else { return Ok(()) };
            prop_assert!(rendered.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{}", rendered);
            prop_assert!(!rendered.contains('#'), "{}", rendered);
            let (path, query) = rendered.split_once('?').expect("a query");
            prop_assert_eq!(query.split('&').count(), 3, "{}", rendered);
            let mut decoded = path["http://h".len()..].to_owned();
            for _ in 0..6 {
                let segments: Vec<&str> = decoded[1..].split(['/', '\\']).collect();
                prop_assert_eq!(segments.len(), 4, "{} is {}", rendered, decoded);
                prop_assert!(!segments.iter().any(|segment| ["", ".", ".."].contains(segment)), "{}", decoded);
                prop_assert_eq!((segments[0], segments[3]), ("t", "search"));
                decoded = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
            }
            // Also resolve it as browsers do (the URL standard).
            let resolved = url::Url::parse(&rendered).expect("a URL");
            prop_assert_eq!(resolved.path(), path["http://h".len()..].to_owned());
        }
    }

    #[test]
    fn bad_templates_are_named() {
        assert_eq!(BodyTemplate::parse(r#"{"q": "x {{query}}"}"#), Err(TemplateError::MarkInString));
        assert_eq!(UrlTemplate::parse("http://h/{{a"), Err(TemplateError::Unclosed));
        assert_eq!(UrlTemplate::parse("http://h/{{a b}}"), Err(TemplateError::BadMark("a b".into())));
        assert!(matches!(BodyTemplate::parse("{"), Err(TemplateError::NotJson(_))));
    }
}
