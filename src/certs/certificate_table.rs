//! The table of certificates: which certificate serves which name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;

use super::server_certificate::ServerCertificate;

/// A consistent set of certificates. The first one is the default, for names without a certificate
/// and for clients without SNI, such as those that connect by address.
#[derive(Debug, Default)]
pub(super) struct CertificateTable {
    certificates: Vec<Arc<ServerCertificate>>,
    /// Exact names and IP addresses.
    exact: HashMap<String, usize>,
    /// Parents of wildcards: `example.com` for `*.example.com`.
    wildcard: HashMap<String, usize>,
}

impl CertificateTable {
    /// Builds the table. Of several certificates for one name the one that expires last is served,
    /// and a stopgap only if there is no other.
    pub(super) fn new(certificates: Vec<Arc<ServerCertificate>>) -> Self {
        let mut table = Self { certificates, ..Self::default() };
        for (index, certificate) in table.certificates.iter().enumerate() {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.wildcard, parent),
                    None => (&mut table.exact, name.as_str()),
                };
                match map.entry(name.to_owned()) {
                    Entry::Vacant(vacant) => _ = vacant.insert(index),
                    Entry::Occupied(mut occupied) => {
                        if preference(certificate) > preference(&table.certificates[*occupied.get()]) {
                            occupied.insert(index);
                        }
                    }
                }
            }
        }
        table
    }

    /// Returns all certificates, the default first.
    pub(super) fn certificates(&self) -> &[Arc<ServerCertificate>] {
        &self.certificates
    }

    /// Returns the certificate for an SNI value, or, without one, for the address of ours that the
    /// client connected to.
    pub(super) fn select(&self, sni: Option<&str>, address: Option<IpAddr>) -> Option<Arc<CertifiedKey>> {
        self.find_for(sni, address).map(|certificate| certificate.certified_key.clone())
    }

    /// Returns whether [`CertificateTable::select`] would return a stopgap.
    pub(super) fn is_placeholder(&self, sni: Option<&str>, address: Option<IpAddr>) -> bool {
        self.find_for(sni, address).is_some_and(|certificate| certificate.is_placeholder)
    }

    fn find_for(&self, sni: Option<&str>, address: Option<IpAddr>) -> Option<&ServerCertificate> {
        let index = match (sni, address) {
            (Some(name), _) => self.find_index(name),
            (None, address) => address.and_then(|address| self.find_index(&address.to_string())),
        };
        let index = index.unwrap_or(0);
        self.certificates.get(index).map(|certificate| &**certificate)
    }

    fn find_index(&self, name: &str) -> Option<usize> {
        let name = to_lowercase(name);
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name.as_ref()).or_else(parent).copied()
    }
}

fn preference(certificate: &ServerCertificate) -> (bool, Timestamp) {
    (!certificate.is_placeholder, certificate.not_after)
}

fn to_lowercase(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}
