//! The receipt beside a dropped file: `acme.status.json`, so that whoever copied the file sees what became of it.
//!
//! Written only when its content changes, without fsync, under a name that rings no bell. On a read-only mount there
//! are none; the admin API says the same.

use std::fs;
use std::io::{self, Write};
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
    if fs::read(&file).is_ok_and(|written| says_the_same(&written, status)) {
        return Ok(());
    }
    let mut text = serde_json::to_string_pretty(status)?;
    text.push('\n');
    let draft = folder.join(format!(".{stem}.status.json.tmp"));
    // A new file always: whatever else has that name, a link to somewhere among it, is not written to.
    remove(&draft)?;
    fs::File::create_new(&draft)?.write_all(text.as_bytes())?;
    fs::rename(draft, file)
}

/// Since when a tenant is as it is begins anew with the process; that alone is no news.
fn says_the_same(written: &[u8], status: &TenantStatus) -> bool {
    let Ok(mut written) = serde_json::from_slice::<TenantStatus>(written) else { return false };
    written.since = status.since;
    serde_json::to_value(written).ok() == serde_json::to_value(status).ok()
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
