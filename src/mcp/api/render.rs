//! Renders an answer as text that people can read: its prose, its rows as a Markdown table, the
//! rest as lines. Many clients show a model only the text, so it always says what was cut.
//!
//! The cost is bounded: a few passes over the document, and memory for the text alone. A cell or
//! row never contains a line break, so none can look like a line that this server wrote.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write;

use super::rows::{self, RowPath};
use crate::base::json::{JsonKind, JsonNode, JsonString};
use crate::base::text::{clip, prefix_if_longer};

const MAX_ROWS: usize = 100;
const MAX_COLUMNS: usize = 16;
/// A cell of a large table; where there are few, each may be longer.
const MIN_CELL_CHARS: usize = 160;
const MAX_CELL_CHARS: usize = 4_096;
/// A name, in bytes, with some to spare, so that it is seen where one was cut.
const MAX_NAME_BYTES: usize = max_bytes_for(MIN_CELL_CHARS);
const MAX_DEPTH: usize = 6;

/// Members with prose; they come first, without their name.
const PROSE_MEMBERS: [&str; 6] = ["answer", "summary", "text", "message", "explanation", "description"];

/// Renders an answer with the first `kept` of its rows in approximately `limit` bytes.
pub(super) fn render_text(
    answer: JsonNode<'_>,
    row_path: Option<&RowPath<'_>>,
    kept: usize,
    limit: usize,
) -> String {
    let mut page = TextPage { text: String::new(), limit, is_truncated: false };
    page.write_prose(answer);
    page.write_scalars(answer);
    if let Some(row_path) = row_path {
        page.write_rows(row_path.rows(), kept, row_path.headers());
    }
    match answer.kind() {
        JsonKind::Object => page.write_nested(answer, row_path.and_then(RowPath::first_name), MAX_DEPTH),
        JsonKind::Array => {}
        _ => {
            let mut line = String::new();
            outline(&mut line, answer, MAX_DEPTH, limit + 4);
            page.write_line(&line);
        }
    }
    page.finish()
}

/// The text under construction.
struct TextPage {
    text: String,
    limit: usize,
    /// A line did not fit, so everything after it is left out.
    is_truncated: bool,
}

impl TextPage {
    fn write_prose(&mut self, answer: JsonNode<'_>) {
        for text in answer.get_many(&PROSE_MEMBERS).into_iter().flatten().filter_map(JsonNode::string) {
            let (text, _) = self.clip_to_limit(text);
            self.write_paragraph(text.trim());
        }
    }

    /// Writes the scalar members as sentences: `Total: 12. Took ms: 3.`
    fn write_scalars(&mut self, answer: JsonNode<'_>) {
        let mut sentences = String::new();
        for (name, value) in answer.members() {
            if self.is_truncated {
                return;
            }
            if value.is_container()
                || value.kind() == JsonKind::Null
                || PROSE_MEMBERS.iter().any(|word| name.equals(word))
            {
                continue;
            }
            let (plain, _) =
                value.string().map_or((value.raw().into(), true), |text| self.clip_to_limit(text));
            if plain.contains('\n') {
                self.write_paragraph(&format!("{}:\n{plain}", to_title(name)));
            } else if sentences.len() <= self.limit {
                let end = plain.floor_char_boundary(self.limit);
                let _ = write!(sentences, "{}: {}. ", to_title(name), plain[..end].trim_end_matches('.'));
            }
        }
        self.write_paragraph(sentences.trim_end());
    }

    fn write_rows(&mut self, rows: JsonNode<'_>, kept: usize, headers: Vec<JsonString<'_>>) {
        if kept == 0 {
            return self.write_paragraph("No rows.");
        }
        let columns = if headers.is_empty() { collect_columns(rows, kept) } else { headers };
        if columns.is_empty() { self.write_list(rows, kept) } else { self.write_table(rows, kept, &columns) }
    }

    fn write_list(&mut self, rows: JsonNode<'_>, kept: usize) {
        let room = self.limit + 1;
        let shown = self.write_each(rows, kept, |text, row| {
            text.push_str("- ");
            outline(text, row, MAX_DEPTH, room);
        });
        self.write_cut_notice(shown, kept);
    }

