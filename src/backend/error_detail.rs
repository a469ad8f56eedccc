//! Extracts from a backend's error document one plain sentence for people: short, without markup or
//! secrets.

use crate::base::json::{JsonDocument, JsonKind, JsonLimits, JsonNode, JsonString};
use crate::base::text::{clip, prefix_if_longer};
use crate::spec::CallSpec;

const MAX_CHARS: usize = 200;
/// Members that usually carry the reason (FastAPI, Express, Spring, RFC 9457).
const REASON_MEMBERS: [&str; 6] = ["detail", "message", "error", "error_description", "title", "msg"];
/// Error bodies are short, and deeper ones than serde_json reads are ignored.
const LIMITS: JsonLimits = JsonLimits { bytes: 64 << 10, depth: 120, values: usize::MAX };
/// The number of bytes of a reason that are examined.
const MAX_EXAMINED_BYTES: usize = 8 << 10;

/// Returns the reason given by a JSON error document, if there is one.
pub(super) fn extract_detail(body: Vec<u8>, spec: &CallSpec) -> Option<String> {
    let document = JsonDocument::parse(body, &LIMITS).ok()?;
    let text = find_reason(document.root(), 0)?;
    let (text, _) = text.prefix(MAX_EXAMINED_BYTES);
    let text = text.as_ref();
    if text.contains('<') && text.contains('>') {
        return None;
    }
    Some(shorten(&to_one_line(&redact_secrets(text, spec)))).filter(|text| !text.is_empty())
}

/// Finds the reason in `{"detail": "…"}`, `{"error": {"message": "…"}}` or `{"detail": [{"msg":
/// "…"}]}`.
fn find_reason(value: JsonNode<'_>, depth: usize) -> Option<JsonString<'_>> {
    match value.kind() {
        JsonKind::String if depth > 0 => value.string().filter(|text| !text.decode().trim().is_empty()),
        JsonKind::Object if depth < 4 => value
            .get_many(&REASON_MEMBERS)
            .into_iter()
            .flatten()
            .find_map(|member| find_reason(member, depth + 1)),
        JsonKind::Array if depth < 4 => value.items().next().and_then(|item| find_reason(item, depth + 1)),
        _ => None,
    }
}

/// Redacts the secrets that were sent, since backends tend to echo them.
fn redact_secrets(text: &str, spec: &CallSpec) -> String {
    let mut text = text.to_owned();
    for (_, secret) in spec.headers.iter() {
        let secret = secret.expose();
        for part in std::iter::once(secret).chain(secret.split_whitespace()) {
            // Shorter parts are ordinary words, such as "Bearer"; no key is that short.
            if part.len() >= 4 {
                text = text.replace(part, "[redacted]");
            }
        }
    }
    text
}

fn to_one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shorten(text: &str) -> String {
    match prefix_if_longer(text, MAX_CHARS) {
        Some(start) => clip(start, MAX_CHARS - 1),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::*;
    use crate::base::secret::Secret;
    use crate::spec::UrlTemplate;

    fn detail(body: &str) -> Option<String> {
        let spec = CallSpec {
            method: Method::GET,
            url: UrlTemplate::parse("http://h/").expect("a template"),
            headers: [(HeaderName::from_static("authorization"), Secret::new("Bearer canary-key"))].into(),
            body: None,
            constants: Default::default(),
        };
        extract_detail(body.into(), &spec)
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
            assert_eq!(detail(shape).as_deref(), Some("no such table"), "{shape}");
        }
    }

    #[test]
    fn pages_and_odd_shapes_give_none() {
        for body in ["<html>no</html>", "\"text\"", "{}", r#"{"error": 7}"#, r#"{"error": "<b>no</b>"}"#, ""]
        {
            assert_eq!(detail(body), None, "{body}");
        }
    }

    #[test]
    fn an_echoed_key_is_redacted_in_whole_and_in_part() {
        let echoed =
            detail(r#"{"message": "bad header Bearer canary-key or canary-key"}"#).expect("a sentence");
        assert!(!echoed.contains("canary"), "{echoed}");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let long = format!(r#"{{"message": "{}"}}"#, "ö".repeat(500));
        assert_eq!(detail(&long).map(|text| text.chars().count()), Some(MAX_CHARS));
    }
}
