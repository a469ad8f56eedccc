//! Standard output and standard error. A closed pipe (`| head`) is not an error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use super::args::Format;
use super::render;
use crate::telemetry::printable::{printable, printable_lines};

/// Prints a text of several lines.
pub(super) fn print(text: &str) -> io::Result<()> {
    let text = printable_lines(text);
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a text of several lines into a file that people read.
pub(super) fn write_printable(file: &mut impl Write, text: &str) -> io::Result<()> {
    file.write_all(printable_lines(text).as_bytes())
}

/// Prints a one-line message to standard error.
pub(super) fn print_error(of: impl Display) {
    write_to_stderr(&format!("tenantd: {}\n", printable(&of.to_string())));
}

/// Prints a text of several lines to standard error.
pub(super) fn print_error_lines(text: &str) {
    write_to_stderr(&printable_lines(text));
}

/// Prints to standard error why a command could not run.
pub fn print_fatal(why: &str) {
    write_to_stderr(&format!("tenantd: {}\n", printable_lines(why)));
}

/// Writes to standard error without the panic of `eprintln!`. If that is closed or full, only the
/// exit code remains.
fn write_to_stderr(text: &str) {
    let _nobody_left = io::stderr().write_all(text.as_bytes());
}

/// Formats a value as text for people or as JSON.
pub(super) fn rendered<T: Serialize + ?Sized>(
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> String {
    match format {
        Format::Human => human(value),
        Format::Json => render::json(&value) + "\n",
    }
}

/// Formats rows as aligned columns, two spaces apart, without trailing spaces.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let shown = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let all = || std::iter::once(&heads).chain(&rows);
    let wide = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| wide(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&["NAME", "STATE"], &[row(["größer-als-name", "ok"]), row(["b", ""])]);
        assert_eq!(text, "NAME             STATE\ngrößer-als-name  ok\nb\n");
        assert_eq!(table(&["A", "B"], &[row(["x\ny  ok", "z"])]), "A        B\nx\u{fffd}y  ok  z\n");
    }
}
