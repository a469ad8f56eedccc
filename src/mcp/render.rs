//! An answer as text that a person can read: what it says in words, its rows as a Markdown table, the rest as lines.
//! Many clients show a model the text only, so what is cut is always said.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::rows::Place;

const MAX_ROWS: usize = 100;
const MAX_COLUMNS: usize = 16;
const MAX_CELL_CHARS: usize = 160;
const MAX_DEPTH: usize = 6;

/// Members that say in words what an answer is; they come first, without their name.
const WORDS: [&str; 6] = ["answer", "summary", "text", "message", "explanation", "description"];

/// Renders an answer in at most about `limit` bytes.
pub(super) fn text(answer: &Value, place: Option<&Place>, limit: usize) -> String {
    let mut page = Page { text: String::new(), limit };
    if let Value::Object(members) = answer {
        page.words(members);
        page.scalars(members);
    }
    if let Some(place) = place {
        page.rows(place.rows(answer), &place.headers(answer));
    }
    match answer {
        Value::Object(members) => page.others(members, place.and_then(Place::first_name)),
        Value::Array(_) => {}
        scalar => {
            let mut line = String::new();
            push_cell(&mut line, scalar);
            page.line(&line);
        }
    }
    page.end()
}

struct Page {
    text: String,
    limit: usize,
}

impl Page {
    fn words(&mut self, members: &Map<String, Value>) {
        for text in WORDS.iter().filter_map(|name| members.get(*name)?.as_str()) {
            self.paragraph(text.trim());
        }
    }

    /// `Total: 12. Took ms: 3.`
    fn scalars(&mut self, members: &Map<String, Value>) {
        let mut sentences = String::new();
        for (name, value) in members.iter().filter(|(name, _)| !WORDS.contains(&name.as_str())) {
            match value {
                Value::String(text) if text.contains('\n') => {
                    self.paragraph(&format!("{}:\n{text}", title(name)))
                }
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    let _ = write!(sentences, "{}: {}. ", title(name), plain(value));
                }
                _ => {}
            }
        }
        self.paragraph(sentences.trim_end());
    }

    fn rows(&mut self, rows: &[Value], headers: &[&str]) {
        if rows.is_empty() {
            return self.paragraph("No rows.");
        }
        let columns = if headers.is_empty() { columns(rows) } else { headers.to_vec() };
        if columns.is_empty() { self.list(rows) } else { self.table(rows, &columns) }
    }

    fn list(&mut self, rows: &[Value]) {
        let shown = self.each(rows, |text, row| {
            text.push_str("- ");
            text.push_str(&outline(row, MAX_DEPTH));
        });
        self.say_cut(shown, rows.len());
    }

    fn table(&mut self, rows: &[Value], columns: &[&str]) {
        let shown_columns = &columns[..columns.len().min(MAX_COLUMNS)];
        self.line(&line_of(shown_columns, push_escaped));
        self.line(&line_of(shown_columns, |text, _| text.push_str("---")));
        let shown = self.each(rows, |text, row| push_row(text, row, shown_columns));
        self.say_cut(shown, rows.len());
        if columns.len() > MAX_COLUMNS {
            let left = columns[MAX_COLUMNS..].join(", ");
            self.paragraph(&format!(
                "Not shown here: {} more columns ({}).",
                columns.len() - MAX_COLUMNS,
                clipped(&left).map_or_else(|| left.clone(), |start| format!("{start}…"))
            ));
        }
    }

    /// Adds as many rows as there is room for, each written by `push`. Says how many.
    fn each(&mut self, rows: &[Value], push: impl Fn(&mut String, &Value)) -> usize {
        for (index, row) in rows.iter().take(MAX_ROWS).enumerate() {
            let before = self.text.len();
            push(&mut self.text, row);
            self.text.push('\n');
            if self.text.len() > self.limit {
                self.text.truncate(before);
                return index;
            }
        }
        rows.len().min(MAX_ROWS)
    }

    fn say_cut(&mut self, shown: usize, all: usize) {
        if shown < all {
            let notice = format!(
                "\nShown here: the first {shown} of {all} rows. The structured result has more; a narrower question or \
                 a lower limit gives a shorter answer.\n"
            );
            self.text.push_str(&notice);
        }
    }

    /// What is neither said in words nor a row.
    fn others(&mut self, members: &Map<String, Value>, rows: Option<&str>) {
        let nested = members.iter().filter(|(_, value)| value.is_object() || value.is_array());
        for (name, value) in nested.filter(|(name, _)| Some(name.as_str()) != rows) {
            match value {
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    self.line(&format!("{}:", title(name)));
                    self.list(items);
                }
                Value::Object(inner) if inner.values().any(|value| value.is_object() || value.is_array()) => {
                    self.line(&format!("{}:", title(name)));
                    self.scalars(inner);
                    self.others(inner, None);
                }
                _ => self.line(&format!("{}: {}", title(name), outline(value, MAX_DEPTH))),
            }
        }
    }

    fn paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            self.line(text);
            self.text.push('\n');
        }
    }

    fn line(&mut self, text: &str) {
        if self.has_room(text.len() + 1) {
            self.text.push_str(text);
        } else {
            let room = self.limit.saturating_sub(self.text.len());
            self.text.push_str(&text[..text.floor_char_boundary(room)]);
            self.text.push('…');
        }
        self.text.push('\n');
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.text.len() + bytes <= self.limit
    }

    fn end(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        if self.text.is_empty() {
            self.text.push_str("The answer is empty.");
        }
        self.text
    }
}

