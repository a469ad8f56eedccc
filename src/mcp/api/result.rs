//! Builds tool results: the backend's answer as structured content, cut at a row if it is too
//! large, and as text.
//!
//! The structured content is the document's own bytes: numbers keep their digits, and no tree is
//! built. The text is one block, because some clients show a model only the first one.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, json};

use super::render;
use super::rows::RowPath;
use crate::backend;
use crate::base::budget::Reservation;
use crate::base::json::{JsonDocument, JsonNode};
use crate::mcp::payload::{Payload, ReservedBytes};

/// The maximum size of the text. It repeats the structured content, so it gets the smaller part.
const MAX_TEXT_BYTES: usize = 48 << 10;
/// Reserved for everything around data and text.
const ENVELOPE_BYTES: usize = 1 << 10;

/// An answer before it becomes a result.
#[derive(Debug)]
pub(super) struct ToolAnswer {
    pub(super) data: Arc<JsonDocument>,
    /// The reservation for the data, unless the document is kept elsewhere.
    pub(super) reservation: Option<Reservation>,
    /// A notice that precedes those about what is cut here.
    pub(super) notice: Option<String>,
    /// The maximum number of rows that the caller wants.
    pub(super) row_limit: Option<usize>,
}

impl ToolAnswer {
    /// An answer from a document that the context cache keeps.
    pub(super) fn from_document(data: Arc<JsonDocument>) -> Self {
        Self { data, reservation: None, notice: None, row_limit: None }
    }

    /// Builds the result in approximately `max_bytes`.
    ///
    /// # Errors
    /// [`backend::Error::BudgetExhausted`] if the budget for answers has no room for it.
    pub(super) fn into_payload(mut self, max_bytes: usize) -> Result<Payload, backend::Error> {
        let data = Arc::clone(&self.data);
        let row_path = RowPath::find(data.root());
        let rows = row_path.as_ref().map_or(0, |row_path| row_path.rows().items().count());
        let wanted = rows.min(self.row_limit.unwrap_or(rows));
        let mut notices = Vec::from_iter(self.notice.take());
        notices.extend(describe_repairs(&data).map(str::to_owned));
        if wanted < rows {
            notices.push(format!(
                "The search service gave {rows} rows; the result has the first {wanted}, as \
                               requested."
            ));
        }
        let text =
            render::render_text(data.root(), row_path.as_ref(), wanted, MAX_TEXT_BYTES.min(max_bytes / 4));
        let room = max_bytes.saturating_sub(text.len() + ENVELOPE_BYTES);
        let selection = Selection::fit(&data, row_path.as_ref().map(RowPath::rows), wanted, room);
        if let Some(kept) = selection.kept_if_cut(wanted) {
            notices.push(describe_cut(kept, wanted, max_bytes));
        }
        let envelope = ResultEnvelope::new(&text, &notices, selection.is_cut());
        self.assemble(&envelope, &selection)
    }

    fn assemble(
        self,
        envelope: &ResultEnvelope,
        selection: &Selection<'_>,
    ) -> Result<Payload, backend::Error> {
        let Self { data, reservation, .. } = self;
        let document_bytes = data.capacity();
        let json = match selection {
            Selection::Whole => {
                return Ok(Payload::for_tool_result(
                    envelope.wrap(data, reservation),
                    envelope.model_text_bytes,
                ));
            }
            Selection::Rows { array, end, .. } => {
                let (before, after) = (&data.as_str()[..*end], &data.as_str()[array.end()..]);
                [&envelope.head, before, "]", after, &envelope.tail].concat()
            }
            Selection::Nothing => [&envelope.head, "null", &envelope.tail].concat(),
        };
        let bytes = ReservedBytes::reserve(json.into_bytes(), reservation, document_bytes)?;
        Ok(Payload::for_tool_result(vec![bytes], envelope.model_text_bytes))
    }
}

/// Which part of a document is returned.
enum Selection<'a> {
    Whole,
    /// The rows up to `end`, an offset into the document. `fits` unless more rows were wanted.
    Rows {
        array: JsonNode<'a>,
        end: usize,
        kept: usize,
        fits: bool,
    },
    /// The document is too large even without rows.
    Nothing,
}

impl<'a> Selection<'a> {
    /// Takes as many of the first `wanted` rows as fit into `room` bytes together with everything
    /// around them.
    fn fit(document: &JsonDocument, rows: Option<JsonNode<'a>>, wanted: usize, room: usize) -> Self {
        let Some(array) = rows else {
            return if document.size() <= room { Self::Whole } else { Self::Nothing };
        };
        let around = document.size() - array.raw().len() + "[]".len();
        let Some(mut remaining) = room.checked_sub(around) else { return Self::Nothing };
        let (mut kept, mut end) = (0, array.start() + 1);
        for row in array.items().take(wanted) {
            let Some(after_row) = remaining.checked_sub(row.end() - end) else { break };
            (remaining, end) = (after_row, row.end());
            kept += 1;
        }
        match kept {
            0 if wanted > 0 => Self::Nothing,
            _ if end + 1 == array.end() => Self::Whole,
            _ => Self::Rows { array, end, kept, fits: kept == wanted },
        }
    }

