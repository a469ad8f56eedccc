use std::path::Path;

use super::*;

fn folder_with(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    files.iter().for_each(|file| fs_write(folder.path(), file, "x"));
    folder
}

fn fs_write(folder: &Path, file: &str, text: &str) {
    std::fs::write(folder.join(file), text).expect("written");
}

fn scan(folder: &Path, only: Option<&[&str]>, named: &[(&str, PathBuf)]) -> Vec<ScannedEntry> {
    let only = only.map(|ids| ids.iter().map(|id| id.to_string()).collect());
    let named = named.iter().map(|(id, path)| (Arc::from(*id), [path.clone()].into())).collect();
    let source = TenantsSource::Folder(folder.to_owned());
    scan_folder(&source, only.as_ref(), &named).expect("listed").entries
}

fn stamps(folder: &Path, id: &str, named: &[(&str, PathBuf)]) -> FileStamps {
    let scanned = scan(folder, None, named).into_iter().find(|scanned| scanned.files.id == id);
    scanned.expect("scanned").stamps
}

#[test]
fn a_scan_of_some_entries_sees_no_others() {
    let folder = folder_with(&["a.yaml", "b.yaml", "c.zip"]);
    let ids = |only| scan(folder.path(), only, &[]).into_iter().map(|it| it.files.id).collect::<Vec<_>>();
    assert_eq!(ids(None), ["a", "b", "c"]);
    assert_eq!(ids(Some(&["a", "x"])), ["a"]);
}

#[test]
fn the_stamps_change_with_every_file_of_the_entry_and_with_nothing_else() {
    let folder = folder_with(&["a.yaml", "b.yaml"]);
    let before = stamps(folder.path(), "a", &[]);
    fs_write(folder.path(), "b.yaml", "longer");
    assert_eq!(stamps(folder.path(), "a", &[]), before);
    fs_write(folder.path(), "a.env", "X=y");
    let with_env = stamps(folder.path(), "a", &[]);
    assert_ne!(with_env, before);
    assert!(before.differs_beyond_its_files(&with_env), "a file went away");
    assert!(!with_env.differs_beyond_its_files(&before), "a file came");
    fs_write(folder.path(), "a.yaml", "longer");
    assert_ne!(stamps(folder.path(), "a", &[]), with_env);
}

#[test]
fn a_lookalike_is_part_of_the_stamps() {
    let folder = folder_with(&["acme.zip"]);
    let before = stamps(folder.path(), "acme", &[]);
    fs_write(folder.path(), "Acme.yaml", "x");
    assert_ne!(stamps(folder.path(), "acme", &[]), before);
}

#[test]
fn the_secret_files_that_an_entry_names_are_part_of_its_stamps() {
    let folder = folder_with(&["a.yaml"]);
    let secret = folder.path().join("key");
    let named = [("a", secret.clone())];
    let gone = stamps(folder.path(), "a", &named);
    assert!(gone.misses_any_of(std::slice::from_ref(&secret)));
    assert!(!gone.misses_any_of(&[folder.path().join("other")]), "only those that are asked about");
    fs_write(folder.path(), "key", "x");
    let there = stamps(folder.path(), "a", &named);
    assert!(there.differs_beyond_its_files(&gone) && !there.misses_any_of(&[secret]));
    assert_eq!(there.secret_files().len(), 1);
    assert_ne!(stamps(folder.path(), "a", &[]), there);
}

#[test]
fn after_reading_the_stamps_have_the_secret_files_that_are_named_now() {
    let folder = folder_with(&["a.yaml", "key"]);
    let path = folder.path().join("key");
    let before = stamps(folder.path(), "a", &[]);
    assert_eq!(before.clone().with_secret_files(&[]), before);
    let named = [SecretFile { path: path.clone(), presence: Presence::read(&path) }];
    let after = before.with_secret_files(&named);
    assert_eq!(after, stamps(folder.path(), "a", &[("a", path)]));
    assert!(after.with_secret_files(&[]).secret_files().is_empty());
}
