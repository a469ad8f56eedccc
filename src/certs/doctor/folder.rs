//! Checks of the certs folder and its files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Check, Found};
use crate::certs::acme::check;
use crate::certs::manual::{self, gather};
use crate::certs::storage;
use crate::settings::{Settings, TlsMode};

/// Looks at the folder, at who can read what is in it, and at an operator's files.
pub(super) fn look(settings: &Settings, is_running: bool) -> Vec<Check> {
    let folder = &settings.certs;
    if is_running && !folder.exists() {
        // A gateway that runs has made its own.
        let found = Found::Unclear(format!(
            "{} is not there, so the gateway that runs has another; give `certs doctor` its flags or its --config",
            folder.display()
        ));
        return vec![Check { what: "certs folder".into(), found }];
    }
    let mut checks = vec![Check::new("certs folder", of_folder(folder, settings.tls))];
    checks.extend(exposed(folder, 2).into_iter().map(|key| {
        let what = key.display().to_string();
        let trouble = format!(
            "other users of this machine can read this key: `chmod 600 {what}`, and see who copied it"
        );
        Check::new(what, Err(trouble))
    }));
    if settings.tls == TlsMode::Manual {
        of_files(folder, &mut checks);
    }
    checks
}

fn of_folder(folder: &Path, mode: TlsMode) -> Result<String, String> {
    let shown = folder.display();
    if !folder.exists() {
        return match mode {
            TlsMode::Manual => {
                Err(format!("{shown} is not there; make it, and put certificates and keys into it"))
            }
            _ => Ok(format!("{shown} is not there yet; it is made at the first start")),
        };
    }
    if mode != TlsMode::Manual {
        // Check permissions first: `check::folder` opens the folder for writing, which closes it to
        // other users.
        if folder.is_dir() && storage::readable_by_others(folder) {
            return Err(format!("other users can look into {shown}: `chmod 700 {shown}`"));
        }
        check::folder(folder)?;
    }
    Ok(format!("{shown} is there, and can be used"))
}

/// Returns the keys below a folder that other users may read.
fn exposed(folder: &Path, levels: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| match path.is_dir() {
            true if levels > 0 => exposed(&path, levels - 1),
            true => Vec::new(),
            false => Vec::from_iter(is_exposed(&path).then_some(path)),
        })
        .collect();
    found.sort();
    found
}

fn is_exposed(path: &Path) -> bool {
    let can_hold =
        path.extension().is_some_and(|it| it.eq_ignore_ascii_case("pem") || it.eq_ignore_ascii_case("key"));
    can_hold && storage::readable_by_others(path) && gather::holds_key(path)
}

/// Checks the files that an operator put into the folder.
fn of_files(folder: &Path, checks: &mut Vec<Check>) {
    let found = manual::look(folder);
    if found.good.is_empty() {
        let trouble = "no certificate that can be served; put <name>.pem (key and chain), or <name>.crt and <name>.key, into \
                       it (`tenantd certs import` does)";
        checks.push(Check::new("certificates", Err(trouble.into())));
    }
    for (path, material) in &found.good {
        let trouble = material.trouble();
        checks.extend(
            trouble.map(|trouble| Check { what: path.display().to_string(), found: Found::Unclear(trouble) }),
        );
    }
    for (path, error) in &found.broken {
        checks.push(Check::new(path.display().to_string(), Err(format!("cannot be used: {error}"))));
    }
}
