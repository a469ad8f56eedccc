//! An entry's files → [`Layers`]: which file is what, which configuration of an export is meant, and all that is wrong
//! before any value is judged.

use std::path::{Path, PathBuf};

use super::archive::{self, Archive};
use super::document::{Document, Layers, Origin, Source};
use super::reference::Resolver;
use super::yaml::{self, Fault};
use super::{Entry, dotenv, source};
use crate::base::diagnostic::{Diagnostic, Location, Report};

/// What a file is to the tenant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Archive,
    /// A configuration of an export that somebody unpacked.
    Unpacked,
    Yaml,
    Env,
}

/// What was gathered.
pub(super) struct Gathered {
    pub(super) layers: Layers,
    /// The dataset's name, as the export has it.
    pub(super) dataset: Option<String>,
    /// Some file could not be read, so what is missing in the layers may stand in it.
    pub(super) incomplete: bool,
}

/// A configuration of an export that could be chosen.
struct Choice {
    dataset: String,
    entry: Option<String>,
    from: From,
}

enum From {
    Archive(usize),
    File(PathBuf),
}

/// Gathering under way.
struct Gathering<'a, 'b> {
    resolver: &'a mut Resolver<'b>,
    report: &'a mut Report,
    incomplete: bool,
}

/// Reads all files of an entry. What was read goes into the resolver's digest, its secrets into its scrubber.
pub(super) fn gather(entry: &Entry, resolver: &mut Resolver<'_>, report: &mut Report) -> Gathered {
    let of = |role| entry.files.iter().filter(move |file| Role::of(entry, file) == role);
    let archives: Vec<&PathBuf> = of(Role::Archive).collect();
    let unpacked: Vec<&PathBuf> = of(Role::Unpacked).collect();
    let has_export = !archives.is_empty() || !unpacked.is_empty();
    let mut gathering = Gathering { resolver, report, incomplete: false };

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
        self.document(Source { origin, file: file.to_owned(), entry: None, text })
    }

    fn env(&mut self, file: &Path) -> Option<Document> {
        let text = self.text(file)?;
        let source = Source { origin: Origin::Env, file: file.to_owned(), entry: None, text };
        let (root, repeated) = dotenv::parse(&source.text);
        for (name, at) in repeated {
            self.report.push(
                Diagnostic::warning("env-twice", format!("{name} is given a second time; this one counts"))
                    .help("remove the line that is not meant")
                    .at(source.at(at)),
            );
        }
        self.finish(source, root)
    }

    /// The configuration of an archive that is meant, with its dataset.
    fn archive(&mut self, file: &Path, wanted: Option<&str>) -> Option<(String, Document)> {
        let bytes = match source::read(file, archive::MAX_ARCHIVE) {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable(file, &error),
        };
        // Whatever is wrong with an archive is wrong with these bytes; a good one counts by its configuration only.
        let raw = crate::base::digest::Digest::of(&bytes);
        let chosen = self.open(file, bytes, wanted);
        match &chosen {
            Ok((dataset, source)) => {
                self.hash(dataset);
                self.hash(&source.text);
            }
            Err(_) => self.hash(&raw.to_string()),
        }
        match chosen {
            Ok((dataset, source)) => Some((dataset, self.document(source)?)),
            Err(diagnostic) => {
                self.report.push(diagnostic);
                None
            }
        }
    }

    fn open(
        &mut self,
        file: &Path,
        bytes: Vec<u8>,
        wanted: Option<&str>,
    ) -> Result<(String, Source), Diagnostic> {
        let whole = Location::file(file);
        let refused = |fault: archive::Fault, at| {
            Diagnostic::error(fault.code(), fault.to_string()).help(fault.help()).at(at)
        };
        let mut archive = Archive::open(bytes).map_err(|fault| refused(fault, whole.clone()))?;
        if archive.outside > 0 {
            self.report.push(
                Diagnostic::warning(
                    "zip-outside",
                    format!(
                        "{} entries of the archive point outside of it; they are left alone",
                        archive.outside
                    ),
                )
                .help("find out who made this zip: the vendor's has none")
                .at(whole.clone()),
            );
        }
        let choices = archive
            .configs
            .iter()
            .enumerate()
            .map(|(index, config)| Choice {
                dataset: config.dataset.clone(),
                entry: Some(config.entry.clone()),
                from: From::Archive(index),
            })
            .collect();
        let nested = archive.nested.clone();
        let choice = choose(choices, wanted, || no_config(nested.as_deref()))
            .map_err(|diagnostic| diagnostic.at(whole.clone()))?;
        let From::Archive(index) = choice.from else { unreachable!("choices of an archive are in it") };
        let at = Location { entry: choice.entry.clone(), ..whole };
        let text = archive.text(index).map_err(|fault| refused(fault, at))?;
        let source = Source { origin: Origin::Export, file: file.to_owned(), entry: choice.entry, text };
        Ok((choice.dataset, source))
    }

    /// The same for an export that somebody unpacked.
    fn unpacked(&mut self, files: &[&PathBuf], wanted: Option<&str>) -> Option<(String, Document)> {
        let stem = |file: &Path| {
            file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let choices = files
            .iter()
            .map(|file| Choice { dataset: stem(file), entry: None, from: From::File(file.to_path_buf()) })
            .collect();
        let choice = match choose(choices, wanted, || no_config(None)) {
            Ok(choice) => choice,
            Err(diagnostic) => {
                self.report.push(diagnostic.at(Location::file(files[0])));
                return None;
            }
        };
        let From::File(file) = choice.from else { unreachable!("choices of a folder are files") };
        let text = self.text(&file)?;
        let document = self.document(Source { origin: Origin::Export, file, entry: None, text })?;
        Some((choice.dataset, document))
    }

    fn text(&mut self, file: &Path) -> Option<String> {
        let bytes = match source::read(file, yaml::MAX_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable(file, &error),
        };
        self.hash(&file.file_name().unwrap_or_default().to_string_lossy());
        self.resolver.hasher.field(&bytes);
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Some(text),
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

    fn unreadable<T>(&mut self, file: &Path, error: &source::Error) -> Option<T> {
        self.incomplete = true;
        self.hash(&error.to_string());
        let code = match error {
            source::Error::NotRegular => "not-a-file",
            source::Error::TooLarge(_) => "file-too-large",
            source::Error::Io(_) => "unreadable",
        };
        let help = match error {
            source::Error::NotRegular => "folders, pipes and devices are not read; put a regular file here",
            source::Error::TooLarge(_) => "a vendor export is far smaller; use it as the portal exported it",
            source::Error::Io(_) => "check that the gateway's user may read it",
        };
        self.report.push(Diagnostic::error(code, error.to_string()).help(help).at(Location::file(file)));
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

/// The one configuration that is meant.
fn choose(
    mut choices: Vec<Choice>,
    wanted: Option<&str>,
    none: impl FnOnce() -> Diagnostic,
) -> Result<Choice, Diagnostic> {
    if choices.is_empty() {
        return Err(none());
    }
    let list = listed(&choices);
    if let Some(wanted) = wanted {
        let stem = wanted.strip_suffix(".yaml").or_else(|| wanted.strip_suffix(".yml")).unwrap_or(wanted);
        choices.retain(|choice| choice.dataset == stem);
        if choices.is_empty() {
            return Err(Diagnostic::error(
                "config-unknown",
                "the export has no configuration of the name in config:",
            )
            .help(format!("it has {list}")));
        }
    }
    match choices.len() {
        1 => Ok(choices.remove(0)),
        _ => Err(Diagnostic::error(
            "config-ambiguous",
            format!("the export has several configurations: {list}"),
        )
        .help("say which one is meant with \"config: <name>\" in the .yaml beside it, named like the zip")),
    }
}

fn listed(choices: &[Choice]) -> String {
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
    let mut names: Vec<String> = choices.iter().take(10).map(|choice| printable(&choice.dataset)).collect();
    if choices.len() > 10 {
        names.push(format!("and {} more", choices.len() - 10));
    }
    names.join(", ")
}

fn no_config(nested: Option<&str>) -> Diagnostic {
    let help = match nested {
        Some(_) => "it holds another zip: unpack it once and drop the inner mcp_export.zip",
        None => {
            "the configuration is expected at mcp/server/configs/<dataset>.yaml; export mcp_export.zip again from the portal"
        }
    };
    Diagnostic::error("config-missing", "No .yaml config files found in zip").help(help)
}
