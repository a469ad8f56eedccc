//! The texts that loading an entry read, so that it can be loaded again when its files are broken
//! or gone: the relevant texts (of an archive only the selected configuration), and the secrets
//! they refer to.
//!
//! A snapshot contains the documents, not the results: loading it again validates them by today's
//! rules and yields the same digests. It holds secrets in the clear; its owner must seal it before
//! storing it.

mod diff;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::EntryFiles;
use super::confinement::Confinement;
use crate::base::diagnostic::Report;
use crate::base::disk;

pub use diff::{DiffLine, DocumentDiff};

/// Everything that loading an entry read. Paths are relative to the tenants folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    stem: String,
    /// Whether the entry is a folder of its own.
    is_folder: bool,
    files: Vec<String>,
    pieces: Vec<SourceRecord>,
}

/// One text that was read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SourceRecord {
    Text { file: String, text: String },
    Config { file: String, dataset: String, entry: String, text: String },
    Secret { beside: String, path: String, text: String },
    Variable { name: String, value: String },
    Given(GivenRecord),
}

/// A value that a flag or variable gave, or the file that it named.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenRecord {
    pub(super) field: String,
    pub(super) place: String,
    pub(super) text: String,
}

/// A file that is not in the folder yet.
pub struct Draft {
    /// Where the file would be.
    pub path: PathBuf,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// The source that an entry is read from, and what was read so far.
pub(super) struct SourceReader<'a> {
    root: PathBuf,
    draft: Option<&'a Draft>,
    stored: Option<&'a Snapshot>,
    records: Vec<SourceRecord>,
}