    fn write_table(&mut self, rows: JsonNode<'_>, kept: usize, columns: &[JsonString<'_>]) {
        let shown_columns = &columns[..columns.len().min(MAX_COLUMNS)];
        self.write_line(&table_line(shown_columns, push_name));
        self.write_line(&table_line(shown_columns, |text, _| text.push_str("---")));
        let max_chars = max_cell_chars(self.limit, kept, shown_columns.len());
        let is_truncated = Cell::new(false);
        let shown = self.write_each(rows, kept, |text, row| {
            is_truncated.set(is_truncated.get() | push_row(text, row, shown_columns, max_chars));
        });
        self.write_cut_notice(shown, kept);
        if is_truncated.get() {
            self.text.push_str(&format!(
                "\nNot shown here: the rest of cells with more than {max_chars} characters (…). \
                 The structured result has the complete cells.\n"
            ));
        }
        if columns.len() > MAX_COLUMNS {
            let left = join_names(&columns[MAX_COLUMNS..]);
            self.write_paragraph(&format!(
                "Not shown here: {} more columns ({}).",
                columns.len() - MAX_COLUMNS,
                clip(&left, MIN_CELL_CHARS)
            ));
        }
    }

    /// Adds as many rows as fit, each written by `push`. Returns how many.
    fn write_each<'a>(
        &mut self,
        rows: JsonNode<'a>,
        kept: usize,
        push: impl Fn(&mut String, JsonNode<'a>),
    ) -> usize {
        for (index, row) in rows.items().take(kept.min(MAX_ROWS)).enumerate() {
            let before = self.text.len();
            push(&mut self.text, row);
            self.text.push('\n');
            if self.text.len() > self.limit {
                self.text.truncate(before);
                return index;
            }
        }
        kept.min(MAX_ROWS)
    }

    fn write_cut_notice(&mut self, shown: usize, all: usize) {
        if shown < all {
            let notice = format!(
                "\nShown here: the first {shown} of {all} rows. The structured result has more; a narrower question or \
                 a lower limit gives a shorter answer.\n"
            );
            self.text.push_str(&notice);
        }
    }

    /// Writes the members that are neither prose nor scalars nor the rows.
    fn write_nested(&mut self, answer: JsonNode<'_>, rows: Option<&str>, depth: usize) {
        let nested = answer.members().filter(|(_, value)| value.is_container());
        for (name, value) in nested.filter(|(name, _)| !rows.is_some_and(|rows| name.equals(rows))) {
            if self.is_truncated {
                return;
            }
            let is_list = value.items().any(|item| item.kind() == JsonKind::Object);
            if is_list {
                self.write_line(&format!("{}:", to_title(name)));
                self.write_list(value, value.items().count());
            } else if depth > 0 && value.members().any(|(_, value)| value.is_container()) {
                self.write_line(&format!("{}:", to_title(name)));
                self.write_scalars(value);
                self.write_nested(value, None, depth - 1);
            } else {
                let mut line = format!("{}: ", to_title(name));
                outline(&mut line, value, MAX_DEPTH, self.limit + 1);
                self.write_line(&line);
            }
        }
    }

    /// Returns as much of a text as the page could hold, plus a few bytes if it is longer.
    fn clip_to_limit<'a>(&self, text: JsonString<'a>) -> (Cow<'a, str>, bool) {
        text.prefix(self.limit + 4)
    }

    fn write_paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            self.write_line(text);
            if !self.is_truncated {
                self.text.push('\n');
            }
        }
    }

    fn write_line(&mut self, text: &str) {
        if self.is_truncated {
            return;
        }
        if self.has_room(text.len() + 1) {
            self.text.push_str(text);
        } else {
            let room = self.limit.saturating_sub(self.text.len());
            self.text.push_str(&text[..text.floor_char_boundary(room)]);
            self.text.push('…');
            self.is_truncated = true;
        }
        self.text.push('\n');
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.text.len() + bytes <= self.limit
    }

    fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        if self.is_truncated {
            self.text.push_str("\n\nNot shown here: the rest. The structured result has more.");
        }
        if self.text.is_empty() {
            self.text.push_str("The answer is empty.");
        }
        self.text
    }
}

