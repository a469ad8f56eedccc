//! The inventory of everything found in an old installation: what it is, where, and what becomes of
//! it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where something was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    /// The line, counted from 1.
    pub(super) line: Option<usize>,
}

impl Place {
    pub(super) fn file(file: &Path) -> Self {
        Self { file: file.to_owned(), line: None }
    }

    pub(super) fn line(file: &Path, line: usize) -> Self {
        Self { file: file.to_owned(), line: Some(line) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Disposition {
    /// It is in the new tenant's files.
    Kept,
    /// The gateway does it.
    Replaced,
    /// It has no purpose any more.
    NotNeeded,
    /// It belongs to something else, and stays where it is.
    Left,
    /// A person must decide or do something.
    ByHand,
}

impl Disposition {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Replaced => "replaced",
            Self::NotNeeded => "not needed",
            Self::Left => "left alone",
            Self::ByHand => "BY HAND",
        }
    }
}

/// One line of the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InventoryRow {
    pub(super) place: Place,
    pub(super) what: String,
    pub(super) outcome: Disposition,
    pub(super) note: String,
}

impl InventoryRow {
    pub(super) fn new(
        place: Place,
        what: impl Into<String>,
        outcome: Disposition,
        note: impl Into<String>,
    ) -> Self {
        Self { place, what: what.into(), outcome, note: note.into() }
    }
}

/// The inventory of everything found. It never contains a secret: a row names a variable, not its
/// value.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    rows: Vec<InventoryRow>,
}

impl Inventory {
    pub(super) fn add(
        &mut self,
        place: Place,
        what: impl Into<String>,
        outcome: Disposition,
        note: impl Into<String>,
    ) {
        self.push(InventoryRow::new(place, what, outcome, note));
    }

    /// Adds a row, unless the same thing of the same file is in the inventory already.
    pub(super) fn push(&mut self, row: InventoryRow) {
        let is_same = |other: &InventoryRow| {
            other.place.file == row.place.file
                && other.what == row.what
                && other.outcome == row.outcome
                && (other.place.line == row.place.line || row.outcome == Disposition::NotNeeded)
        };
        if !self.rows.iter().any(is_same) {
            self.rows.push(row);
        }
    }

    pub(super) fn rows(&self) -> &[InventoryRow] {
        &self.rows
    }

    pub(super) fn needs_a_person(&self) -> bool {
        self.rows.iter().any(|row| row.outcome == Disposition::ByHand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_no_consequence_is_told_once_for_each_file() {
        let mut inventory = Inventory::default();
        for line in [1, 2] {
            let place = Place::line(Path::new("x"), line);
            inventory.add(place.clone(), "proxy_set_header", Disposition::NotNeeded, "");
            inventory.add(place, "allow", Disposition::ByHand, "");
        }
        assert_eq!(inventory.rows().len(), 3);
        assert!(inventory.needs_a_person());
    }
}
