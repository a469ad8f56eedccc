//! Reads the files of an entry into [`Layers`]: determines the role of each file and which
//! configuration of an export is meant, and reports everything that is wrong before any value is
//! validated.

mod choice;

use std::path::{Path, PathBuf};

use super::archive::{self, Archive};
use super::document::{Document, Layers, Origin, Source};
use super::reference::Resolver;
use super::yaml::{self, Fault};
use super::{Entry, Refusal, dotenv};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::file as disk;

const OUTSIDE_HELP: &str = "a link in a tenant's folder must stay in it, so that nobody takes another's files; put the file itself there, or allow its folder in the settings (secret_root)";
/// The limit on reported names that are given twice.
const MAX_REPEATED: usize = 20;

/// The role of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Archive,
    /// A configuration of an unpacked export.
    Unpacked,
    Yaml,
    Env,
}

/// The result of reading all files.
pub(super) struct Gathered {
    pub(super) layers: Layers,
    /// The dataset's name in the export.
    pub(super) dataset: Option<String>,
    /// Some file could not be read, so a value that is missing in the layers may be in it.
    pub(super) incomplete: bool,
}

/// The state while files are read.
struct Gathering<'a, 'b> {
    resolver: &'a mut Resolver<'b>,
    report: &'a mut Report,
    incomplete: bool,
}

/// Reads all files of an entry. Their contents go into the resolver's digest, their secrets into
/// its scrubber.
pub(super) fn gather(entry: &Entry, resolver: &mut Resolver<'_>, report: &mut Report) -> Gathered {
    let of = |role| entry.files.iter().filter(move |file| Role::of(entry, file) == role);
    let archives: Vec<&PathBuf> = of(Role::Archive).collect();
    let unpacked: Vec<&PathBuf> = of(Role::Unpacked).collect();
    let has_export = !archives.is_empty() || !unpacked.is_empty();
    let mut gathering = Gathering { resolver, report, incomplete: false };

    // The operator's files come first: their `config:` selects the export's configuration.
    let mut operators = Vec::new();
    let origin = if has_export { Origin::Overlay } else { Origin::Standalone };
    operators.extend(of(Role::Yaml).filter_map(|file| gathering.yaml(file, origin)));
    operators.extend(of(Role::Env).filter_map(|file| gathering.env(file)));
    let operators = Layers(operators);

    let wanted = operators.text(&["config"]);
    let export = match (archives.first(), unpacked.as_slice()) {
        (Some(archive), _) => gathering.archive(archive, wanted),
        (None, []) => None,
        (None, files) => gathering.unpacked(files, wanted),
    };
    let (dataset, export) = export.unzip();
    gathering.incomplete |= has_export && export.is_none();
    let incomplete = gathering.incomplete;
    let layers = Layers(export.into_iter().chain(operators.0).collect());
    Gathered { layers, dataset, incomplete }
}

