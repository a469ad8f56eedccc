//! What a client is handed: the backend's answer as structured content, cut at a row where it is too large, and as text.

use std::io;

use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::{Map, Value, json};

use super::render;
use super::rows::Place;

/// The text repeats what the structured content has, so it gets the smaller part.
const MAX_TEXT_BYTES: usize = 48 << 10;
/// For everything around data and text.
const ENVELOPE_BYTES: usize = 1 << 10;

/// An answer on its way out.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) data: Value,
    /// What to know about it before anything is cut here.
    pub(super) notice: Option<String>,
    /// The caller wants at most so many rows.
    pub(super) limit: Option<usize>,
}

impl Answer {
    /// The result, in at most about `max_bytes`.
    pub(super) fn into_result(mut self, max_bytes: usize) -> CallToolResult {
        let place = Place::find(&self.data);
        let mut notices = Vec::from_iter(self.notice.take());
        let rows = place.as_ref().map_or(0, |place| place.rows(&self.data).len());
        let mut kept = rows.min(self.limit.unwrap_or(rows));
        if kept < rows {
            notices
                .push(format!("The search service gave {rows} rows; the first {kept} are kept, as asked."));
            keep_rows(&mut self.data, place.as_ref(), kept);
        }
        let text = render::text(&self.data, place.as_ref(), MAX_TEXT_BYTES.min(max_bytes / 4));
        let room = max_bytes.saturating_sub(text.len() + ENVELOPE_BYTES);
        let asked = kept;
        let fits = fit(&mut self.data, place.as_ref(), &mut kept, room);
        if !fits {
            notices.push(too_large(kept, asked, max_bytes));
        }
        result(self.data, &text, &notices, kept < rows || !fits)
    }
}

fn too_large(kept: usize, rows: usize, max_bytes: usize) -> String {
    let what = match kept {
        0 => "The data is left out".to_owned(),
        kept => format!("Only the first {kept} of {rows} rows are kept"),
    };
    format!(
        "{what}: the answer is larger than the {max_bytes} bytes that this server hands out. \
         Ask a narrower question, or for fewer rows with a lower limit."
    )
}

fn result(data: Value, text: &str, notices: &[String], truncated: bool) -> CallToolResult {
    let mut structured = Map::new();
    structured.insert("data".to_owned(), data);
    let mut blocks = Vec::with_capacity(2);
    if truncated {
        structured.insert("truncated".to_owned(), json!(true));
    }
    if !notices.is_empty() {
        let notice = notices.join(" ");
        blocks.push(ContentBlock::text(format!("Note: {notice}")));
        structured.insert("notice".to_owned(), Value::String(notice));
    }
    blocks.push(ContentBlock::text(text));
    let mut result = CallToolResult::success(blocks);
    result.structured_content = Some(Value::Object(structured));
    result
}

/// A failure that the model and its user should read.
pub(super) fn failure(sentence: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(sentence)])
}

/// Says who answered.
pub(super) fn signed(mut result: CallToolResult, meta: Option<MetaObject>) -> CallToolResult {
    result.meta = meta;
    result
}

fn keep_rows(data: &mut Value, place: Option<&Place>, count: usize) {
    if let Some(rows) = place.and_then(|place| place.rows_mut(data)) {
        rows.truncate(count);
    }
}

/// Cuts data to `room` bytes of JSON, at a row. Data that is too large without its rows is left out. Says whether
/// nothing had to be cut.
fn fit(data: &mut Value, place: Option<&Place>, kept: &mut usize, room: usize) -> bool {
    if at_most(data) <= room || size(data, room).is_some() {
        return true;
    }
    let mut rows = place.and_then(|place| place.rows_mut(data)).map(std::mem::take).unwrap_or_default();
    *kept = size(data, room).map_or(0, |rest| how_many_fit(&rows, room - rest));
    if *kept == 0 {
        *data = Value::Null;
        return false;
    }
    rows.truncate(*kept);
    if let Some(emptied) = place.and_then(|place| place.rows_mut(data)) {
        *emptied = rows;
    }
    false
}

fn how_many_fit(rows: &[Value], mut room: usize) -> usize {
    rows.iter()
        .take_while(|row| match size(row, room.saturating_sub(1)) {
            Some(size) => {
                room -= size + 1;
                true
            }
            None => false,
        })
        .count()
}

/// A bound of a value's size as JSON that is quick to know: no byte of a string takes more than six (`\u0000`).
fn at_most(value: &Value) -> usize {
    const NUMBER: usize = 32;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => NUMBER,
        Value::String(text) => 2 + 6 * text.len(),
        Value::Array(items) => 2 + items.iter().map(|item| 1 + at_most(item)).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(name, value)| 4 + 6 * name.len() + at_most(value)).sum::<usize>()
        }
    }
}

/// A value's size as JSON, unless it is larger than `room`.
fn size(value: &Value, room: usize) -> Option<usize> {
    let mut counter = Counter { room };
    serde_json::to_writer(&mut counter, value).ok()?;
    Some(room - counter.room)
}

struct Counter {
    room: usize,
}

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn structured(answer: Answer, max_bytes: usize) -> Value {
        answer.into_result(max_bytes).structured_content.expect("structured content")
    }

    fn rows(count: usize) -> Value {
        json!({"total": count, "rows": (0..count).map(|n| json!({"n": n, "pad": "x".repeat(90)})).collect::<Vec<_>>()})
    }

    #[test]
    fn a_small_answer_is_handed_on_as_it_is() {
        let structured = structured(Answer { data: rows(2), ..Answer::default() }, 1 << 16);
        assert_eq!(structured, json!({"data": rows(2)}));
    }

    #[test]
    fn a_large_answer_is_cut_at_a_row_and_says_so() {
        let structured = structured(Answer { data: rows(1000), ..Answer::default() }, 16 << 10);
        let kept = structured["data"]["rows"].as_array().expect("rows").len();
        assert!((50..150).contains(&kept), "{kept}");
        assert_eq!(structured["truncated"], true);
        let notice = structured["notice"].as_str().expect("a notice");
        assert!(notice.starts_with(&format!("Only the first {kept} of 1000 rows are kept")), "{notice}");
        assert_eq!(structured["data"]["total"], 1000);
    }

    #[test]
    fn the_limit_of_the_caller_is_kept() {
        let structured = structured(Answer { data: rows(10), limit: Some(3), ..Answer::default() }, 1 << 16);
        assert_eq!(structured["data"]["rows"].as_array().expect("rows").len(), 3);
        assert_eq!(structured["notice"], "The search service gave 10 rows; the first 3 are kept, as asked.");
    }

    #[test]
    fn data_without_rows_is_left_out_when_too_large() {
        let result =
            Answer { data: json!({"answer": "x".repeat(9000)}), ..Answer::default() }.into_result(4000);
        let structured = result.structured_content.expect("structured content");
        assert_eq!(structured["data"], Value::Null);
        assert!(
            structured["notice"].as_str().is_some_and(|notice| notice.starts_with("The data is left out"))
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

    proptest! {
        #[test]
        fn no_result_is_larger_than_allowed(data in json_value(), max_bytes in 2048_usize..8192) {
            let result = Answer { data, ..Answer::default() }.into_result(max_bytes);
            let size = serde_json::to_string(&result).expect("JSON").len();
            // Quotes and control characters of the text are escaped once more.
            prop_assert!(size <= max_bytes + max_bytes / 4 * 5, "{size} > {max_bytes}");
        }

        #[test]
        fn the_quick_bound_is_a_bound(data in json_value()) {
            prop_assert!(data.to_string().len() <= at_most(&data));
        }
    }
}
