use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LIMITS: JsonLimits = JsonLimits { bytes: 1 << 20, depth: 127, values: usize::MAX };

fn parse(text: impl Into<Vec<u8>>) -> Result<JsonDocument, JsonError> {
    JsonDocument::parse(text.into(), &LIMITS)
}

fn compact(text: &str) -> String {
    parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}")).as_str().to_owned()
}

#[test]
fn digits_stay_as_they_are_written() {
    for number in ["12345678901234567890123", "18446744073709551615", "-0", "1.10", "1e999", "0.1E+05"] {
        let document = format!(r#"{{"n":[{number}]}}"#);
        assert_eq!(compact(&document), document);
    }
}

#[test]
fn white_space_between_tokens_goes_and_within_strings_stays() {
    assert_eq!(
        compact(" { \"a b\" : [ 1 ,\n\t2 ] , \"c\" : { } , \"d\":[ ] }\r\n"),
        r#"{"a b":[1,2],"c":{},"d":[]}"#
    );
}

#[test]
fn what_python_takes_is_taken() {
    let read = |text: &str| {
        let document = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let repairs = document.repairs();
        (document.to_value(), repairs.numbers, repairs.surrogates)
    };
    assert_eq!(read("[NaN, Infinity,-Infinity]"), (json!([null, null, null]), true, false));
    assert_eq!(
        read(r#"{"a\ud83d":"x\udc00y\ud83d\u0041"}"#),
        (json!({"a\u{fffd}": "x\u{fffd}y\u{fffd}A"}), false, true)
    );
    assert_eq!(read(r#""\ud83d\ude00""#), (json!("😀"), false, false));
    assert_eq!(read("\"a\tb\nc\u{1}\""), (json!("a\tb\nc\u{1}"), false, false));
}

#[test]
fn spans_end_where_a_pass_over_the_text_ends() {
    let row = |n: usize| format!(r#"{{"id":{n},"text":"}}]\\\"{}","tags":["a",[{n}]]}}"#, "x".repeat(n));
    let rows = (0..200).map(row).collect::<Vec<_>>().join(",");
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let text = format!(r#"{{"rows":[{rows}],"deep":{deep},"none":[],"small":{{"a":1}}}}"#);
    let document = parse(text.clone()).expect("a document");
    let mut found = 0;
    for (start, _) in text.match_indices(['{', '[']) {
        if let Some(end) = document.spans.find_end(start) {
            assert_eq!(end, scan::find_value_end(text.as_bytes(), start), "{start}");
            assert!(end - start >= 64);
            found += 1;
        }
    }
    assert!(found > 200, "{found}");
    assert!(document.capacity() - document.text.capacity() <= text.len() / 8);
    let many = parse(format!("[{}0]", "[[]],".repeat(10_000))).expect("a document");
    assert_eq!(many.root().items().count(), 10_001);
    assert!(many.spans.capacity() <= many.size() / 8);
}

#[test]
fn bounds_are_kept() {
    let bounded = |text: &str, limits: JsonLimits| JsonDocument::parse(text.into(), &limits).map(|_| ());
    assert_eq!(bounded("[1,2]", JsonLimits { values: 3, ..LIMITS }), Ok(()));
    assert_eq!(bounded("[1,2]", JsonLimits { values: 2, ..LIMITS }), Err(JsonError::TooManyValues));
    assert_eq!(bounded("[[1]]", JsonLimits { depth: 1, ..LIMITS }), Err(JsonError::TooDeep));
    assert_eq!(
        bounded("\"\u{1}\"", JsonLimits { bytes: 7, ..LIMITS }),
        Err(JsonError::TooLarge),
        "it takes six bytes escaped"
    );
    assert_eq!(parse("[".repeat(100_000)).map(|_| ()), Err(JsonError::TooDeep));
    assert_eq!(parse("[1,0x]").map(|_| ()), Err(JsonError::Syntax { at: 4 }));
    assert_eq!(parse(b"\"\xff\"").map(|_| ()), Err(JsonError::NotUtf8));
}

#[test]
fn members_are_found_by_what_they_are_called_and_the_last_one_counts() {
    let document = parse(r#"{"a":1,"\u0061":[2,{"b":"x"}],"c":"\n"}"#).expect("a document");
    let root = document.root();
    assert_eq!(root.get("a").map(JsonNode::raw), Some(r#"[2,{"b":"x"}]"#));
    assert_eq!(root.get_many(&["c", "z"]).map(|node| node.map(JsonNode::raw)), [Some(r#""\n""#), None]);
    assert_eq!(
        root.get("c").and_then(JsonNode::string).map(|text| text.decode().into_owned()),
        Some("\n".to_owned())
    );
    assert_eq!(root.members().count(), 3);
}

#[test]
fn the_beginning_of_a_text_is_never_longer_than_asked_for() {
    let text = format!(r#""{}""#, r"\ud83d\ude00ü".repeat(50));
    let document = parse(text).expect("a document");
    let text = document.root().string().expect("a string");
    assert_eq!(text.prefix(10), ("😀ü😀".into(), false));
    assert_eq!(text.prefix(1000), ("😀ü".repeat(50).into(), true));
}

/// Builds the tree of a node, for comparison.
fn tree(node: JsonNode<'_>) -> Value {
    match node.kind() {
        JsonKind::String => node.string().expect("a string").decode().into(),
        JsonKind::Array => node.items().map(tree).collect(),
        JsonKind::Object => {
            let members = node.members().map(|(name, value)| (name.decode().into_owned(), tree(value)));
            Value::Object(members.collect())
        }
        _ => serde_json::from_str(node.raw()).expect("a scalar"),
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null)
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Generates text that is almost JSON.
fn nearly() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\"a\""),
        Just("\""),
        Just("\\"),
        Just("\\u00e9"),
        Just("0"),
        Just("-"),
        Just("1.5"),
        Just("e3"),
        Just("true"),
        Just("null"),
        Just(" "),
        Just("\n"),
        Just("ü"),
        Just(".")
    ];
    proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

/// Whether serde_json accepts the text. It reads numbers as `f64` and so rejects some.
fn strictly_valid(text: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok()
}

proptest! {
    #[test]
    fn a_compact_text_is_its_own_document(value in value()) {
        let text = value.to_string();
        let document = parse(text.clone()).expect("a document");
        prop_assert_eq!(document.as_str(), &text);
        let read: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(tree(document.root()), read);
    }

    #[test]
    fn a_pretty_text_has_the_same_document(value in value()) {
        let text = serde_json::to_vec_pretty(&value).expect("JSON");
        let document = parse(text).expect("a document");
        prop_assert_eq!(document.as_str(), &value.to_string());
    }

    #[test]
    fn what_is_strictly_json_is_taken_and_little_else(text in nearly()) {
        let document = parse(text.clone());
        if strictly_valid(text.as_bytes()) {
            prop_assert!(document.is_ok(), "{text}");
        } else if let Ok(document) = document {
            // A raw line break within a string, which Python accepts.
            prop_assert!(text.contains('\n') && strictly_valid(document.as_ref()), "{text}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(document) = parse(bytes) {
            tree(document.root());
        }
    }

    #[test]
    fn what_is_taken_is_json_to_everybody(text in r#"[\[\]{},:"\\ud8NaI0-9\n\t -]{0,40}"#) {
        if let Ok(document) = parse(text) {
            prop_assert!(strictly_valid(document.as_ref()));
            document.root().members().for_each(|(name, value)| { name.decode(); value.raw(); });
        }
    }
}