impl Role {
    fn of(entry: &Entry, file: &Path) -> Self {
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

impl Gathering<'_, '_> {
    fn yaml(&mut self, file: &Path, origin: Origin) -> Option<Document> {
        let text = self.text(file)?;
        let hidden = yaml::hidden_line(&text);
        let source = Source { origin, file: file.to_owned(), entry: None, text };
        match hidden {
            Some(fault) => self.finish(source, Err(vec![fault])),
            None => self.document(source),
        }
    }

    fn env(&mut self, file: &Path) -> Option<Document> {
        let text = dotenv::with_line_feeds(&self.text(file)?).into_owned();
        let source = Source { origin: Origin::Env, file: file.to_owned(), entry: None, text };
        let read = dotenv::parse(&source.text);
        for (name, at) in read.repeated.into_iter().take(MAX_REPEATED) {
            self.report.push(
                Diagnostic::warning("env-twice", format!("{name} is given a second time; this one counts"))
                    .help("remove the line that is not meant")
                    .at(source.at(at)),
            );
        }
        self.finish(source, read.root)
    }

    /// Reads the selected configuration of an archive, with its dataset.
    fn archive(&mut self, file: &Path, wanted: Option<&str>) -> Option<(String, Document)> {
        let (raw, chosen) = match self.resolver.shelf.is_kept() {
            true => (crate::base::digest::Digest::of(b""), self.kept(file)),
            false => match self.resolver.read(file, archive::MAX_ARCHIVE) {
                Ok(bytes) => (crate::base::digest::Digest::of(&bytes), self.open(file, bytes, wanted)),
                Err(error) => return self.unreadable(file, &error),
            },
        };
        // A refused archive is identified by its bytes, a valid one by its configuration only.
        match &chosen {
            Ok((dataset, source)) => {
                self.hash(dataset);
                self.hash(&source.text);
                let entry = source.entry.as_deref().unwrap_or_default();
                self.resolver.shelf.took_config(file, dataset, entry, &source.text);
            }
            Err(_) => self.hash(&raw.to_string()),
        }
        match chosen {
            Ok((dataset, source)) => Some((dataset, self.document(source)?)),
            Err(diagnostic) => {
                self.report.push(*diagnostic);
                None
            }
        }
    }

    /// Returns the configuration that the snapshot recorded for an archive.
    fn kept(&self, file: &Path) -> Result<(String, Source), Refusal> {
        let Some((dataset, entry, text)) = self.resolver.shelf.config(file) else {
            let refusal = Diagnostic::error("zip-incomplete", "this archive was not kept with this revision");
            return Err(Box::new(refusal.at(Location::file(file))));
        };
        let source = Source { origin: Origin::Export, file: file.to_owned(), entry: Some(entry), text };
        Ok((dataset, source))
    }

    fn open(
        &mut self,
        file: &Path,
        bytes: Vec<u8>,
        wanted: Option<&str>,
    ) -> Result<(String, Source), Refusal> {
        let whole = Location::file(file);
        let refused = |fault: archive::Fault, at| {
            Box::new(Diagnostic::error(fault.code(), fault.to_string()).help(fault.help()).at(at))
        };
        let mut archive = Archive::open(bytes).map_err(|fault| refused(fault, whole.clone()))?;
        if archive.outside > 0 {
            self.report.push(
                Diagnostic::warning(
                    "zip-outside",
                    format!(
                        "the archive has entries that point outside of it ({}); they are left alone",
                        archive.outside
                    ),
                )
                .help("find out who made this zip: the vendor's has none")
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
            self.report.push(name_guessed(&dataset).at(at.clone()));
        }
        let text = archive.text(chosen).map_err(|fault| refused(fault, at))?;
        let source = Source { origin: Origin::Export, file: file.to_owned(), entry: Some(entry), text };
        Ok((dataset, source))
    }

    /// Reads the selected configuration of an unpacked export, with its dataset.
    fn unpacked(&mut self, files: &[&PathBuf], wanted: Option<&str>) -> Option<(String, Document)> {
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
        let text = self.text(files[chosen])?;
        let source = Source { origin: Origin::Export, file: files[chosen].clone(), entry: None, text };
        Some((datasets[chosen].to_owned(), self.document(source)?))
    }

    fn text(&mut self, file: &Path) -> Option<String> {
        let bytes = match self.resolver.bytes(file, yaml::MAX_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable(file, &error),
        };
        self.hash(&file.file_name().unwrap_or_default().to_string_lossy());
        self.resolver.hasher.field(&bytes);
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => {
                self.resolver.shelf.took_text(file, &text);
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

    fn unreadable<T>(&mut self, file: &Path, error: &disk::Error) -> Option<T> {
        self.incomplete = true;
        self.hash(&error.to_string());
        let code = match error {
            disk::Error::NotRegular => "not-a-file",
            disk::Error::TooLarge(_) => "file-too-large",
            disk::Error::NotText => "not-text",
            disk::Error::Outside => "file-outside",
            disk::Error::Io(_) if error.will_pass() => super::SCARCE,
            disk::Error::Io(_) => "unreadable",
        };
        let help = match error {
            disk::Error::NotRegular => "folders, pipes and devices are not read; put a regular file here",
            disk::Error::TooLarge(_) => "a vendor export is far smaller; use it as the portal exported it",
            disk::Error::NotText => "save it as UTF-8",
            disk::Error::Outside => OUTSIDE_HELP,
            disk::Error::Io(_) if error.will_pass() => super::SCARCE_HELP,
            disk::Error::Io(_) => "check that the gateway's user may read it",
        };
        self.report.push(
            Diagnostic::error(code, format!("this file cannot be used: {error}"))
                .help(help)
                .at(Location::file(file)),
        );
        None
    }

    fn document(&mut self, source: Source) -> Option<Document> {
        let root = yaml::parse(&source.text);
        self.finish(source, root)
    }

    fn finish(&mut self, source: Source, root: Result<yaml::Node, Vec<Fault>>) -> Option<Document> {
        self.resolver.scrubber.learn_text(&source.text);
        match root {
            Ok(root) => {
                self.resolver.scrubber.learn_tree(&root);
                Some(Document::new(source, root, self.report))
            }
            Err(faults) => {
                self.incomplete = true;
                faults.into_iter().for_each(|fault| self.report.push(source.finding(fault)));
                None
            }
        }
    }

    fn hash(&mut self, text: &str) {
        self.resolver.hasher.field(text.as_bytes());
    }
}

fn name_guessed(dataset: &str) -> Diagnostic {
    let shown: String = dataset.chars().filter(|c| !c.is_control()).take(60).collect();
    let message =
        format!("the names in this zip are not UTF-8; that of the configuration is read as \"{shown}\"");
    Diagnostic::warning("zip-names", message)
        .help("if it reads wrongly, write dataset: in the .yaml beside the zip, or use the zip as the portal exported it")
}