    /// Returns how many rows are kept, if that is fewer than `wanted`.
    fn kept_if_cut(&self, wanted: usize) -> Option<usize> {
        match self {
            Self::Nothing => Some(0),
            Self::Rows { kept, fits: false, .. } => Some((*kept).min(wanted)),
            Self::Whole | Self::Rows { .. } => None,
        }
    }

    fn is_cut(&self) -> bool {
        !matches!(self, Self::Whole)
    }
}

/// The JSON around the data.
struct ResultEnvelope {
    head: String,
    tail: String,
    /// Bytes of text that a model reads.
    model_text_bytes: usize,
}

impl ResultEnvelope {
    fn new(text: &str, notices: &[String], truncated: bool) -> Self {
        let mut extra = Map::new();
        if truncated {
            extra.insert("truncated".to_owned(), json!(true));
        }
        let mut block = text.to_owned();
        if !notices.is_empty() {
            let notice = notices.join(" ");
            block = format!("Note: {notice}\n\n{text}");
            extra.insert("notice".to_owned(), notice.into());
        }
        let model_text_bytes = block.len();
        let block = json!({ "type": "text", "text": block });
        let tail = match extra.is_empty() {
            true => "}".to_owned(),
            false => json!(extra).to_string().replacen('{', ",", 1),
        };
        Self { head: format!(r#""content":[{block}],"structuredContent":{{"data":"#), tail, model_text_bytes }
    }

    /// Puts the envelope around the whole document, whose bytes are copied only if they are few.
    fn wrap(&self, data: Arc<JsonDocument>, reservation: Option<Reservation>) -> Vec<Bytes> {
        const MAX_COPIED_BYTES: usize = 16 << 10;
        if data.size() <= MAX_COPIED_BYTES && reservation.is_some() {
            // The reservation for the document covers the copy, and the envelope is bounded.
            let bytes = [&self.head, data.as_str(), &self.tail].concat().into_bytes();
            return vec![Bytes::from_owner(ReservedBytes::new(bytes, reservation))];
        }
        let shared = Bytes::from_owner(ReservedBytes::new(data, reservation));
        vec![self.head.clone().into(), shared, self.tail.clone().into()]
    }
}

/// Describes what was changed in an answer to make it valid JSON.
fn describe_repairs(document: &JsonDocument) -> impl Iterator<Item = &'static str> {
    let repairs = document.repairs();
    let numbers =
        "Some numbers of the answer were NaN or Infinity, which JSON does not have; they are null here.";
    let surrogates = "Some characters of the answer were cut in half; they are U+FFFD here.";
    [(repairs.numbers, numbers), (repairs.surrogates, surrogates)]
        .into_iter()
        .filter_map(|(is_so, sentence)| is_so.then_some(sentence))
}

fn describe_cut(kept: usize, rows: usize, max_bytes: usize) -> String {
    let what = match kept {
        0 => "The result has no data".to_owned(),
        kept => format!("The result has only the first {kept} of {rows} rows"),
    };
    format!(
        "{what}: the answer is larger than {max_bytes} bytes, which is the limit of this server. Ask a \
         narrower question, or for fewer rows with a lower limit."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::budget::Budget;
    use crate::base::json::JsonLimits;
    use proptest::prelude::*;
    use serde_json::Value;

    fn answer(data: Value) -> ToolAnswer {
        ToolAnswer::from_document(Arc::new(JsonDocument::from_value(&data)))
    }

    fn text_of(answer: ToolAnswer, max_bytes: usize) -> String {
        let payload = answer.into_payload(max_bytes).expect("there is room");
        let pieces: Vec<u8> = payload.chunks().iter().flat_map(|piece| piece.to_vec()).collect();
        format!("{{{}}}", String::from_utf8(pieces).expect("text"))
    }

    fn result(answer: ToolAnswer, max_bytes: usize) -> Value {
        serde_json::from_str(&text_of(answer, max_bytes)).expect("JSON")
    }

    fn structured(answer: ToolAnswer, max_bytes: usize) -> Value {
        result(answer, max_bytes)["structuredContent"].clone()
    }

    fn rows(count: usize) -> Value {
        json!({"total": count, "rows": (0..count).map(|n| json!({"n": n, "pad": "x".repeat(90)})).collect::<Vec<_>>()})
    }

    #[test]
    fn a_small_answer_is_returned_unchanged() {
        let structured = structured(answer(rows(2)), 1 << 16);
        assert_eq!(structured, json!({"data": rows(2)}));
    }

    #[test]
    fn a_large_answer_is_cut_at_a_row_and_says_so() {
        let structured = structured(answer(rows(1000)), 16 << 10);
        let kept = structured["data"]["rows"].as_array().expect("rows").len();
        assert!((50..150).contains(&kept), "{kept}");
        assert_eq!(structured["truncated"], true);
        let notice = structured["notice"].as_str().expect("a notice");
        assert!(
            notice.starts_with(&format!("The result has only the first {kept} of 1000 rows")),
            "{notice}"
        );
        assert_eq!(structured["data"]["total"], 1000);
    }

    #[test]
    fn the_limit_of_the_caller_is_kept() {
        let structured = structured(ToolAnswer { row_limit: Some(3), ..answer(rows(10)) }, 1 << 16);
        assert_eq!(structured["data"]["rows"].as_array().expect("rows").len(), 3);
        assert_eq!(
            structured["notice"],
            "The search service gave 10 rows; the result has the first 3, as requested."
        );
    }

    #[test]
    fn data_without_rows_is_left_out_when_too_large() {
        let structured = structured(answer(json!({"answer": "x".repeat(9000)})), 4000);
        assert_eq!(structured["data"], Value::Null);
        assert!(
            structured["notice"].as_str().is_some_and(|notice| notice.starts_with("The result has no data"))
        );
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::vec((prop_oneof![Just("rows".to_owned()), ".{0,9}"], inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn digits_and_order_come_out_as_they_came_in() {
        let text = r#"{"rows":[{"id":12345678901234567890123,"b":1.10,"a":-0},{"id":1e-7}],"n":[1E400]}"#;
        let limits = JsonLimits { bytes: 1 << 10, depth: 100, values: 100 };
        let document = Arc::new(JsonDocument::parse(text.into(), &limits).expect("a document"));
        assert!(
            text_of(ToolAnswer::from_document(document), 1 << 16)
                .ends_with(&format!(r#""structuredContent":{{"data":{text}}}}}"#))
        );
    }

    #[test]
    fn the_first_block_has_note_and_answer() {
        let limits = JsonLimits { bytes: 1 << 10, depth: 100, values: 100 };
        let text = br#"{"rows":[{"a":NaN,"b":"x\ud83d"}]}"#.to_vec();
        let document = Arc::new(JsonDocument::parse(text, &limits).expect("a document"));
        let result = result(ToolAnswer::from_document(document), 1 << 16);
        assert_eq!(result["content"].as_array().map(Vec::len), Some(1));
        let told = result["content"][0]["text"].as_str().expect("a text");
        assert!(told.starts_with("Note: Some numbers") && told.ends_with("|  | x\u{fffd} |"), "{told}");
        assert_eq!(result["structuredContent"]["data"]["rows"][0], json!({"a": null, "b": "x\u{fffd}"}));
        assert!(told.contains(result["structuredContent"]["notice"].as_str().expect("a notice")));
    }

    #[test]
    fn a_context_is_counted_until_its_last_user_drops_it() {
        let budget = Budget::new(1 << 20);
        let counted = |data: Value| {
            let document = JsonDocument::from_value(&data);
            let mut reservation = budget.new_reservation(None, None, true);
            reservation.try_grow(document.capacity() as u64).expect("room");
            ToolAnswer { reservation: Some(reservation), ..ToolAnswer::from_document(Arc::new(document)) }
        };
        let whole = counted(rows(1000)).into_payload(1 << 20).expect("room");
        assert!(budget.held() > 90_000, "{}", budget.held());
        drop(whole);
        assert_eq!(budget.held(), 0);
        let cut = counted(rows(1000)).into_payload(8 << 10).expect("room");
        assert!((4000..9000).contains(&budget.held()), "{}", budget.held());
        drop(cut);
        assert_eq!(budget.held(), 0);
    }

    proptest! {
        #[test]
        fn no_result_is_larger_than_allowed(data in json_value(), max_bytes in 2048_usize..8192) {
            let size = text_of(answer(data), max_bytes).len();
            // JSON escapes quotes and control characters of the text once more.
            prop_assert!(size <= max_bytes + max_bytes / 4 * 5, "{size} > {max_bytes}");
        }

        #[test]
        fn an_uncut_document_is_returned_unchanged(data in json_value()) {
            let structured = structured(answer(data.clone()), 1 << 20);
            prop_assert_eq!(structured, json!({ "data": data }));
        }

        #[test]
        fn a_cut_result_has_the_first_rows(data in json_value(), limit in 0_usize..4) {
            let cut = ToolAnswer { row_limit: Some(limit), ..answer(data.clone()) };
            let structured = structured(cut, 1 << 20);
            let whole = JsonDocument::from_value(&data);
            let cut = JsonDocument::from_value(&structured["data"]);
            let rows = |document: &JsonDocument| -> Option<Vec<Value>> {
                let row_path = RowPath::find(document.root())?;
                Some(row_path.rows().items().map(|row| serde_json::from_str(row.raw()).expect("JSON")).collect())
            };
            let expected = rows(&whole).map(|rows| rows.into_iter().take(limit).collect::<Vec<_>>());
            prop_assert_eq!(rows(&cut), expected);
        }
    }
}
