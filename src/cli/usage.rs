//! `tenantd usage`: prints what was used, from the usage ledger of a running gateway.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::admin_request::{print_answer, send};
use super::args::{UsageArgs, UsageFormat};
use super::{Exit, output, render};

pub(super) fn run(args: &UsageArgs) -> anyhow::Result<Exit> {
    let report = send(&args.admin, Method::GET, &path(args), Bytes::new())?;
    if report.as_ref().is_ok_and(|report| report["complete"] == false) {
        output::print_error("the report has more rows than are shown; give a tenant or a shorter time");
    }
    print_answer(report, |report| match args.format {
        UsageFormat::Table => table(report),
        UsageFormat::Csv => csv(report),
        UsageFormat::Json => render::json(report) + "\n",
    })
}

fn path(args: &UsageArgs) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    let by = args.by.map(|by| by.as_str().to_owned());
    let per = args.per.map(|per| per.as_str().to_owned());
    let parameters =
        [("tenant", &args.tenant), ("from", &args.from), ("to", &args.to), ("by", &by), ("per", &per)];
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, given) in parameters.into_iter().filter(|(_, given)| given.is_some()) {
        query.append_pair(name, &value(given));
    }
    format!("/api/usage?{}", query.finish())
}

/// The columns that a report may have, in their order.
const COLUMNS: [&str; 9] =
    ["tenant", "starts", "person", "tool", "client", "calls", "errors", "seconds", "bytes"];

/// Returns the columns of a report, and its rows.
fn columns_and_rows(report: &Value) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let rows: Vec<&Value> = report["rows"].as_array().into_iter().flatten().collect();
    let has = |column: &&str| rows.first().is_some_and(|row| row.get(*column).is_some());
    let columns: Vec<_> = COLUMNS.into_iter().filter(has).collect();
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cells = |row: &&Value| columns.iter().map(|column| cell(&row[*column])).collect();
    let rows = rows.iter().map(cells).collect();
    (columns, rows)
}

fn table(report: &Value) -> String {
    let (columns, rows) = columns_and_rows(report);
    if rows.is_empty() {
        let time = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
        return format!("No calls from {} to {}.\n", time("from"), time("to"));
    }
    let heads: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    output::table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

/// Writes the rows as CSV (RFC 4180). Programs that calculate take a text for a formula if it
/// begins with certain characters, so such texts get an apostrophe in front.
fn csv(report: &Value) -> String {
    let (columns, rows) = columns_and_rows(report);
    let heads = columns.iter().map(|column| (*column).to_owned()).collect();
    std::iter::once(heads).chain(rows).map(|row: Vec<String>| csv_line(&row)).collect()
}

fn csv_line(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| csv_cell(cell)).collect();
    cells.join(",") + "\n"
}

fn csv_cell(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let cell = if is_formula { format!("'{cell}") } else { cell.to_owned() };
    match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        let row = |person: &str, calls: u64| {
            json!({
                "tenant": "acme", "person": person, "person_id": "user:x", "calls": calls, "errors": 0,
                "seconds": 1.25, "bytes": 300,
            })
        };
        json!({
            "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z", "complete": true,
            "rows": [row("ann@example.com", 12), row("=cmd(\"x\"), ben", 3)],
        })
    }

    #[test]
    fn a_report_is_a_table() {
        insta::assert_snapshot!(table(&report()), @r#"
        TENANT  PERSON           CALLS  ERRORS  SECONDS  BYTES
        acme    ann@example.com  12     0       1.25     300
        acme    =cmd("x"), ben   3      0       1.25     300
        "#);
        let empty = json!({ "from": "a", "to": "b", "rows": [] });
        assert_eq!(table(&empty), "No calls from a to b.\n");
    }

    #[test]
    fn a_name_is_no_formula_in_csv() {
        insta::assert_snapshot!(csv(&report()), @r#"
        tenant,person,calls,errors,seconds,bytes
        acme,ann@example.com,12,0,1.25,300
        acme,"'=cmd(""x""), ben",3,0,1.25,300
        "#);
    }
}
