//! The credential of a program: a secret, given as its SHA-256 or in plain text.

use super::validation::Validation;
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::digest::Digest;
use crate::bundle::document::ConfigDocument;
use crate::bundle::placeholder::{QUOTED, is_placeholder, is_quoted};
use crate::bundle::tree::ConfigNode;

const MIN_CHARS: usize = 24;

/// One credential in a list of a document.
pub(super) struct Credential<'a> {
    pub(super) document: &'a ConfigDocument,
    pub(super) item: &'a ConfigNode,
    /// The field of the plain secret: `key` or `secret`.
    pub(super) plain_field: &'static str,
    /// The code of findings about it.
    pub(super) code: &'static str,
    /// The help text of most findings about it.
    pub(super) help: &'static str,
}

impl<'a> Credential<'a> {
    /// Returns the location of the item.
    pub(super) fn location(&self) -> Location {
        self.document.source.location_at(self.item.at)
    }

    /// Returns a member that is not blank.
    pub(super) fn member(&self, name: &str) -> Option<&'a ConfigNode> {
        self.item.member(name).map(|(_, node)| node).filter(|node| !node.is_blank())
    }

    /// Whether a digest or a plain secret is given, valid or not.
    pub(super) fn is_given(&self) -> bool {
        self.member("sha256").is_some() || self.is_plain()
    }

    fn is_plain(&self) -> bool {
        self.member(self.plain_field).or_else(|| self.member(&format!("{}_file", self.plain_field))).is_some()
    }

    /// Returns the digest, given or computed.
    pub(super) fn digest(&self, validation: &mut Validation<'_, '_>) -> Option<Digest> {
        let name = self.plain_field;
        match (self.member("sha256"), self.is_plain()) {
            (Some(node), false) => self.parse_sha256(validation, node),
            (None, true) => self.hash_plain_secret(validation),
            (Some(_), true) => {
                self.reject(validation, self.location(), format!("both sha256 and {name} are set"))
            }
            (None, false) => {
                self.reject(validation, self.location(), format!("neither sha256 nor {name} is set"))
            }
        }
    }

    fn parse_sha256(&self, validation: &mut Validation<'_, '_>, node: &ConfigNode) -> Option<Digest> {
        let digest = node.text().and_then(Digest::parse_hex);
        if digest.is_none() {
            let at = self.document.source.location_at(node.at);
            self.report_error(validation, at, "sha256 must be 64 hexadecimal digits");
        }
        digest
    }

    fn hash_plain_secret(&self, validation: &mut Validation<'_, '_>) -> Option<Digest> {
        let name = self.plain_field;
        let in_the_file =
            self.member(name).is_some_and(|node| !node.text().unwrap_or_default().starts_with("${"));
        let resolved = validation.resolve_member(self.document, self.item, name)?;
        let secret = resolved.secret.expose();
        if is_placeholder(secret) {
            return self.reject(validation, resolved.at, format!("the {name} is still a placeholder"));
        }
        if is_quoted(secret) {
            return self.reject(validation, resolved.at, format!("the {name} {QUOTED}"));
        }
        if !self.can_be_sent(secret) {
            let odd = format!(
                "the {name} has a character that is not allowed in a header, perhaps an invisible \
                         one"
            );
            return self.reject(validation, resolved.at, odd);
        }
        if secret.chars().count() < MIN_CHARS {
            let short = format!(
                "the {name} is too short to be safe; it needs at least {MIN_CHARS} \
                                 characters"
            );
            return self.reject(validation, resolved.at, short);
        }
        let digest = Digest::of(secret.as_bytes());
        if in_the_file {
            validation.add_finding(
                Diagnostic::warning("api-key-plain", format!("the {name} is in the file in plain text"))
                    .help("write its digest instead, as sha256: (tenantd apikey new prints both)"),
                Some(resolved.at),
            );
        }
        Some(digest)
    }

    /// Whether a program can send the secret: a key as a bearer token (RFC 6750 section 2.1), a
    /// client's secret in a form or with Basic authentication.
    fn can_be_sent(&self, secret: &str) -> bool {
        match self.plain_field {
            "key" => {
                let body = secret.trim_end_matches('=');
                body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
            }
            _ => secret.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
        }
    }

    /// Returns the holder's name for logs and audit; `default` without a label.
    pub(super) fn label(&self, validation: &mut Validation<'_, '_>, default: String) -> Option<String> {
        let Some(node) = self.member("label") else { return Some(default) };
        let text = node.text()?;
        if text.chars().count() <= 64 && !text.contains(char::is_control) {
            return Some(text.to_owned());
        }
        let at = self.document.source.location_at(node.at);
        self.reject(validation, at, "the label is longer than 64 characters or has control characters")
    }

    /// Reports what is wrong with the credential.
    pub(super) fn report_error(
        &self,
        validation: &mut Validation<'_, '_>,
        at: Location,
        what: impl Into<String>,
    ) {
        validation.add_finding(Diagnostic::error(self.code, what).help(self.help), Some(at));
    }

    /// Reports what is wrong with the credential; it has no value then.
    pub(super) fn reject<T>(
        &self,
        validation: &mut Validation<'_, '_>,
        at: Location,
        what: impl Into<String>,
    ) -> Option<T> {
        self.report_error(validation, at, what);
        None
    }
}
