//! Secrets given by reference: `x_file: <path>` and `${TENANT_…}`.
//!
//! Only operators' files may use references, only to files in the tenant's own folder, beside its
//! files under its stem, or below the folders that the settings allow (after following links), and
//! only to variables of that prefix. What was read goes into the entry's digest, so that a rotated
//! secret is a change; the named files are returned, so that a change of them is noticed.

use std::io;
use std::path::{Path, PathBuf};

use super::bounds::{Bounds, VARIABLE_PREFIX};
use super::document::{Document, Origin};
use super::excerpt::Scrubber;
use super::snapshot::Shelf;
use super::yaml::{Manner, Node};
use super::{Context, Refusal};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Hasher;
use crate::base::file::{self as disk, Stamp};
use crate::base::secret::Secret;

const MAX_SECRET: u64 = 64 << 10;

/// Reads secrets, and records them for the digest and for scrubbing.
pub(super) struct Resolver<'a> {
    pub(super) context: &'a Context,
    pub(super) bounds: Bounds,
    /// The source of everything that is read.
    pub(super) shelf: Shelf<'a>,
    pub(super) hasher: Hasher,
    pub(super) scrubber: Scrubber,
    /// The files with secrets that were named so far.
    pub(super) named: Vec<Named>,
}

/// A secret, and where it was named.
pub(super) struct Resolved {
    pub(super) secret: Secret,
    pub(super) at: Location,
    pub(super) origin: Origin,
}

/// A file with a secret that a document names, and its presence before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The file's path.
    pub path: PathBuf,
    /// Whether the file exists, and its stamp.
    pub presence: Presence,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It exists.
    There(Stamp),
    /// It does not exist.
    Gone,
    /// Its metadata cannot be read, so it may or may not exist.
    Hidden,
}

impl Named {
    /// Returns a file with its current presence.
    fn now(path: &Path) -> Self {
        Self { path: path.to_owned(), presence: Presence::at(path) }
    }
}

impl Presence {
    /// Returns the current presence of a file.
    pub fn at(path: &Path) -> Self {
        match Stamp::of(path) {
            Ok(stamp) => Self::There(stamp),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Gone,
                _ => Self::Hidden,
            },
        }
    }
}

