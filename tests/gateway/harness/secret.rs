//! Secrets that can be found in any output: each contains a mark that occurs nowhere else.

use std::fs;
use std::path::Path;

/// The mark of every secret in these tests. `scripts/test.sh` searches the output of the whole run
/// for it, too.
const MARK: &str = "c4naryS3cret";

/// Returns a secret for this purpose.
pub(crate) fn secret(purpose: &str) -> String {
    format!("{MARK}-{purpose}-0123456789abcdef")
}

/// Panics if `text` contains a secret. `place` names the source of the text.
pub(crate) fn assert_none(place: &str, text: &str) {
    if let Some(at) = text.find(MARK) {
        let around: String =
            text[..at].chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect();
        panic!("{place} has a secret in it, after: {around}");
    }
}

/// The same for all files below a folder.
pub(crate) fn assert_none_below(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            assert_none_below(&path);
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("a readable file");
            assert_none(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
        }
    }
}
