//! The layers of a tenant's documents, in which later ones win: key by key inside mappings, and a
//! blank value counts as unset.
//!
//! Reads the files of an entry into [`Layers`]: determines the role of each file and which
//! configuration of an export is meant, and reports everything that is wrong before any value is
//! validated.

mod choice;

use std::path::{Path, PathBuf};

use super::archive::{self, Archive};
use super::document::{ConfigDocument, FoundValue};
use super::load_state::LoadState;
use super::source_text::{DocumentOrigin, SourceText};
use super::tree::{ConfigNode, MAX_BYTES, SyntaxError};
use super::yaml;
use super::{BoxedDiagnostic, EntryFiles, dotenv, fields};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::{disk, permission};

const OUTSIDE_HELP: &str = "a link in a tenant's folder must not lead out of it, so that no tenant can use \
                            another's files; put the file itself there, or allow its folder in the settings \
                            (secret_root)";
/// The limit on reported names that are given twice.
const MAX_REPEATED: usize = 20;

/// All documents of a tenant, lowest precedence first.
pub(super) struct Layers(pub(super) Vec<ConfigDocument>);

impl Layers {
    /// Returns the highest value at a path that is not blank.
    pub(super) fn find(&self, path: &[&str]) -> Option<FoundValue<'_>> {
        self.0.iter().rev().find_map(|document| document.find(path))
    }

    /// Returns the highest value of a secret, given directly or as `x_file`.
    pub(super) fn find_secret(&self, name: &str) -> Option<FoundValue<'_>> {
        let file = format!("{name}_file");
        self.0.iter().rev().find_map(|document| document.find(&[name]).or_else(|| document.find(&[&file])))
    }

    pub(super) fn find_text(&self, path: &[&str]) -> Option<&str> {
        self.find(path).and_then(|found| found.text())
    }

    pub(super) fn find_bool(&self, path: &[&str]) -> Option<bool> {
        self.find_text(path).and_then(fields::parse_flag)
    }

    /// Returns the location for findings about something missing: the first document.
    pub(super) fn location(&self) -> Option<Location> {
        self.0.first().map(|document| document.source.location())
    }

    /// Returns the names in the mappings at a path, lowest first, each once, with its highest value
    /// that is not blank.
    pub(super) fn find_named<'a>(&'a self, path: &[&str]) -> Vec<(&'a str, FoundValue<'a>)> {
        let mut names: Vec<(&str, FoundValue<'_>)> = Vec::new();
        for document in &self.0 {
            let Some(map) = document.find(path) else { continue };
            for (key, node) in map.node.pairs().iter().filter(|(_, node)| !node.is_blank()) {
                let found = FoundValue { node, document };
                match names.iter_mut().find(|(name, _)| *name == &*key.text) {
                    Some(earlier) => earlier.1 = found,
                    None => names.push((&key.text, found)),
                }
            }
        }
        names
    }
}

/// The role of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileRole {
    Archive,
    /// A configuration of an unpacked export.
    Unpacked,
    Yaml,
    Env,
}

/// The result of reading all files.
pub(super) struct GatheredLayers {
    pub(super) layers: Layers,
    /// The dataset's name in the export.
    pub(super) dataset: Option<String>,
    /// Some file could not be read, so a value that is missing in the layers may be in it.
    pub(super) incomplete: bool,
}

/// The state while files are read.
pub(super) struct LayerReader<'a, 'b> {
    pub(super) state: &'a mut LoadState<'b>,
    pub(super) report: &'a mut Report,
    incomplete: bool,
}

/// Reads all files of an entry. Their contents go into the digest, their secrets into
/// the scrubber.
pub(super) fn read_layers(
    entry: &EntryFiles,
    state: &mut LoadState<'_>,
    report: &mut Report,
) -> GatheredLayers {
    let of = |role| entry.files.iter().filter(move |file| FileRole::classify(entry, file) == role);
    let archives: Vec<&PathBuf> = of(FileRole::Archive).collect();
    let unpacked: Vec<&PathBuf> = of(FileRole::Unpacked).collect();
    let has_export = !archives.is_empty() || !unpacked.is_empty();
    let mut gathering = LayerReader { state, report, incomplete: false };

    // The operator's files come first: their `config:` selects the export's configuration.
    let mut operators = Vec::new();
    let origin = if has_export { DocumentOrigin::Overlay } else { DocumentOrigin::Standalone };
    operators.extend(of(FileRole::Yaml).filter_map(|file| gathering.read_yaml(file, origin)));
    operators.extend(of(FileRole::Env).filter_map(|file| gathering.read_env(file)));
    operators.extend(gathering.read_given());
    let operators = Layers(operators);

    let wanted = operators.find_text(&["config"]);
    let export = match (archives.first(), unpacked.as_slice()) {
        (Some(archive), _) => gathering.read_archive(archive, wanted),
        (None, []) => None,
        (None, files) => gathering.read_unpacked(files, wanted),
    };
    let (dataset, export) = export.unzip();
    gathering.incomplete |= has_export && export.is_none();
    let incomplete = gathering.incomplete;
    let layers = Layers(export.into_iter().chain(operators.0).collect());
    GatheredLayers { layers, dataset, incomplete }
}

