//! Checks of the certs folder and its files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CheckResult, DoctorCheck};
use crate::certs::acme::preflight;
use crate::certs::key_files;
use crate::certs::manual::{self, key_pairing};
use crate::settings::{Settings, TlsMode};

/// Checks the folder, its permissions, and an operator's files.
pub(super) fn check_folder_and_files(settings: &Settings, is_running: bool) -> Vec<DoctorCheck> {
    let folder = &settings.certs;
    if is_running && !folder.exists() {
        // A gateway that runs has made its own.
        let found = CheckResult::Unclear(format!(
            "{} does not exist, so the running gateway uses another folder; give `certs doctor` its flags or \
             its --config",
            folder.display()
        ));
        return vec![DoctorCheck { subject: "certs folder".into(), result: found }];
    }
    let mut checks = vec![DoctorCheck::new("certs folder", check_folder(folder, settings.tls))];
    checks.extend(find_exposed_keys(folder, 2).into_iter().map(|key| {
        let what = key.display().to_string();
        let trouble = format!(
            "other users of this machine can read this key: run `chmod 600 {what}`, and find out whether \
             somebody copied it"
        );
        DoctorCheck::new(what, Err(trouble))
    }));
    if settings.tls == TlsMode::Manual {
        check_manual_files(folder, &mut checks);
    }
    checks
}

fn check_folder(folder: &Path, mode: TlsMode) -> Result<String, String> {
    let shown = folder.display();
    if !folder.exists() {
        return match mode {
            TlsMode::Manual => {
                Err(format!("{shown} does not exist; create it, and put certificates and keys into it"))
            }
            _ => Ok(format!("{shown} does not exist yet; the gateway creates it at its first start")),
        };
    }
    if mode != TlsMode::Manual {
        // Check permissions first: `preflight::check_folder` opens the folder for writing, which
        // closes it to other users.
        if folder.is_dir() && key_files::is_readable_by_others(folder) {
            return Err(format!("other users can list {shown}: run `chmod 700 {shown}`"));
        }
        preflight::check_folder(folder)?;
    }
    Ok(format!("{shown} exists and can be used"))
}

/// Returns the keys below a folder that other users may read.
fn find_exposed_keys(folder: &Path, levels: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| match path.is_dir() {
            true if levels > 0 => find_exposed_keys(&path, levels - 1),
            true => Vec::new(),
            false => Vec::from_iter(is_exposed_key(&path).then_some(path)),
        })
        .collect();
    found.sort();
    found
}

fn is_exposed_key(path: &Path) -> bool {
    let can_hold =
        path.extension().is_some_and(|it| it.eq_ignore_ascii_case("pem") || it.eq_ignore_ascii_case("key"));
    can_hold && key_files::is_readable_by_others(path) && key_pairing::holds_key(path)
}

/// Checks the files that an operator put into the folder.
fn check_manual_files(folder: &Path, checks: &mut Vec<DoctorCheck>) {
    let found = manual::inspect_folder(folder);
    if found.good.is_empty() {
        let trouble = "no certificate that can be served; put <name>.pem (key and chain), or <name>.crt and \
                       <name>.key, into it (`tenantd certs import` does this)";
        checks.push(DoctorCheck::new("certificates", Err(trouble.into())));
    }
    for (path, certificate) in &found.good {
        let trouble = certificate.chain_problem();
        checks.extend(trouble.map(|trouble| DoctorCheck {
            subject: path.display().to_string(),
            result: CheckResult::Unclear(trouble),
        }));
    }
    for (path, error) in &found.broken {
        checks.push(DoctorCheck::new(path.display().to_string(), Err(format!("cannot be used: {error}"))));
    }
}
