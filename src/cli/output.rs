//! Standard output. A reader that has seen enough (`| head`) is no error.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use super::args::Format;
use super::render;

/// Prints a text.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A value for people, or as a document for programs.
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

/// Rows of text in aligned columns, two spaces apart, nothing after the last.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let all = || std::iter::once(&heads).chain(rows);
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
    }
}