/// Returns the columns of rows that are objects, in the order in which they appear.
fn collect_columns(rows: JsonNode<'_>, kept: usize) -> Vec<JsonString<'_>> {
    let mut columns: Vec<JsonString<'_>> = Vec::new();
    let mut known = HashSet::new();
    for row in rows.items().take(kept.min(MAX_ROWS)) {
        // Rows mostly have the same members in the same order, so the next column is compared
        // before the lookup.
        let mut next = 0;
        for (name, _) in row.members() {
            if columns.get(next) == Some(&name) {
                next += 1;
                continue;
            }
            if known.insert(name.decode()) {
                columns.push(name);
                next = columns.len();
            }
            if columns.len() == rows::MAX_COLUMNS {
                return columns;
            }
        }
    }
    columns
}

/// Returns a table line with what `push` writes for each column.
fn table_line(columns: &[JsonString<'_>], push: impl Fn(&mut String, JsonString<'_>)) -> String {
    let mut line = "|".to_owned();
    for name in columns {
        line.push(' ');
        push(&mut line, *name);
        line.push_str(" |");
    }
    line
}

/// Returns the maximum number of characters in a cell, so that a table of such cells takes at most
/// half of the text.
fn max_cell_chars(limit: usize, rows: usize, columns: usize) -> usize {
    let cells = rows.min(MAX_ROWS) * columns.max(1);
    (limit / 2 / cells.max(1)).clamp(MIN_CELL_CHARS, MAX_CELL_CHARS)
}

/// Returns the bytes that this many characters may take in any script, and a few more.
const fn max_bytes_for(chars: usize) -> usize {
    4 * chars + 8
}

/// Appends a row's line, and returns whether one of its cells was cut. Writes straight into the
/// text, since half of the cost of rendering an answer is here.
fn push_row(text: &mut String, row: JsonNode<'_>, columns: &[JsonString<'_>], max_chars: usize) -> bool {
    let mut cells = [None; MAX_COLUMNS];
    match row.kind() {
        JsonKind::Array => cells.iter_mut().zip(row.items()).for_each(|(cell, item)| *cell = Some(item)),
        _ => {
            let mut next = 0;
            for (name, value) in row.members() {
                let is_next = columns.get(next) == Some(&name);
                let column =
                    if is_next { Some(next) } else { columns.iter().position(|known| known.same_as(name)) };
                if let Some(column) = column {
                    cells[column] = Some(value);
                    next = column + 1;
                }
            }
        }
    }
    let mut is_truncated = false;
    text.push('|');
    for cell in cells.iter().take(columns.len()) {
        text.push(' ');
        if let Some(value) = cell {
            is_truncated |= push_cell(text, *value, max_chars);
        }
        text.push_str(" |");
    }
    is_truncated
}

/// A value in a table cell: one line, short, no bars. Says whether it was cut.
fn push_cell(text: &mut String, value: JsonNode<'_>, max_chars: usize) -> bool {
    let simple = value.string().and_then(JsonString::plain);
    if let Some(cell) = simple
        && cell.len() <= max_chars
        && cell.bytes().all(|byte| matches!(byte, b' '..=b'{' | b'}' | b'~'))
    {
        text.push_str(cell);
        return false;
    }
    let mut cell = String::new();
    outline(&mut cell, value, MAX_DEPTH, max_bytes_for(max_chars));
    push_short(text, &cell, max_chars)
}

/// Writes a column's name.
fn push_name(text: &mut String, name: JsonString<'_>) {
    let mut cell = String::new();
    push_line(&mut cell, name, MAX_NAME_BYTES);
    push_short(text, &cell, MIN_CELL_CHARS);
}

fn push_short(text: &mut String, cell: &str, max_chars: usize) -> bool {
    let start = prefix_if_longer(cell, max_chars);
    push_escaped(text, start.unwrap_or(cell));
    text.push_str(if start.is_some() { "…" } else { "" });
    start.is_some()
}

/// Escapes bars. A backslash before a bar would escape the escape (GFM, "Tables"), so it is
/// doubled.
fn push_escaped(text: &mut String, cell: &str) {
    let mut backslashes = 0;
    for c in cell.chars() {
        match c {
            '\\' => backslashes += 1,
            '|' => text.extend(std::iter::repeat_n('\\', std::mem::take(&mut backslashes) + 1)),
            _ => backslashes = 0,
        }
        text.push(c);
    }
}