/// The columns of rows that are objects, in the order in which they appear.
fn columns(rows: &[Value]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for name in rows.iter().take(MAX_ROWS).filter_map(Value::as_object).flat_map(Map::keys) {
        if columns.len() < 1000 && !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    columns
}

/// A table's line with what `push` writes for each column.
fn line_of(columns: &[&str], push: impl Fn(&mut String, &str)) -> String {
    let mut line = "|".to_owned();
    for name in columns {
        line.push(' ');
        push(&mut line, name);
        line.push_str(" |");
    }
    line
}

/// A row's line, written straight into the text: half of what rendering an answer costs is here.
fn push_row(text: &mut String, row: &Value, columns: &[&str]) {
    // Rows mostly have their members in the order of the columns, so the next one is tried before it is looked up.
    let mut members = row.as_object().map(Map::iter).into_iter().flatten().peekable();
    text.push('|');
    for (index, name) in columns.iter().enumerate() {
        let next = members.next_if(|(member, _)| member == name).map(|(_, value)| value);
        text.push(' ');
        if let Some(value) = next.or_else(|| row.get(*name)).or_else(|| row.get(index)) {
            push_cell(text, value);
        }
        text.push_str(" |");
    }
}

/// A value in a table cell: one line, short, no bars.
fn push_cell(text: &mut String, value: &Value) {
    match value {
        Value::String(cell) => push_short(text, cell),
        Value::Number(number) => {
            let _ = write!(text, "{number}");
        }
        other => push_short(text, &outline(other, MAX_DEPTH)),
    }
}

fn push_short(text: &mut String, cell: &str) {
    match clipped(cell) {
        Some(start) => {
            push_escaped(text, start);
            text.push('…');
        }
        None => push_escaped(text, cell),
    }
}

fn push_escaped(text: &mut String, cell: &str) {
    if !cell.bytes().any(|byte| matches!(byte, b'|' | b'\n' | b'\r')) {
        return text.push_str(cell);
    }
    text.push_str(&cell.replace('|', "\\|").replace("\r\n", " ").replace(['\n', '\r'], " "));
}

/// The beginning of a text that is too long for a cell.
fn clipped(text: &str) -> Option<&str> {
    // No text has more characters than bytes.
    if text.len() <= MAX_CELL_CHARS {
        return None;
    }
    text.char_indices().nth(MAX_CELL_CHARS).map(|(end, _)| &text[..end])
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end_matches('.').to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Any value on one line: `name: orders; attributes: id, region`.
fn outline(value: &Value, depth: usize) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(_) | Value::Object(_) if depth == 0 => "…".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| nested(item, depth)).collect();
            items.join(", ")
        }
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}: {}", nested(value, depth))).collect();
            members.join("; ")
        }
        scalar => scalar.to_string(),
    }
}

fn nested(value: &Value, depth: usize) -> String {
    let text = outline(value, depth - 1);
    if value.is_object() { format!("({text})") } else { text }
}

/// `took_ms` → `Took ms`
fn title(name: &str) -> String {
    let mut text = name.replace('_', " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(answer: Value) -> String {
        text(&answer, Place::find(&answer).as_ref(), 16 << 10)
    }

    #[test]
    fn rows_are_a_table_and_words_come_first() {
        let answer = json!({
            "total": 2, "took_ms": 3, "answer": "Two customers ordered.",
            "results": [{"name": "A|B\nC", "n": 1}, {"name": "D", "tags": ["x", "y"], "at": {"city": "Ulm"}}],
        });
        assert_eq!(
            rendered(answer),
            "Two customers ordered.\n\nTotal: 2. Took ms: 3.\n\n\
             | name | n | tags | at |\n| --- | --- | --- | --- |\n\
             | A\\|B C | 1 |  |  |\n| D |  | x, y | city: Ulm |"
        );
    }

    #[test]
    fn rows_as_arrays_take_their_headers() {
        let answer = json!({"data": {"columns": ["id", "n"], "rows": [[1, 2], [3, 4]]}});
        assert_eq!(rendered(answer), "| id | n |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |");
    }

    #[test]
    fn whatever_is_cut_is_said() {
        let many: Vec<Value> = (0..250).map(|n| json!({"n": n})).collect();
        let text = rendered(Value::Array(many));
        assert!(text.contains("Shown here: the first 100 of 250 rows."), "{text}");
        let wide: Map<String, Value> = (0..20).map(|n| (format!("c{n}"), json!(n))).collect();
        let text = rendered(json!([wide]));
        assert!(text.contains("Not shown here: 4 more columns (c16, c17, c18, c19)."), "{text}");
        let long = rendered(json!([{"a": "x".repeat(500)}]));
        assert!(long.contains(&format!("| {}… |", "x".repeat(160))), "{long}");
    }

    #[test]
    fn the_limit_holds() {
        let answer = json!({"answer": "ü".repeat(5000), "rows": [{"a": 1}, {"a": 2}]});
        let text = text(&answer, Place::find(&answer).as_ref(), 1000);
        assert!(text.len() < 1300, "{}", text.len());
        assert!(text.contains("first 0 of 2 rows"), "{text}");
    }

    #[test]
    fn anything_else_is_lines_not_json() {
        assert_eq!(rendered(json!("Forty-two")), "Forty-two");
        assert_eq!(rendered(json!({})), "The answer is empty.");
        assert_eq!(rendered(json!({"rows": []})), "No rows.");
        assert_eq!(rendered(json!(["a", "b"])), "- a\n- b");
        let model = json!({
            "version": 3,
            "semantic_model": {
                "entities": [{"name": "orders", "attributes": ["id", "region"]}],
                "synonyms": {"revenue": "amount"},
            },
        });
        assert_eq!(
            rendered(model),
            "Version: 3.\n\nSemantic model:\nEntities:\n- name: orders; attributes: id, region\nSynonyms: revenue: amount"
        );
    }
}
