//! Secrets that are given elsewhere: `x_file: <path>` and `${TENANT_…}`.
//!
//! Only operators' files may refer to them, only to files in the tenant's own folder or below the folders that the
//! settings allow (after following links), and only to variables of that prefix. What was read goes into the tenant's
//! digest, so that a rotated secret is a change.

use std::path::Path;

use super::bounds::{Bounds, VARIABLE_PREFIX};
use super::document::{Document, Origin};
use super::excerpt::Scrubber;
use super::snapshot::Shelf;
use super::yaml::{Manner, Node};
use super::{Context, Refusal};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Hasher;
use crate::base::file as disk;
use crate::base::secret::Secret;

const MAX_SECRET: u64 = 64 << 10;

/// Reads secrets, and remembers them for the digest and for scrubbing.
pub(super) struct Resolver<'a> {
    pub(super) context: &'a Context,
    pub(super) bounds: Bounds,
    /// What everything is read from.
    pub(super) shelf: Shelf<'a>,
    pub(super) hasher: Hasher,
    pub(super) scrubber: Scrubber,
}

/// A secret and where it was named.
pub(super) struct Resolved {
    pub(super) secret: Secret,
    pub(super) at: Location,
    pub(super) origin: Origin,
}

/// What stands in the document.
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

    /// The same of one that holds text, of the disk or of the snapshot.
    pub(super) fn bytes(&self, file: &Path, cap: u64) -> Result<Vec<u8>, disk::Error> {
        self.shelf.bytes(file, cap, &self.bounds)
    }

    /// The secret `name` (or `name_file`) of a mapping in a document; `None` if it is unset or was refused.
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

    /// The secret that a node is, or refers to with `${TENANT_…}`.
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
        let text = match self.shelf.is_kept() {
            true => self.shelf.secret(path, beside).ok_or_else(not_kept),
            false => self.read_secret(path, beside),
        };
        if let Ok(text) = &text {
            self.shelf.took_secret(path, beside, text);
        }
        self.hasher.field(path.as_bytes());
        self.hasher.field(text.as_deref().unwrap_or_default().as_bytes());
        text
    }

    fn read_secret(&self, path: &str, beside: &Path) -> Result<String, Refusal> {
        let path = beside.parent().unwrap_or(Path::new("")).join(path);
        let bytes = self.bounds.read_named(&path, MAX_SECRET).map_err(|error| unreadable(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable(&disk::Error::NotText.to_string()))?;
        match text.trim() {
            "" => Err(unusable("it is empty")),
            text => Ok(text.to_owned()),
        }
    }
}

fn unreadable(error: &disk::Error) -> Refusal {
    match error {
        disk::Error::Outside => {
            let help = "put it in the tenant's own folder, or allow its folder in the settings (secret_root)";
            refusal("secret-file-outside", "the secret's file lies where no secrets may lie", help)
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
