//! Secrets given by reference: `x_file: <path>` and `${TENANT_…}`.
//!
//! Only operators' files may use references, only to files in the tenant's own folder, beside its
//! files under its stem, or below the folders that the settings allow (after following links), and
//! only to variables of that prefix. What was read goes into the entry's digest, so that a rotated
//! secret is a change; the named files are returned, so that a change of them is noticed.

use std::path::Path;

use super::BoxedDiagnostic;
use super::confinement::{Confinement, VARIABLE_PREFIX};
use super::document::ConfigDocument;
use super::load_state::LoadState;
use super::source_text::{DocumentOrigin, SourceText};
use super::tree::{ConfigNode, ValueStyle};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::secret::Secret;
use crate::base::{disk, permission};

const MAX_SECRET: u64 = 64 << 10;

/// Reads secrets, and records them for the digest and for scrubbing.
pub(super) struct SecretResolver<'s, 'a> {
    state: &'s mut LoadState<'a>,
}

/// A secret, and where it was named.
pub(super) struct ResolvedSecret {
    pub(super) secret: Secret,
    pub(super) at: Location,
    pub(super) origin: DocumentOrigin,
}

/// The form of a secret in the document.
enum SecretRef<'a> {
    Plain(&'a str),
    File(&'a str),
    Variable(&'a str),
}

impl<'s, 'a> SecretResolver<'s, 'a> {
    pub(super) fn new(state: &'s mut LoadState<'a>) -> Self {
        Self { state }
    }

    /// Returns the secret `name` (or `name_file`) of a mapping in a document; `None` if it is unset
    /// or was refused.
    pub(super) fn resolve_member(
        &mut self,
        document: &ConfigDocument,
        map: &ConfigNode,
        name: &str,
        report: &mut Report,
    ) -> Option<ResolvedSecret> {
        let file_name = format!("{name}_file");
        let given = |name: &str| map.member(name).map(|(_, node)| node).filter(|node| !node.is_blank());
        let (node, reference) = match (given(name), given(&file_name)) {
            (None, None) => return None,
            (Some(node), None) => (node, None),
            (None, Some(node)) => (node, Some(SecretRef::File(node.text()?))),
            (Some(_), Some(node)) => {
                report.push(
                    Diagnostic::error("secret-twice", format!("both {name} and {file_name} are set"))
                        .help("keep one of the two")
                        .at(document.source.location_at(node.at)),
                );
                return None;
            }
        };
        self.resolve(document, node, reference, name, report)
    }

    /// Returns the secret in a node, given directly or as `${TENANT_…}`.
    pub(super) fn resolve_value(
        &mut self,
        document: &ConfigDocument,
        node: &ConfigNode,
        name: &str,
        report: &mut Report,
    ) -> Option<ResolvedSecret> {
        self.resolve(document, node, None, name, report)
    }

    fn resolve(
        &mut self,
        document: &ConfigDocument,
        node: &ConfigNode,
        reference: Option<SecretRef<'_>>,
        name: &str,
        report: &mut Report,
    ) -> Option<ResolvedSecret> {
        let at = document.source.location_at(node.at);
        let reference = match reference {
            Some(reference) => Ok(reference),
            None if node.style == ValueStyle::Literal => Ok(SecretRef::Plain(node.text()?)),
            None => parse_reference(node.text()?),
        };
        let secret = reference.and_then(|reference| match (reference, document.source.origin) {
            (SecretRef::Plain(text), _) => Ok(text.to_owned()),
            (_, DocumentOrigin::Export) => Err(export_reads_machine_error(name)),
            (SecretRef::File(path), _) => self.read_secret_file(path, &document.source),
            (SecretRef::Variable(variable), _) => self.read_variable(variable),
        });
        match secret {
            Ok(secret) => {
                self.state.scrubber.learn(&secret);
                Some(ResolvedSecret { secret: Secret::new(secret), at, origin: document.source.origin })
            }
            Err(diagnostic) => {
                report.push(diagnostic.at(at));
                None
            }
        }
    }

    fn read_variable(&mut self, name: &str) -> Result<String, BoxedDiagnostic> {
        if !self.state.confinement.allows_variable(name) {
            let help = format!(
                "this tenant can use only variables that begin with {}, because the settings confine tenants \
                 (confine_tenants)",
                self.state.confinement.variable_prefix()
            );
            return Err(boxed_error(
                "variable-of-others",
                format!("this tenant may not use the variable {name}"),
                &help,
            ));
        }
        let value = match self.state.source.is_snapshot() {
            true => self.state.source.stored_variable(name),
            false => self.state.context.env.get(name).map(|value| value.expose().to_owned()),
        };
        let value = value.filter(|value| !value.trim().is_empty());
        self.state.hasher.update_field(name.as_bytes());
        self.state.hasher.update_field(value.as_deref().unwrap_or_default().as_bytes());
        if let Some(value) = &value {
            self.state.source.record_variable(name, value);
        }
        let help = "set it in the environment of the gateway and restart the gateway, or write the secret \
                    into a file";
        let unset = || boxed_error("variable-unset", format!("the variable {name} is not set"), help);
        value.map(|value| value.trim().to_owned()).ok_or_else(unset)
    }

    fn read_secret_file(&mut self, path: &str, source: &SourceText) -> Result<String, BoxedDiagnostic> {
        let beside = source.file.as_path();
        let full_path = beside.parent().unwrap_or(Path::new("")).join(path);
        self.state.record_secret_file(&full_path);
        let text = match self.state.source.is_snapshot() {
            true => self.state.source.stored_secret(path, beside).ok_or_else(missing_from_snapshot_error),
            false => self.read_secret(&full_path, source.origin),
        };
        self.state.hasher.update_field(path.as_bytes());
        match &text {
            Ok(text) => {
                self.state.source.record_secret(path, beside, text);
                self.state.hasher.update_field(text.as_bytes());
            }
            // The fault is part of the digest: another fault is another finding.
            Err(boxed_error) => self.state.hasher.update_field(boxed_error.message.as_bytes()),
        }
        text
    }

    fn read_secret(&self, path: &Path, origin: DocumentOrigin) -> Result<String, BoxedDiagnostic> {
        let read = match origin {
            // Who starts the gateway may name any file.
            DocumentOrigin::Given => disk::read(path, MAX_SECRET),
            _ => self.state.confinement.read_referenced(path, MAX_SECRET),
        };
        let bytes = read.map_err(|error| unreadable_secret_error(path, &error, &self.state.confinement))?;
        let text =
            String::from_utf8(bytes).map_err(|_| unusable_secret_error(&disk::Error::NotUtf8.to_string()))?;
        match text.trim() {
            "" => Err(unusable_secret_error("it is empty")),
            text => Ok(text.to_owned()),
        }
    }
}

fn unreadable_secret_error(path: &Path, error: &disk::Error, confinement: &Confinement) -> BoxedDiagnostic {
    match error {
        disk::Error::OutsideRoots => {
            let help = format!(
                "{}, or allow its folder in the settings (secret_root)",
                confinement.describe_secret_location()
            );
            boxed_error(
                "secret-file-outside",
                "the secret's file is in a folder that is not allowed for \
                                                secrets",
                &help,
            )
        }
        _ if error.is_transient() => {
            boxed_error(super::OUT_OF_RESOURCES, error.to_string(), super::OUT_OF_RESOURCES_HELP)
        }
        _ if error.is_not_found() => boxed_error(
            "secret-file",
            "the secret's file cannot be found",
            "mount the file, or correct the path",
        ),
        disk::Error::Io(cause) => boxed_error(
            "secret-file",
            format!("the secret's file cannot be used: {error}"),
            &permission::read_help(path, cause),
        ),
        _ => unusable_secret_error(&error.to_string()),
    }
}

fn unusable_secret_error(why: &str) -> BoxedDiagnostic {
    let message = format!("the secret's file cannot be used: {why}");
    boxed_error("secret-file", message, "the file must contain only the secret, as text")
}

fn missing_from_snapshot_error() -> BoxedDiagnostic {
    let help = "repair the file; then the tenant's own files count again";
    boxed_error("secret-file", "the secret's file is not stored with this revision", help)
}

fn parse_reference(text: &str) -> Result<SecretRef<'_>, BoxedDiagnostic> {
    if !text.contains("${") {
        return Ok(SecretRef::Plain(text));
    }
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let word = |name: &&str| name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let name = name.filter(word).filter(|name| name.starts_with(VARIABLE_PREFIX));
    let help = "write ${TENANT_…} as the complete value; other variables of the gateway cannot be used. If a \
                secret contains ${, write it into a file (…_file), or in single quotes into a .env";
    let unknown = || boxed_error("variable-form", "tenants may not use a variable of this name", help);
    name.map(SecretRef::Variable).ok_or_else(unknown)
}

fn export_reads_machine_error(name: &str) -> BoxedDiagnostic {
    let message = format!("an export may not read {name} from this machine's files or variables");
    boxed_error(
        "export-reads-machine",
        message,
        "write this line into the .yaml beside the zip, with the same name as the zip",
    )
}

fn boxed_error(code: &'static str, message: impl Into<String>, help: &str) -> BoxedDiagnostic {
    Box::new(Diagnostic::error(code, message).help(help))
}