impl Snapshot {
    /// Returns the stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("texts are plain data");
        // A pass may persist ten thousand of them.
        bytes.shrink_to_fit();
        bytes
    }

    /// Parses the stored form; `None` if this version does not know it.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Returns the paths of the entry's files, in this tenants folder.
    pub fn files(&self, root: &Path) -> Vec<PathBuf> {
        self.files.iter().map(|file| root.join(file)).collect()
    }

    /// Returns the entry as it was.
    pub(super) fn to_entry_files(&self, root: &Path) -> EntryFiles {
        EntryFiles {
            id: self.stem.clone(),
            folder: self.is_folder.then(|| root.join(&self.stem)),
            files: self.files(root),
            lookalikes: Vec::new(),
            report: Report::new(),
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<'a> SourceReader<'a> {
    /// Creates a source that reads the disk, or a snapshot instead.
    pub(super) fn new(entry: &EntryFiles, kept: Option<&'a Snapshot>) -> Self {
        let first = entry.folder.as_deref().or(entry.files.first().map(PathBuf::as_path));
        let root = first.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        Self { root, draft: None, stored: kept, records: Vec::new() }
    }

    /// Creates a source that reads the disk, and a file that is not on it yet.
    pub(super) fn with_draft(entry: &EntryFiles, draft: &'a Draft) -> Self {
        Self { draft: Some(draft), ..Self::new(entry, None) }
    }

    /// Reads a file from the disk, or the draft in its place.
    pub(super) fn read(&self, file: &Path, cap: u64, bounds: &Confinement) -> Result<Vec<u8>, disk::Error> {
        match self.draft.filter(|draft| draft.path == file) {
            Some(draft) if draft.bytes.len() as u64 > cap => Err(disk::Error::TooLarge(cap)),
            Some(draft) => Ok(draft.bytes.clone()),
            None => bounds.read(file, cap),
        }
    }

    /// Whether the source is a snapshot.
    pub(super) fn is_snapshot(&self) -> bool {
        self.stored.is_some()
    }

    /// Returns the bytes of a text file.
    pub(super) fn read_text_bytes(
        &self,
        file: &Path,
        cap: u64,
        bounds: &Confinement,
    ) -> Result<Vec<u8>, disk::Error> {
        if !self.is_snapshot() {
            return self.read(file, cap, bounds);
        }
        let name = self.relative_name(file);
        let found = self.find_record(|piece| match piece {
            SourceRecord::Text { file, text } if *file == name => Some(text.as_bytes().to_vec()),
            _ => None,
        });
        found.ok_or_else(|| disk::Error::Io(std::io::ErrorKind::NotFound.into()))
    }

    /// Returns the selected configuration of an archive (dataset, name in the archive, text), from
    /// a snapshot only.
    pub(super) fn stored_config(&self, archive: &Path) -> Option<(String, String, String)> {
        let name = self.relative_name(archive);
        self.find_record(|piece| match piece {
            SourceRecord::Config { file, dataset, entry, text } if *file == name => {
                Some((dataset.clone(), entry.clone(), text.clone()))
            }
            _ => None,
        })
    }

    /// Returns the secret in a file that a document names, from a snapshot only.
    pub(super) fn stored_secret(&self, named: &str, in_document: &Path) -> Option<String> {
        let name = self.relative_name(in_document);
        self.find_record(|piece| match piece {
            SourceRecord::Secret { beside, path, text } if *beside == name && path == named => {
                Some(text.clone())
            }
            _ => None,
        })
    }

    /// Returns the value of a variable, from a snapshot only.
    pub(super) fn stored_variable(&self, named: &str) -> Option<String> {
        self.find_record(|piece| match piece {
            SourceRecord::Variable { name, value } if name == named => Some(value.clone()),
            _ => None,
        })
    }

    /// Returns the values that flags and variables gave, from a snapshot only.
    pub(super) fn stored_given(&self) -> Vec<GivenRecord> {
        let given = |piece: &SourceRecord| match piece {
            SourceRecord::Given(record) => Some(record.clone()),
            _ => None,
        };
        self.stored.map(|kept| kept.pieces.iter().filter_map(given).collect()).unwrap_or_default()
    }

    pub(super) fn record_given(&mut self, record: &GivenRecord) {
        self.push_record(SourceRecord::Given(record.clone()));
    }

    pub(super) fn record_text(&mut self, file: &Path, text: &str) {
        let file = self.relative_name(file);
        self.push_record(SourceRecord::Text { file, text: text.to_owned() });
    }

    pub(super) fn record_config(&mut self, archive: &Path, dataset: &str, entry: &str, text: &str) {
        let file = self.relative_name(archive);
        let (dataset, entry, text) = (dataset.to_owned(), entry.to_owned(), text.to_owned());
        self.push_record(SourceRecord::Config { file, dataset, entry, text });
    }

    pub(super) fn record_secret(&mut self, path: &str, in_document: &Path, text: &str) {
        let beside = self.relative_name(in_document);
        self.push_record(SourceRecord::Secret { beside, path: path.to_owned(), text: text.to_owned() });
    }

    pub(super) fn record_variable(&mut self, name: &str, value: &str) {
        self.push_record(SourceRecord::Variable { name: name.to_owned(), value: value.to_owned() });
    }

    /// Returns everything that was read, as the snapshot of this entry.
    pub(super) fn take_snapshot(&mut self, entry: &EntryFiles) -> Snapshot {
        Snapshot {
            stem: entry.id.clone(),
            is_folder: entry.folder.is_some(),
            files: entry.files.iter().map(|file| self.relative_name(file)).collect(),
            pieces: std::mem::take(&mut self.records),
        }
    }

    fn push_record(&mut self, piece: SourceRecord) {
        if !self.records.contains(&piece) {
            self.records.push(piece);
        }
    }

    fn find_record<T>(&self, of: impl Fn(&SourceRecord) -> Option<T>) -> Option<T> {
        self.stored.and_then(|kept| kept.pieces.iter().find_map(of))
    }

    fn relative_name(&self, file: &Path) -> String {
        file.strip_prefix(&self.root).unwrap_or(file).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::super::{LoadContext, LoadOutcome, list_entries, load, load_snapshot, sample};
    use super::*;
    use crate::base::secret::Secret;

    const KEY: &str = "key-0123456789";

    fn context() -> LoadContext {
        let env = BTreeMap::from([("TENANT_ACME_KEY".into(), Secret::new(KEY))]);
        LoadContext { env, ..sample::sample_context() }
    }

    fn yaml(lines: &str) -> String {
        format!(
            "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\nconnection_id: c\n{lines}"
        )
    }

    fn loaded(folder: &Path) -> LoadOutcome {
        let entries = list_entries(folder, None).expect("listed");
        let loaded = load(&entries[0], &context());
        assert!(loaded.spec.is_some(), "{:?}", loaded.report);
        loaded
    }

    /// Loads an entry, removes its files, and loads the snapshot in another folder.
    fn assert_comes_back(folder: &tempfile::TempDir) {
        let before = loaded(folder.path());
        let stored = before.snapshot.as_ref().expect("a snapshot").encode();
        let snapshot = Snapshot::decode(&stored).expect("it reads back");
        let elsewhere = Path::new("/nowhere/tenants.d");
        let no_variables = LoadContext { env: BTreeMap::new(), ..context() };
        let after = load_snapshot(&snapshot, elsewhere, &no_variables);
        assert_eq!(after.digest, before.digest);
        assert_eq!(after.access_fingerprint, before.access_fingerprint);
        assert_eq!(after.spec, before.spec, "{:?}", after.report);
        assert_eq!(after.snapshot.map(|snapshot| snapshot.encode()), Some(stored));
    }

    #[test]
    fn an_export_with_overlays_comes_back_without_its_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        fs::write(file("acme.zip"), sample::build_export("sales", &yaml(&format!("api_key: {KEY}\n"))))
            .expect("written");
        fs::write(file("acme.yaml"), "description: Ours\napi_key: ${TENANT_ACME_KEY}\n").expect("written");
        fs::write(file("acme.env"), "PATH_PREFIX=/x\n").expect("written");
        assert_comes_back(&folder);
    }

    #[test]
    fn a_folder_with_a_secret_in_a_file_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let acme = folder.path().join("acme");
        fs::create_dir(&acme).expect("made");
        fs::write(acme.join("acme.yaml"), yaml("api_key_file: the.key\n")).expect("written");
        fs::write(acme.join("the.key"), KEY).expect("written");
        assert_comes_back(&folder);
    }

    #[test]
    fn a_snapshot_does_not_print_its_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("acme.yaml"), yaml(&format!("api_key: {KEY}\n"))).expect("written");
        let snapshot = loaded(folder.path()).snapshot.expect("a snapshot");
        assert!(!format!("{snapshot:?}").contains(KEY));
    }
}
