//! From a parsed question to rows, and a sentence that describes them.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, json};

use super::dataset::{ColumnKind, DataRow, Dataset};
use super::question::{Aggregate, Filter, GroupBy, ParsedQuestion, QuestionKind, Top};

/// The number of rows if neither question nor caller says one.
const DEFAULT_ROWS: usize = 20;

/// Answers a question about a dataset.
pub(super) fn answer(text: &str, limit: Option<usize>, dataset: &Dataset) -> Value {
    let Some(question) = ParsedQuestion::read(text, dataset) else { return not_understood(dataset) };
    let mut rows = dataset.rows();
    rows.retain(|row| question.filters.iter().all(|filter| keeps(filter, row)));
    let matched = rows.len();
    let mut found = match question.kind {
        QuestionKind::Rows { by } => plain(rows, by, question.top, dataset),
        QuestionKind::Figure { figure, group: None } => vec![one_figure(&rows, figure, dataset)],
        QuestionKind::Figure { figure, group: Some(group) } => {
            grouped(&rows, figure, group, question.top, dataset)
        }
    };
    let all = found.len();
    found.truncate(limit.unwrap_or(DEFAULT_ROWS));
    json!({
        "answer": sentence(&question, &found, matched, dataset),
        "rows": found,
        "row_count": found.len(),
        "total_rows": all,
    })
}

fn not_understood(dataset: &Dataset) -> Value {
    let samples = dataset.samples.join("; ");
    json!({
        "answer": format!("This sample API did not understand the question. It can answer, for example: {samples}."),
        "rows": [],
        "row_count": 0,
        "total_rows": 0,
    })
}

fn keeps(filter: &Filter, row: &DataRow) -> bool {
    match filter {
        Filter::OneOf(at, texts) => texts.contains(&row[*at]),
        Filter::Months(at, months) => months.iter().any(|month| row[*at].starts_with(month.as_str())),
        Filter::AtLeast(at, bound) => figure_of(row, *at) >= *bound,
        Filter::AtMost(at, bound) => figure_of(row, *at) <= *bound,
    }
}

fn plain(mut rows: Vec<DataRow>, by: usize, top: Option<Top>, dataset: &Dataset) -> Vec<Value> {
    if let Some(top) = top {
        rows.sort_by(|a, b| ordered(figure_of(a, by), figure_of(b, by), top));
        rows.truncate(top.count);
    }
    rows.iter().map(|row| object(row, dataset)).collect()
}

fn one_figure(rows: &[DataRow], figure: Aggregate, dataset: &Dataset) -> Value {
    let rows: Vec<&DataRow> = rows.iter().collect();
    Value::Object(Map::from_iter([(label(figure, dataset), number(compute(&rows, figure)))]))
}

fn grouped(
    rows: &[DataRow],
    figure: Aggregate,
    group: GroupBy,
    top: Option<Top>,
    dataset: &Dataset,
) -> Vec<Value> {
    let mut groups: BTreeMap<&str, Vec<&DataRow>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(group, row)).or_default().push(row);
    }
    let mut figures: Vec<(&str, f64)> =
        groups.iter().map(|(name, rows)| (*name, compute(rows, figure))).collect();
    let order = top.unwrap_or(Top { count: usize::MAX, largest: true });
    // Months stay in calendar order, everything else is ordered by its figure.
    if top.is_some() || matches!(group, GroupBy::Column(_)) {
        figures.sort_by(|a, b| ordered(a.1, b.1, order));
    }
    figures.truncate(order.count);
    let entry = |(name, value): (&str, f64)| {
        let name = (group_name(group, dataset), Value::from(name));
        Value::Object(Map::from_iter([name, (label(figure, dataset), number(value))]))
    };
    figures.into_iter().map(entry).collect()
}

