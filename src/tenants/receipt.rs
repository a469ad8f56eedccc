//! The receipt beside a dropped file: `acme.status.json`, so that whoever copied the file sees what became of it.
//!
//! Written only when its content changes, without fsync, under a name that rings no bell. On a read-only mount there
//! are none; the admin API says the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::status::TenantStatus;

/// A receipt to write, or (`None`) to take away.
pub(super) type Slip = (String, Option<TenantStatus>);

/// Writes and removes receipts. The first error is returned; the others are alike.
pub(super) fn write(folder: &Path, slips: &[Slip]) -> io::Result<()> {
    let outcomes = slips.iter().map(|(stem, status)| match status {
        Some(status) => write_one(folder, stem, status),
        None => remove(&path(folder, stem)),
    });
    outcomes.fold(Ok(()), io::Result::and)
}

fn write_one(folder: &Path, stem: &str, status: &TenantStatus) -> io::Result<()> {
    let file = path(folder, stem);
    let mut text = serde_json::to_string_pretty(status)?;
    text.push('\n');
    if fs::read_to_string(&file).is_ok_and(|written| written == text) {
        return Ok(());
    }
    let draft = folder.join(format!(".{stem}.status.json.tmp"));
    fs::write(&draft, text)?;
    fs::rename(draft, file)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}.status.json"))
}