/// Writes any value on one line: `name: orders; attributes: id, region`. Stops when the text has
/// `room` bytes. Returns whether there is room left.
fn outline(text: &mut String, value: JsonNode<'_>, depth: usize, room: usize) -> bool {
    match value.kind() {
        JsonKind::Null => {}
        JsonKind::String => return value.string().is_none_or(|words| push_line(text, words, room)),
        JsonKind::Bool | JsonKind::Number => push_start(text, value.raw(), room),
        JsonKind::Array | JsonKind::Object if depth == 0 => text.push('…'),
        JsonKind::Array => {
            for (index, item) in value.items().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                if !push_inline(text, item, depth, room) {
                    return false;
                }
            }
        }
        JsonKind::Object => {
            for (index, (name, member)) in value.members().enumerate() {
                text.push_str(if index == 0 { "" } else { "; " });
                push_line(text, name, room);
                text.push_str(": ");
                if !push_inline(text, member, depth, room) {
                    return false;
                }
            }
        }
    }
    text.len() < room
}

fn push_inline(text: &mut String, value: JsonNode<'_>, depth: usize, room: usize) -> bool {
    let is_object = value.kind() == JsonKind::Object;
    text.push_str(if is_object { "(" } else { "" });
    let goes_on = outline(text, value, depth - 1, room);
    text.push_str(if is_object { ")" } else { "" });
    goes_on
}

fn push_start(text: &mut String, more: &str, room: usize) {
    let left = room.saturating_sub(text.len());
    text.push_str(&more[..more.floor_char_boundary(left)]);
}

/// Appends a string on one line. Returns whether there is room left.
fn push_line(text: &mut String, words: JsonString<'_>, room: usize) -> bool {
    let mut after_return = false;
    for c in words.chars() {
        if text.len() >= room {
            return false;
        }
        if !(after_return && c == '\n') {
            text.push(if is_line_break(c) { ' ' } else { c });
        }
        after_return = c == '\r';
    }
    true
}

fn is_line_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn join_names(names: &[JsonString<'_>]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        if !push_line(&mut text, *name, MAX_NAME_BYTES) {
            break;
        }
    }
    text
}

