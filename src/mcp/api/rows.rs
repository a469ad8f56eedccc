//! Finds the rows of a backend's answer. Backends name and nest them differently; this covers the
//! usual ways.

use crate::base::json::{JsonKind, JsonNode, JsonString};

/// Members that hold rows, the most specific name first.
const ROW_MEMBERS: [&str; 6] = ["rows", "results", "records", "items", "hits", "data"];
/// Members that name the columns of rows that are arrays.
const COLUMN_MEMBERS: [&str; 3] = ["columns", "fields", "headers"];
/// How deep rows may be nested, as in `{"data": {"hits": {"hits": […]}}}`.
const MAX_LEVELS: usize = 3;
/// The maximum number of columns that are considered.
pub(super) const MAX_COLUMNS: usize = 1000;

/// The rows of an answer, and the path to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowPath<'a> {
    path: Vec<&'static str>,
    /// The object that has the rows as a member.
    parent: Option<JsonNode<'a>>,
    rows: JsonNode<'a>,
}

impl<'a> RowPath<'a> {
    /// Finds the rows of an answer: the answer itself, or a well-known member at most three levels
    /// down.
    pub(super) fn find(answer: JsonNode<'a>) -> Option<Self> {
        let mut path = Vec::new();
        let (parent, rows) = find_rows(None, answer, MAX_LEVELS, &mut path)?;
        Some(Self { path, parent, rows })
    }

    /// Returns the array of rows.
    pub(super) fn rows(&self) -> JsonNode<'a> {
        self.rows
    }

    /// Returns the column names that stand beside the rows, if any.
    pub(super) fn headers(&self) -> Vec<JsonString<'a>> {
        let listed = self.parent.and_then(|parent| {
            parent
                .get_many(&COLUMN_MEMBERS)
                .into_iter()
                .flatten()
                .find(|listed| listed.kind() == JsonKind::Array)
        });
        listed.into_iter().flat_map(JsonNode::items).filter_map(column_name).take(MAX_COLUMNS).collect()
    }

    /// Returns the member of the top-level object that holds the rows.
    pub(super) fn first_name(&self) -> Option<&'static str> {
        self.path.first().copied()
    }
}

fn column_name(column: JsonNode<'_>) -> Option<JsonString<'_>> {
    column.string().or_else(|| column.get("name")?.string())
}

fn find_rows<'a>(
    parent: Option<JsonNode<'a>>,
    value: JsonNode<'a>,
    levels: usize,
    path: &mut Vec<&'static str>,
) -> Option<(Option<JsonNode<'a>>, JsonNode<'a>)> {
    if value.kind() == JsonKind::Array {
        return Some((parent, value));
    }
    let levels = levels.checked_sub(1)?;
    let members = ROW_MEMBERS.into_iter().zip(value.get_many(&ROW_MEMBERS));
    members.filter_map(|(name, inner)| Some((name, inner?))).find_map(|(name, inner)| {
        path.push(name);
        let found = find_rows(Some(value), inner, levels, path);
        if found.is_none() {
            path.pop();
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::JsonDocument;
    use serde_json::json;

    #[test]
    fn rows_are_found_where_backends_put_them() {
        for (answer, path) in [
            (json!([{"a": 1}]), Some(vec![])),
            (json!({"total": 1, "results": [{"a": 1}]}), Some(vec!["results"])),
            (json!({"data": {"rows": [[1]], "columns": ["a"]}}), Some(vec!["data", "rows"])),
            (json!({"hits": {"total": 9, "hits": []}}), Some(vec!["hits", "hits"])),
            (json!({"results": {"note": "none"}, "data": [1]}), Some(vec!["data"])),
            (json!({"answer": "42"}), None),
            (json!("rows"), None),
            (json!({"data": {"data": {"data": {"data": []}}}}), None),
        ] {
            let document = JsonDocument::from_value(&answer);
            assert_eq!(RowPath::find(document.root()).map(|place| place.path), path, "{answer}");
        }
    }

    #[test]
    fn headers_stand_beside_the_rows() {
        let answer =
            JsonDocument::from_value(&json!({"data": {"columns": [{"name": "a"}, "b"], "rows": [[1, 2]]}}));
        let place = RowPath::find(answer.root()).expect("rows");
        assert_eq!(place.headers().into_iter().map(JsonString::raw).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(place.rows().raw(), "[[1,2]]");
    }
}
