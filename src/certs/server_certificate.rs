//! A certificate chain with its key, parsed from PEM and checked: the key belongs to the
//! certificate, and names and dates are known.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::schedule::CertificateLifetime;
use super::x509_info::{self, X509Info};
use super::{Error, chain};

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct ServerCertificate {
    pub(super) certified_key: Arc<CertifiedKey>,
    /// DNS names in lower case, wildcards with `*.` in front, and IP addresses as text.
    pub(super) names: Vec<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// The issuer and its serial number for the certificate, for people.
    pub(super) issuer: String,
    pub(super) serial: String,
    /// Served only until a CA has issued a certificate.
    pub(super) is_placeholder: bool,
}

impl ServerCertificate {
    /// Parses a key and its chain, leaf first, from one PEM text.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let parts = PemContents::parse(pem)?;
        let key = parts.keys.into_iter().next().ok_or_else(|| Error("it contains no private key".into()))?;
        Self::new(parts.chain, key)
    }

    /// Pairs a chain with its key.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let leaf = chain.first().ok_or_else(|| Error("it contains no certificate".into()))?;
        let info = X509Info::parse(leaf)?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Error("the private key does not belong to the certificate".into())
            }
            other => Error(format!("the private key cannot be used: {other}")),
        })?;
        Ok(Self {
            certified_key: Arc::new(key),
            names: info.names,
            not_before: info.not_before,
            not_after: info.not_after,
            issuer: info.issuer,
            serial: info.serial,
            is_placeholder: false,
        })
    }

    /// Returns the certificate with the missing issuers of its chain, if they are in `known` and
    /// the completed chain verifies.
    pub(super) fn complete(&self, known: &[CertificateDer<'static>]) -> Option<Self> {
        let chain = chain::complete(&self.certified_key.cert, &self.names, known)?;
        let key = CertifiedKey::new(chain, Arc::clone(&self.certified_key.key));
        Some(Self { certified_key: Arc::new(key), ..self.clone() })
    }

    /// Explains why clients may not be able to verify it, and what to do.
    pub(super) fn chain_problem(&self) -> Option<String> {
        chain::problem(&self.certified_key.cert, &self.names)
    }

    /// Returns when it is valid.
    pub(super) fn lifetime(&self) -> CertificateLifetime {
        CertificateLifetime { not_before: self.not_before, not_after: self.not_after }
    }

    /// Returns whether it is another certificate than `held`, and not an older one.
    pub(super) fn replaces(&self, held: &Self) -> bool {
        self.serial != held.serial && self.not_before >= held.not_before
    }

    /// Whether clients accept it for a name or address, which is in lower case.
    pub(super) fn covers(&self, name: &str) -> bool {
        x509_info::covers(&self.names, name)
    }
}

/// The contents of a PEM text.
#[derive(Debug, Default)]
pub(super) struct PemContents {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
}

impl PemContents {
    /// Parses the certificates and keys of a PEM text; other sections are ignored. The chain is
    /// sorted into the order in which it is sent.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, Error> {
        let pem = normalize_pem(pem)?;
        let mut parts = Self::default();
        if count_occurrences(&pem, b"Proc-Type: 4,ENCRYPTED") > 0 {
            return Err(encrypted_key_error());
        }
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem) {
            let (kind, der) = section.map_err(|_| Error("it is not complete PEM".into()))?;
            if let Some(certificate) = CertificateDer::from_pem(kind, der.clone()) {
                parts.chain.push(certificate);
            } else if let Some(key) = PrivateKeyDer::from_pem(kind, der) {
                parts.keys.push(key);
            }
        }
        if parts.is_empty() && count_occurrences(&pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") > 0 {
            return Err(encrypted_key_error());
        }
        parts.check_complete(&pem)?;
        parts.chain = chain::order_chain(parts.chain);
        Ok(parts)
    }

    /// Whether it contains neither certificate nor key.
    pub(super) fn is_empty(&self) -> bool {
        self.chain.is_empty() && self.keys.is_empty()
    }

    /// Refuses a text in which a BEGIN or END line is not a line of its own: PEM readers skip such
    /// a section, and it would be missing unnoticed.
    fn check_complete(&self, pem: &[u8]) -> Result<(), Error> {
        let keys: usize = KEY_HEADERS.iter().map(|mark| count_occurrences(pem, mark)).sum();
        let present = keys + count_occurrences(pem, b"-----BEGIN CERTIFICATE-----");
        let read = self.keys.len() + self.chain.len();
        match present == read {
            true => Ok(()),
            false => Err(Error(format!(
                "it contains {present} certificates and keys, of which {read} can be read: each -----BEGIN \
                 …----- and -----END …----- must be on its own line"
            ))),
        }
    }
}

const KEY_HEADERS: [&[u8]; 3] =
    [b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN RSA PRIVATE KEY-----", b"-----BEGIN EC PRIVATE KEY-----"];

/// Repairs a text: removes an editor's byte order mark, and adds the line break that is missing
/// where files without a final one were concatenated.
fn normalize_pem(pem: &[u8]) -> Result<Vec<u8>, Error> {
    if pem.starts_with(&[0xff, 0xfe]) || pem.starts_with(&[0xfe, 0xff]) {
        return Err(Error("it is UTF-16 text; save it as plain text (ASCII or UTF-8)".into()));
    }
    let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(pem);
    const GLUED: &[u8] = b"----------BEGIN ";
    let mut normalized = Vec::with_capacity(pem.len());
    let mut rest = pem;
    while let Some(at) = rest.windows(GLUED.len()).position(|window| window == GLUED) {
        let (before, after) = rest.split_at(at + 5);
        normalized.extend_from_slice(before);
        normalized.push(b'\n');
        rest = after;
    }
    normalized.extend_from_slice(rest);
    Ok(normalized)
}

fn count_occurrences(text: &[u8], mark: &[u8]) -> usize {
    text.windows(mark.len()).filter(|window| *window == mark).count()
}

fn encrypted_key_error() -> Error {
    Error(
        "its private key is encrypted; write it without a passphrase: openssl pkey -in <key> -out <new key>"
            .into(),
    )
}