/// The form of a secret in the document.
enum Reference<'a> {
    Plain(&'a str),
    File(&'a str),
    Variable(&'a str),
}

impl Resolver<'_> {
    /// Reads one of the entry's files.
    pub(super) fn read(&self, file: &Path, cap: u64) -> Result<Vec<u8>, disk::Error> {
        self.shelf.read(file, cap, &self.bounds)
    }

    /// Reads one of the entry's text files, from the disk or the snapshot.
    pub(super) fn bytes(&self, file: &Path, cap: u64) -> Result<Vec<u8>, disk::Error> {
        self.shelf.bytes(file, cap, &self.bounds)
    }

    /// Returns the secret `name` (or `name_file`) of a mapping in a document; `None` if it is unset
    /// or was refused.
    pub(super) fn member(
        &mut self,
        document: &Document,
        map: &Node,
        name: &str,
        report: &mut Report,
    ) -> Option<Resolved> {
        let file_name = format!("{name}_file");
        let given = |name: &str| map.member(name).map(|(_, node)| node).filter(|node| !node.is_blank());
        let (node, reference) = match (given(name), given(&file_name)) {
            (None, None) => return None,
            (Some(node), None) => (node, None),
            (None, Some(node)) => (node, Some(Reference::File(node.text()?))),
            (Some(_), Some(node)) => {
                report.push(
                    Diagnostic::error("secret-twice", format!("both {name} and {file_name} are given"))
                        .help("keep the one that is meant")
                        .at(document.source.at(node.at)),
                );
                return None;
            }
        };
        self.resolve(document, node, reference, name, report)
    }

    /// Returns the secret in a node, given directly or as `${TENANT_…}`.
    pub(super) fn value(
        &mut self,
        document: &Document,
        node: &Node,
        name: &str,
        report: &mut Report,
    ) -> Option<Resolved> {
        self.resolve(document, node, None, name, report)
    }

    fn resolve(
        &mut self,
        document: &Document,
        node: &Node,
        reference: Option<Reference<'_>>,
        name: &str,
        report: &mut Report,
    ) -> Option<Resolved> {
        let at = document.source.at(node.at);
        let reference = match reference {
            Some(reference) => Ok(reference),
            None if node.manner == Manner::Literal => Ok(Reference::Plain(node.text()?)),
            None => plain_or_variable(node.text()?),
        };
        let secret = reference.and_then(|reference| match (reference, document.source.origin) {
            (Reference::Plain(text), _) => Ok(text.to_owned()),
            (_, Origin::Export) => Err(from_export(name)),
            (Reference::File(path), _) => self.file(path, &document.source.file),
            (Reference::Variable(variable), _) => self.variable(variable),
        });
        match secret {
            Ok(secret) => {
                self.scrubber.learn(&secret);
                Some(Resolved { secret: Secret::new(secret), at, origin: document.source.origin })
            }
            Err(diagnostic) => {
                report.push(diagnostic.at(at));
                None
            }
        }
    }

    fn variable(&mut self, name: &str) -> Result<String, Refusal> {
        if !self.bounds.include(name) {
            let help = format!(
                "its variables are {}…, since the settings confine tenants (confine_tenants)",
                self.bounds.variables()
            );
            return Err(refusal(
                "variable-of-others",
                format!("the variable {name} is not this tenant's"),
                &help,
            ));
        }
        let value = match self.shelf.is_kept() {
            true => self.shelf.variable(name),
            false => self.context.env.get(name).map(|value| value.expose().to_owned()),
        };
        let value = value.filter(|value| !value.trim().is_empty());
        self.hasher.field(name.as_bytes());
        self.hasher.field(value.as_deref().unwrap_or_default().as_bytes());
        if let Some(value) = &value {
            self.shelf.took_variable(name, value);
        }
        let help = "set it in the environment of the gateway and restart it, or give the secret as a file";
        let unset = || refusal("variable-unset", format!("the variable {name} is not set"), help);
        value.map(|value| value.trim().to_owned()).ok_or_else(unset)
    }

    fn file(&mut self, path: &str, beside: &Path) -> Result<String, Refusal> {
        let place = beside.parent().unwrap_or(Path::new("")).join(path);
        // Noted before reading, so that a later change is a difference in the next scan.
        self.note(&place);
        let text = match self.shelf.is_kept() {
            true => self.shelf.secret(path, beside).ok_or_else(not_kept),
            false => self.read_secret(&place),
        };
        self.hasher.field(path.as_bytes());
        match &text {
            Ok(text) => {
                self.shelf.took_secret(path, beside, text);
                self.hasher.field(text.as_bytes());
            }
            // The fault is part of the digest: another fault is another finding.
            Err(refusal) => self.hasher.field(refusal.message.as_bytes()),
        }
        text
    }

    fn note(&mut self, place: &Path) {
        if !self.named.iter().any(|named| named.path == place) {
            self.named.push(Named::now(place));
        }
    }

    fn read_secret(&self, place: &Path) -> Result<String, Refusal> {
        let read = self.bounds.read_named(place, MAX_SECRET);
        let bytes = read.map_err(|error| unreadable(&error, &self.bounds))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable(&disk::Error::NotText.to_string()))?;
        match text.trim() {
            "" => Err(unusable("it is empty")),
            text => Ok(text.to_owned()),
        }
    }
}

fn unreadable(error: &disk::Error, bounds: &Bounds) -> Refusal {
    match error {
        disk::Error::Outside => {
            let help =
                format!("{}, or allow its folder in the settings (secret_root)", bounds.place_of_secrets());
            refusal("secret-file-outside", "the secret's file lies where no secrets may lie", &help)
        }
        _ if error.will_pass() => refusal(super::SCARCE, error.to_string(), super::SCARCE_HELP),
        _ if error.is_not_found() => {
            refusal("secret-file", "the secret's file cannot be found", "mount the file, or correct the path")
        }
        _ => unusable(&error.to_string()),
    }
}

fn unusable(why: &str) -> Refusal {
    let message = format!("the secret's file cannot be used: {why}");
    refusal("secret-file", message, "the file holds the secret and nothing else, as text")
}

fn not_kept() -> Refusal {
    let help = "put the file right; its own files count then";
    refusal("secret-file", "the secret's file was not kept with this revision", help)
}

fn plain_or_variable(text: &str) -> Result<Reference<'_>, Refusal> {
    if !text.contains("${") {
        return Ok(Reference::Plain(text));
    }
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let word = |name: &&str| name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let name = name.filter(word).filter(|name| name.starts_with(VARIABLE_PREFIX));
    let help = "write ${TENANT_…} as the whole value; other variables of the gateway are out of reach. A secret that has ${ in it can be given as a file (…_file), or in single quotes in a .env";
    let unknown =
        || refusal("variable-form", "this is not the name of a variable that tenants may use", help);
    name.map(Reference::Variable).ok_or_else(unknown)
}

fn from_export(name: &str) -> Refusal {
    let message = format!("an export may not take {name} from this machine's files or variables");
    refusal("export-reads-machine", message, "put this line in the .yaml beside the zip, named like the zip")
}

fn refusal(code: &'static str, message: impl Into<String>, help: &str) -> Refusal {
    Box::new(Diagnostic::error(code, message).help(help))
}
