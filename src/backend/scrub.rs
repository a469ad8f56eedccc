//! One plain sentence from a backend's error document, fit for people: short, no markup, no secret.

use serde_json::Value;

use crate::spec::CallSpec;

const LONGEST: usize = 200;
/// Members that carry the reason, by habit of the field (FastAPI, Express, Spring, RFC 9457).
const NAMES: [&str; 5] = ["detail", "message", "error", "error_description", "title"];

/// The reason that a JSON error document gives, if it gives one.
pub(super) fn plain_sentence(body: &[u8], spec: &CallSpec) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let text = reason(&document, 0)?;
    if text.contains('<') && text.contains('>') {
        return None;
    }
    Some(shorten(&one_line(&without_secrets(text, spec)))).filter(|text| !text.is_empty())
}

/// `{"detail": "…"}`, `{"error": {"message": "…"}}`, `{"detail": [{"msg": "…"}]}`.
fn reason(value: &Value, depth: usize) -> Option<&str> {
    match value {
        Value::String(text) if depth > 0 && !text.trim().is_empty() => Some(text),
        Value::Object(members) if depth < 4 => NAMES
            .iter()
            .chain(&["msg"])
            .filter_map(|name| members.get(*name))
            .find_map(|member| reason(member, depth + 1)),
        Value::Array(items) if depth < 4 => items.first().and_then(|item| reason(item, depth + 1)),
        _ => None,
    }
}

/// Backends like to repeat what they were sent.
fn without_secrets(text: &str, spec: &CallSpec) -> String {
    let mut text = text.to_owned();
    for (_, secret) in spec.headers.iter() {
        let secret = secret.expose();
        for part in std::iter::once(secret).chain(secret.split_whitespace()) {
            // Shorter ones are words, such as "Bearer"'s neighbours; no key is that short.
            if part.len() >= 4 {
                text = text.replace(part, "[redacted]");
            }
        }
    }
    text
}

fn one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::*;
    use crate::base::secret::Secret;
    use crate::spec::UrlTemplate;

    fn sentence(body: &str) -> Option<String> {
        let spec = CallSpec {
            method: Method::GET,
            url: UrlTemplate::parse("http://h/").expect("a template"),
            headers: [(HeaderName::from_static("authorization"), Secret::new("Bearer canary-key"))].into(),
            body: None,
            constants: Default::default(),
        };
        plain_sentence(body.as_bytes(), &spec)
    }

    #[test]
    fn the_usual_shapes_give_their_reason() {
        let shapes = [
            r#"{"detail": "no such table"}"#,
            r#"{"error": {"code": 7, "message": "no such table"}}"#,
            r#"{"detail": [{"loc": ["body"], "msg": "no such table"}]}"#,
            r#"{"status": 400, "error": "no\n  such\u0007 table"}"#,
        ];
        for shape in shapes {
            assert_eq!(sentence(shape).as_deref(), Some("no such table"), "{shape}");
        }
    }

    #[test]
    fn pages_and_odd_shapes_give_none() {
        for body in ["<html>no</html>", "\"text\"", "{}", r#"{"error": 7}"#, r#"{"error": "<b>no</b>"}"#, ""]
        {
            assert_eq!(sentence(body), None, "{body}");
        }
    }

    #[test]
    fn an_echoed_key_is_blanked_in_whole_and_in_part() {
        let echoed =
            sentence(r#"{"message": "bad header Bearer canary-key or canary-key"}"#).expect("a sentence");
        assert!(!echoed.contains("canary"), "{echoed}");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let long = format!(r#"{{"message": "{}"}}"#, "ö".repeat(500));
        assert_eq!(sentence(&long).map(|text| text.chars().count()), Some(LONGEST));
    }
}
