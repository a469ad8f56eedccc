//! Where the rows of an answer are. Backends name and nest them differently; these are the usual ways.

use serde_json::Value;

/// Members that hold rows, most telling first.
const NAMES: [&str; 6] = ["rows", "results", "records", "items", "hits", "data"];
/// Members that name the columns of rows that are arrays.
const HEADERS: [&str; 3] = ["columns", "fields", "headers"];
/// `{"data": {"hits": {"hits": […]}}}`
const LEVELS: usize = 3;

/// The way from the top of an answer to its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Vec<&'static str>);

impl Place {
    /// Finds the rows of an answer: itself, or a well-known member at most three levels down.
    pub(super) fn find(answer: &Value) -> Option<Self> {
        let mut path = Vec::new();
        descend(answer, LEVELS, &mut path).then_some(Self(path))
    }

    pub(super) fn rows<'a>(&self, answer: &'a Value) -> &'a [Value] {
        let rows = self.0.iter().try_fold(answer, |value, name| value.get(name));
        rows.and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub(super) fn rows_mut<'a>(&self, answer: &'a mut Value) -> Option<&'a mut Vec<Value>> {
        self.0.iter().try_fold(answer, |value, name| value.get_mut(name))?.as_array_mut()
    }

    /// The names of columns beside the rows, if there are any.
    pub(super) fn headers<'a>(&self, answer: &'a Value) -> Vec<&'a str> {
        let Some((_, parents)) = self.0.split_last() else { return Vec::new() };
        let parent = parents.iter().try_fold(answer, |value, name| value.get(name));
        let listed = parent.and_then(|parent| HEADERS.iter().find_map(|name| parent.get(name)?.as_array()));
        listed.into_iter().flatten().filter_map(header).collect()
    }

    /// The member of the top object that holds the rows.
    pub(super) fn first_name(&self) -> Option<&'static str> {
        self.0.first().copied()
    }
}

fn header(column: &Value) -> Option<&str> {
    column.as_str().or_else(|| column.get("name")?.as_str())
}

fn descend(value: &Value, levels: usize, path: &mut Vec<&'static str>) -> bool {
    if value.is_array() {
        return true;
    }
    if levels == 0 || !value.is_object() {
        return false;
    }
    NAMES.into_iter().any(|name| {
        let Some(inner) = value.get(name) else { return false };
        path.push(name);
        let found = descend(inner, levels - 1, path);
        if !found {
            path.pop();
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
            assert_eq!(Place::find(&answer).map(|place| place.0), path, "{answer}");
        }
    }

    #[test]
    fn headers_stand_beside_the_rows() {
        let answer = json!({"data": {"columns": [{"name": "a"}, "b"], "rows": [[1, 2]]}});
        let place = Place::find(&answer).expect("rows");
        assert_eq!(place.headers(&answer), ["a", "b"]);
        assert_eq!(place.rows(&answer), [json!([1, 2])]);
    }
}
