//! Secrets that can be found again: each contains a mark that occurs nowhere else.

use std::fs;
use std::path::Path;

/// What every secret of these tests contains. `scripts/test.sh` searches the whole run's output for it, too.
const MARK: &str = "c4naryS3cret";

/// A secret for this purpose.
pub(crate) fn secret(purpose: &str) -> String {
    format!("{MARK}-{purpose}-0123456789abcdef")
}

/// Fails if a text has a secret in it. `place` says whose text it is.
pub(crate) fn assert_none(place: &str, text: &str) {
    if let Some(at) = text.find(MARK) {
        let around: String =
            text[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
        panic!("{place} has a secret in it, after: {around}");
    }
}

/// The same for all files below a folder, whatever they contain.
pub(crate) fn assert_none_below(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => assert_none_below(&path),
            false => {
                let bytes = fs::read(&path).expect("a readable file");
                assert_none(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
            }
        }
    }
}
