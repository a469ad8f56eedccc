//! The fields of a certificate that this module needs (RFC 5280).

use std::net::IpAddr;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;

/// Whether clients accept a certificate with these names for a name or address, which is in lower
/// case.
pub(super) fn covers(names: &[String], name: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    names.iter().any(|own| own == name || own.strip_prefix("*.").is_some_and(|own| Some(own) == parent))
}

/// The parsed fields of one certificate.
#[derive(Debug)]
pub(super) struct X509Info {
    pub(super) names: Vec<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) is_ca: bool,
    pub(super) issuer: String,
    pub(super) serial: String,
    /// The names in DER, for comparison; below them the key identifiers (RFC 5280 sections 4.2.1.1
    /// and 4.2.1.2).
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    subject_key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
}

impl X509Info {
    /// Whether the certificate names itself as its issuer, as roots do.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether `other` names this certificate as its issuer. Only its signature can prove that.
    pub(super) fn may_have_issued(&self, other: &Self) -> bool {
        let same_key = match (&self.subject_key_id, &other.authority_key_id) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        self.subject_der == other.issuer_der && same_key
    }

    pub(super) fn parse(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let parse_error = |_| Error("its certificate cannot be read".into());
        let (_, certificate) = X509Certificate::from_der(der).map_err(parse_error)?;
        let moment =
            |seconds| Timestamp::from_second(seconds).map_err(|_| Error("its dates are not valid".into()));
        let names = certificate.subject_alternative_name().ok().flatten();
        Ok(Self {
            names: names.iter().flat_map(|san| &san.value.general_names).filter_map(parse_san).collect(),
            not_before: moment(certificate.validity().not_before.timestamp())?,
            not_after: moment(certificate.validity().not_after.timestamp())?,
            is_ca: certificate.is_ca(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
            subject_key_id: certificate.extensions().iter().find_map(subject_key_id),
            authority_key_id: certificate.extensions().iter().find_map(authority_key_id),
        })
    }
}

fn subject_key_id(extension: &X509Extension<'_>) -> Option<Vec<u8>> {
    match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    }
}

fn authority_key_id(extension: &X509Extension<'_>) -> Option<Vec<u8>> {
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    }
}

fn parse_san(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4().or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