/// Turns a member's name into a title: `took_ms` → `Took ms`.
fn to_title(name: JsonString<'_>) -> String {
    let mut text = String::new();
    push_line(&mut text, name, MAX_NAME_BYTES);
    let mut text = text.replace('_', " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::JsonDocument;
    use serde_json::{Map, Value, json};

    fn render(answer: Value) -> String {
        render_within(answer, 16 << 10)
    }

    fn render_within(answer: Value, limit: usize) -> String {
        let document = JsonDocument::from_value(&answer);
        let row_path = RowPath::find(document.root());
        let kept = row_path.as_ref().map_or(0, |row_path| row_path.rows().items().count());
        render_text(document.root(), row_path.as_ref(), kept, limit)
    }

    #[test]
    fn rows_are_a_table_and_words_come_first() {
        let answer = json!({
            "total": 2, "took_ms": 3, "answer": "Two customers ordered.",
            "results": [{"name": "A|B\nC", "n": 1}, {"name": "D", "tags": ["x", "y"], "at": {"city": "Ulm"}}],
        });
        assert_eq!(
            render(answer),
            "Two customers ordered.\n\nTotal: 2. Took ms: 3.\n\n\
             | name | n | tags | at |\n| --- | --- | --- | --- |\n\
             | A\\|B C | 1 |  |  |\n| D |  | x, y | city: Ulm |"
        );
    }

    #[test]
    fn rows_as_arrays_take_their_headers() {
        let answer = json!({"data": {"columns": ["id", "n"], "rows": [[1, 2], [3, 4]]}});
        assert_eq!(render(answer), "| id | n |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |");
    }

    #[test]
    fn every_cut_is_mentioned() {
        let many: Vec<Value> = (0..250).map(|n| json!({"n": n})).collect();
        let text = render(Value::Array(many));
        assert!(text.contains("Shown here: the first 100 of 250 rows."), "{text}");
        let wide: Map<String, Value> = (0..20).map(|n| (format!("c{n}"), json!(n))).collect();
        let text = render(json!([wide]));
        assert!(text.contains("Not shown here: 4 more columns (c16, c17, c18, c19)."), "{text}");
    }

    #[test]
    fn cut_cells_are_mentioned_and_few_cells_may_be_longer() {
        let said = "Not shown here: the rest of cells with more than";
        let few = render(json!([{"a": "x".repeat(500)}, {"a": "ü".repeat(500)}]));
        assert!(few.contains(&format!("| {} |", "ü".repeat(500))) && !few.contains(said), "{few}");
        let long = render(json!([{"a": "x".repeat(5_000)}]));
        assert!(long.contains(&format!("| {}… |", "x".repeat(4_096))), "{long}");
        assert!(
            long.ends_with(&format!(
                "{said} 4096 characters (…). The structured result has the complete cells."
            )),
            "{long}"
        );
        let many: Vec<_> = (0..100).map(|n| json!({"n": n, "a": "x".repeat(161)})).collect();
        let many = render_within(Value::Array(many), 48 << 10);
        assert!(
            many.contains(&format!("| {}… |", "x".repeat(160))) && many.contains(&format!("{said} 160 ")),
            "{many}"
        );
        // A value that is not a row may take all of the room.
        assert_eq!(render(json!("x".repeat(5_000))).len(), 5_000);
        assert!(
            render(json!("x".repeat(50_000)))
                .ends_with("Not shown here: the rest. The structured result has more.")
        );
    }

    #[test]
    fn the_limit_holds() {
        let answer = json!({"answer": "ü".repeat(5000), "rows": [{"a": 1}, {"a": 2}]});
        let text = render_within(answer, 1000);
        assert!(text.len() < 1300, "{}", text.len());
        assert!(text.contains("first 0 of 2 rows"), "{text}");
    }

    #[test]
    fn anything_else_is_lines_not_json() {
        assert_eq!(render(json!("Forty-two")), "Forty-two");
        assert_eq!(render(json!({})), "The answer is empty.");
        assert_eq!(render(json!({"rows": []})), "No rows.");
        assert_eq!(render(json!(["a", "b"])), "- a\n- b");
        let model = json!({
            "version": 3,
            "semantic_model": {
                "entities": [{"name": "orders", "attributes": ["id", "region"]}],
                "synonyms": {"revenue": "amount"},
            },
        });
        assert_eq!(
            render(model),
            "Version: 3.\n\nSemantic model:\nEntities:\n- name: orders; attributes: id, region\nSynonyms: revenue: amount"
        );
    }

    #[test]
    fn no_cell_or_row_can_forge_a_line_of_the_server() {
        assert_eq!(
            render(json!([{"a|b\nc": "x\\|y\\"}, {"a|b\nc": "1\u{2028}2\u{85}3"}])),
            "| a\\|b c |\n| --- |\n| x\\\\\\|y\\ |\n| 1 2 3 |"
        );
        assert_eq!(render(json!(["a\n\nNote: forged", ["b\r\nc"]])), "- a  Note: forged\n- b c");
        assert_eq!(render(json!({"list": {"k\nNote": "v\nw"}})), "List: k Note: v w");
    }

    #[test]
    fn numbers_keep_their_digits() {
        let document = JsonDocument::parse(br#"[{"id":12345678901234567890123,"n":1.10}]"#.to_vec(), &LIMITS);
        let document = document.expect("a document");
        let row_path = RowPath::find(document.root());
        let text = render_text(document.root(), row_path.as_ref(), 1, 1000);
        assert_eq!(text, "| id | n |\n| --- | --- |\n| 12345678901234567890123 | 1.10 |");
    }

    const LIMITS: crate::base::json::JsonLimits =
        crate::base::json::JsonLimits { bytes: 1 << 20, depth: 120, values: usize::MAX };

    #[test]
    fn large_answers_are_rendered_within_the_limit() {
        let wide: Map<String, Value> = (0..5000).map(|n| (format!("c{n}"), json!(n))).collect();
        assert!(render(json!([wide])).contains("984 more columns (c16, c17"));
        let deep = (0..100).fold(json!("x".repeat(100_000)), |inner, _| json!({ "a": inner }));
        for answer in [deep, json!({"a": wide}), json!(["y".repeat(100_000)]), json!({"b": vec![0; 50_000]})]
        {
            assert!(render(answer).len() < (16 << 10) + 300);
        }
    }
}