fn compute(rows: &[&DataRow], figure: Aggregate) -> f64 {
    let sum = |at: usize| rows.iter().map(|row| figure_of(row, at)).sum::<f64>();
    match figure {
        Aggregate::Count => rows.len() as f64,
        Aggregate::Sum(at) => sum(at),
        Aggregate::Average(_) if rows.is_empty() => 0.0,
        Aggregate::Average(at) => sum(at) / rows.len() as f64,
    }
}

fn ordered(a: f64, b: f64, top: Top) -> std::cmp::Ordering {
    if top.largest { b.total_cmp(&a) } else { a.total_cmp(&b) }
}

fn figure_of(row: &DataRow, at: usize) -> f64 {
    row[at].parse().unwrap_or(0.0)
}

fn key(group: GroupBy, row: &DataRow) -> &'static str {
    match group {
        GroupBy::Column(at) => row[at],
        GroupBy::Month(at) => &row[at][..7],
    }
}

fn group_name(group: GroupBy, dataset: &Dataset) -> String {
    match group {
        GroupBy::Column(at) => dataset.columns[at].name.to_owned(),
        GroupBy::Month(_) => "month".to_owned(),
    }
}

/// Returns the column name of a figure: `orders`, `total_amount`, `average_hours`.
fn label(figure: Aggregate, dataset: &Dataset) -> String {
    match figure {
        Aggregate::Count => dataset.noun[1].to_owned(),
        Aggregate::Sum(at) => format!("total_{}", dataset.columns[at].name),
        Aggregate::Average(at) => format!("average_{}", dataset.columns[at].name),
    }
}

fn object(row: &DataRow, dataset: &Dataset) -> Value {
    let cell = |kind, text: &str| match kind {
        ColumnKind::Number => number(text.parse().unwrap_or(0.0)),
        ColumnKind::Id | ColumnKind::Text | ColumnKind::Date => text.into(),
    };
    let cells = dataset.columns.iter().zip(row);
    Value::Object(cells.map(|(column, text)| (column.name.to_owned(), cell(column.kind, text))).collect())
}

/// Returns a number, rounded to two decimals; whole numbers have none.
fn number(value: f64) -> Value {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded.fract() == 0.0 { Value::from(rounded as i64) } else { Number::from_f64(rounded).into() }
}

fn sentence(question: &ParsedQuestion, found: &[Value], matched: usize, dataset: &Dataset) -> String {
    let filters: Vec<String> = question.filters.iter().map(|filter| in_words(filter, dataset)).collect();
    let among = if filters.is_empty() { String::new() } else { format!(" with {}", filters.join(" and ")) };
    let noun = dataset.noun[usize::from(matched != 1)];
    match &question.kind {
        QuestionKind::Figure { figure, group: None } => {
            let label = label(*figure, dataset);
            let value = found.first().map(|row| row[&label].to_string()).unwrap_or_default();
            match figure {
                Aggregate::Count => format!("{value} {noun}{among}."),
                _ => format!("{} is {value}, over {matched} {noun}{among}.", readable(&label)),
            }
        }
        QuestionKind::Figure { figure, group: Some(group) } => {
            let (label, group) = (readable(&label(*figure, dataset)), group_name(*group, dataset));
            format!("{label} by {group}, over {matched} {noun}{among}.")
        }
        QuestionKind::Rows { .. } => format!("{matched} {noun}{among}."),
    }
}

fn in_words(filter: &Filter, dataset: &Dataset) -> String {
    let name = |at: &usize| dataset.columns[*at].name.replace('_', " ");
    match filter {
        Filter::OneOf(at, texts) => format!("{} {}", name(at), texts.join(" or ")),
        Filter::Months(at, months) => format!("{} in {}", name(at), months.join(" or ")),
        Filter::AtLeast(at, bound) => format!("{} of at least {bound}", name(at)),
        Filter::AtMost(at, bound) => format!("{} of at most {bound}", name(at)),
    }
}

/// `total_amount` → `Total amount`.
fn readable(label: &str) -> String {
    let text = label.replace('_', " ");
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
