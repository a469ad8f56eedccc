//! A certificate chain with its key, read from PEM and checked: the key is the certificate's, the names and dates are
//! known.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names in lower case, `*.` in front of wildcards, and addresses as text.
    pub(super) names: Vec<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Who vouches for it, and the number it has there, for people.
    pub(super) issuer: String,
    pub(super) serial: String,
    /// It is served only until there is one that somebody vouches for.
    pub(super) is_stopgap: bool,
}

impl Material {
    /// Reads a key and its chain, leaf first, from one text.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let parts = Parts::read(pem)?;
        let key = parts.keys.into_iter().next().ok_or_else(|| Error("it holds no private key".into()))?;
        Self::new(parts.chain, key)
    }

    /// Pairs a chain with its key.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let leaf = chain.first().ok_or_else(|| Error("it holds no certificate".into()))?;
        let facts = Facts::of(leaf)?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Error("the private key is not the certificate's".into()),
            other => Error(format!("the private key cannot be used: {other}")),
        })?;
        Ok(Self {
            key: Arc::new(key),
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
            issuer: facts.issuer,
            serial: facts.serial,
            is_stopgap: false,
        })
    }

    /// Whether clients accept it for a name or address, which is in lower case.
    pub(super) fn covers(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names
            .iter()
            .any(|own| own == name || own.strip_prefix("*.").is_some_and(|own| Some(own) == parent))
    }
}

/// What a PEM text holds.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
}

impl Parts {
    /// Sorts the sections of a PEM text; sections that are neither certificate nor key are left out.
    pub(super) fn read(pem: &[u8]) -> Result<Self, Error> {
        let mut parts = Self::default();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| Error("it is not whole PEM".into()))?;
            if let Some(certificate) = CertificateDer::from_pem(kind, der.clone()) {
                parts.chain.push(certificate);
            } else if let Some(key) = PrivateKeyDer::from_pem(kind, der) {
                parts.keys.push(key);
            }
        }
        Ok(parts)
    }
}

/// What a certificate says of itself.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) names: Vec<String>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) is_ca: bool,
    pub(super) issuer: String,
    pub(super) serial: String,
}

impl Facts {
    pub(super) fn of(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let unreadable = |_| Error("its certificate cannot be read".into());
        let (_, certificate) = X509Certificate::from_der(der).map_err(unreadable)?;
        let moment =
            |seconds| Timestamp::from_second(seconds).map_err(|_| Error("its dates are absurd".into()));
        let names = certificate.subject_alternative_name().ok().flatten();
        Ok(Self {
            names: names.iter().flat_map(|san| &san.value.general_names).filter_map(name).collect(),
            not_before: moment(certificate.validity().not_before.timestamp())?,
            not_after: moment(certificate.validity().not_after.timestamp())?,
            is_ca: certificate.is_ca(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
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