impl FileRole {
    fn classify(entry: &EntryFiles, file: &Path) -> Self {
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let inside = entry.folder.as_ref().and_then(|folder| file.strip_prefix(folder).ok());
        match extension.as_str() {
            "zip" => Self::Archive,
            "yaml" | "yml" if inside.is_some_and(|path| path.components().count() > 1) => Self::Unpacked,
            "yaml" | "yml" => Self::Yaml,
            _ => Self::Env,
        }
    }
}

impl LayerReader<'_, '_> {
    fn read_yaml(&mut self, file: &Path, origin: DocumentOrigin) -> Option<ConfigDocument> {
        let text = self.read_text(file)?;
        let hidden = yaml::find_hidden_line(&text);
        let source = SourceText { origin, file: file.to_owned(), entry: None, text };
        match hidden {
            Some(fault) => self.finish_document(source, Err(vec![fault])),
            None => self.parse_yaml(source),
        }
    }

    fn read_env(&mut self, file: &Path) -> Option<ConfigDocument> {
        let text = dotenv::with_line_feeds(&self.read_text(file)?).into_owned();
        let source = SourceText { origin: DocumentOrigin::Env, file: file.to_owned(), entry: None, text };
        let read = dotenv::parse(&source.text);
        for (name, at) in read.repeated.into_iter().take(MAX_REPEATED) {
            self.report.push(
                Diagnostic::warning("env-twice", format!("{name} is set twice; this value counts"))
                    .help("remove the wrong line")
                    .at(source.location_at(at)),
            );
        }
        self.finish_document(source, read.root)
    }

    /// Reads the selected configuration of an archive, with its dataset.
    fn read_archive(&mut self, file: &Path, wanted: Option<&str>) -> Option<(String, ConfigDocument)> {
        let (raw, chosen) = match self.state.source.is_snapshot() {
            true => (crate::base::digest::Digest::of(b""), self.stored_config(file)),
            false => match self.state.read(file, archive::MAX_ARCHIVE) {
                Ok(bytes) => {
                    (crate::base::digest::Digest::of(&bytes), self.open_archive(file, bytes, wanted))
                }
                Err(error) => return self.reject_file(file, &error),
            },
        };
        // A refused archive is identified by its bytes, a valid one by its configuration only.
        match &chosen {
            Ok((dataset, source)) => {
                self.update_digest(dataset);
                self.update_digest(&source.text);
                let entry = source.entry.as_deref().unwrap_or_default();
                self.state.source.record_config(file, dataset, entry, &source.text);
            }
            Err(_) => self.update_digest(&raw.to_string()),
        }
        match chosen {
            Ok((dataset, source)) => Some((dataset, self.parse_yaml(source)?)),
            Err(diagnostic) => {
                self.report.push(*diagnostic);
                None
            }
        }
    }

    /// Returns the configuration that the snapshot recorded for an archive.
    fn stored_config(&self, file: &Path) -> Result<(String, SourceText), BoxedDiagnostic> {
        let Some((dataset, entry, text)) = self.state.source.stored_config(file) else {
            let refusal =
                Diagnostic::error("zip-incomplete", "this archive is not stored with this revision");
            return Err(Box::new(refusal.at(Location::file(file))));
        };
        let source =
            SourceText { origin: DocumentOrigin::Export, file: file.to_owned(), entry: Some(entry), text };
        Ok((dataset, source))
    }

    fn open_archive(
        &mut self,
        file: &Path,
        bytes: Vec<u8>,
        wanted: Option<&str>,
    ) -> Result<(String, SourceText), BoxedDiagnostic> {
        let whole = Location::file(file);
        let refused = |fault: archive::ArchiveError, at| {
            Box::new(Diagnostic::error(fault.code(), fault.to_string()).help(fault.help()).at(at))
        };
        let mut archive = Archive::open(bytes).map_err(|fault| refused(fault, whole.clone()))?;
        if archive.entries_outside > 0 {
            self.report.push(
                Diagnostic::warning(
                    "zip-outside",
                    format!(
                        "the archive has entries that point outside of it ({}); they are ignored",
                        archive.entries_outside
                    ),
                )
                .help("find out who made this zip: the vendor's zips have no such entries")
                .at(whole.clone()),
            );
        }
        let datasets: Vec<&str> = archive.configs.iter().map(|config| config.dataset.as_str()).collect();
        let chosen = choice::choose(&datasets, wanted, archive.nested.is_some())
            .map_err(|refusal| Box::new(refusal.at(whole.clone())))?;
        let (dataset, entry) =
            (archive.configs[chosen].dataset.clone(), archive.configs[chosen].entry.clone());
        let at = Location { entry: Some(entry.clone()), ..whole };
        if archive.configs[chosen].is_name_guessed {
            self.report.push(name_guessed_warning(&dataset).at(at.clone()));
        }
        let text = archive.text(chosen).map_err(|fault| refused(fault, at))?;
        let source =
            SourceText { origin: DocumentOrigin::Export, file: file.to_owned(), entry: Some(entry), text };
        Ok((dataset, source))
    }

    /// Reads the selected configuration of an unpacked export, with its dataset.
    fn read_unpacked(
        &mut self,
        files: &[&PathBuf],
        wanted: Option<&str>,
    ) -> Option<(String, ConfigDocument)> {
        let stems: Vec<_> =
            files.iter().map(|file| file.file_stem().unwrap_or_default().to_string_lossy()).collect();
        let datasets: Vec<&str> = stems.iter().map(AsRef::as_ref).collect();
        let chosen = match choice::choose(&datasets, wanted, false) {
            Ok(chosen) => chosen,
            Err(refusal) => {
                self.report.push(refusal.at(Location::file(files[0])));
                return None;
            }
        };
        let text = self.read_text(files[chosen])?;
        let source =
            SourceText { origin: DocumentOrigin::Export, file: files[chosen].clone(), entry: None, text };
        Some((datasets[chosen].to_owned(), self.parse_yaml(source)?))
    }

    fn read_text(&mut self, file: &Path) -> Option<String> {
        let bytes = match self.state.read_text_bytes(file, MAX_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) => return self.reject_file(file, &error),
        };
        self.update_digest(&file.file_name().unwrap_or_default().to_string_lossy());
        self.state.hasher.update_field(&bytes);
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => {
                self.state.source.record_text(file, &text);
                Some(text)
            }
            _ => {
                self.incomplete = true;
                self.report.push(
                    Diagnostic::error("not-text", "this file is not UTF-8 text")
                        .help("save it as UTF-8")
                        .at(Location::file(file)),
                );
                None
            }
        }
    }

    fn reject_file<T>(&mut self, file: &Path, error: &disk::Error) -> Option<T> {
        self.incomplete = true;
        self.update_digest(&error.to_string());
        let code = match error {
            disk::Error::NotRegular => "not-a-file",
            disk::Error::TooLarge(_) => "file-too-large",
            disk::Error::NotUtf8 => "not-text",
            disk::Error::OutsideRoots => "file-outside",
            disk::Error::Io(_) if error.is_transient() => super::OUT_OF_RESOURCES,
            disk::Error::Io(_) => "unreadable",
        };
        let help = match error {
            disk::Error::NotRegular => {
                "tenantd does not read folders, pipes and devices here; use a regular \
                                        file"
            }
            disk::Error::TooLarge(_) => "a vendor export is much smaller; use it as the portal exported it",
            disk::Error::NotUtf8 => "save it as UTF-8",
            disk::Error::OutsideRoots => OUTSIDE_HELP,
            disk::Error::Io(_) if error.is_transient() => super::OUT_OF_RESOURCES_HELP,
            disk::Error::Io(error) => &permission::read_help(file, error),
        };
        self.report.push(
            Diagnostic::error(code, format!("this file cannot be used: {error}"))
                .help(help)
                .at(Location::file(file)),
        );
        None
    }

    fn parse_yaml(&mut self, source: SourceText) -> Option<ConfigDocument> {
        let root = yaml::parse(&source.text);
        self.finish_document(source, root)
    }

    pub(super) fn finish_document(
        &mut self,
        source: SourceText,
        root: Result<ConfigNode, Vec<SyntaxError>>,
    ) -> Option<ConfigDocument> {
        self.state.scrubber.learn_text(&source.text);
        match root {
            Ok(root) => {
                self.state.scrubber.learn_tree(&root);
                Some(ConfigDocument::new(source, root, self.report))
            }
            Err(faults) => {
                self.incomplete = true;
                faults.into_iter().for_each(|fault| self.report.push(source.to_diagnostic(fault)));
                None
            }
        }
    }

    /// Records that a document is not complete, and why.
    pub(super) fn mark_incomplete(&mut self, why: &str) {
        self.incomplete = true;
        self.update_digest(why);
    }

    pub(super) fn update_digest(&mut self, text: &str) {
        self.state.hasher.update_field(text.as_bytes());
    }
}

fn name_guessed_warning(dataset: &str) -> Diagnostic {
    let shown: String = dataset.chars().filter(|c| !c.is_control()).take(60).collect();
    let message =
        format!("the names in this zip are not UTF-8; the configuration's name is read as \"{shown}\"");
    Diagnostic::warning("zip-names", message).help(
        "if that is wrong, write dataset: into the .yaml beside the zip, or use the zip as the portal \
               exported it",
    )
}
