//! The settings of ACME: the CAs, the accounts and the profile.

use std::path::PathBuf;

use super::TlsMode;
use crate::base::diagnostic::Diagnostic;
use crate::base::net;
use crate::spec::HostName;

pub(super) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub(super) const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Stands for "none" in lists that run parallel to the list of CAs.
pub(super) const NONE: &str = "-";

/// How certificates are obtained over ACME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The CAs in the order in which they are tried, at least one.
    pub cas: Vec<Ca>,
    /// Mail addresses for the CA accounts.
    pub contact: Vec<String>,
    /// CA certificates to trust for connections to the CAs, in place of the machine's.
    pub ca_root: Option<PathBuf>,
    /// The ACME profile for DNS names; IP addresses have their own.
    pub profile: Option<String>,
    /// Whether the operator accepts the CAs' terms of service.
    pub accept_tos: bool,
}

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca {
    /// The URL of its ACME directory.
    pub directory: String,
    /// The URL of its staging directory, which does not count against its rate limits.
    pub staging: Option<String>,
    /// The external account to bind to, if the CA requires one.
    pub eab: Option<ExternalAccount>,
}

/// An external account binding (RFC 8555 section 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key identifier that the CA issued.
    pub kid: String,
    /// The file of the MAC key, which is a secret and therefore not a setting.
    pub key_file: PathBuf,
}

impl Ca {
    /// Creates the CA of a directory, with its well-known staging directory, if any.
    fn from_directory(directory: String) -> Self {
        let staging = (directory == LETS_ENCRYPT).then(|| LETS_ENCRYPT_STAGING.to_owned());
        Self { directory, staging, eab: None }
    }

    /// Returns the CA to use for dry runs: its staging, or itself if it has none.
    pub fn to_staging(&self) -> Self {
        let directory = self.staging.as_ref().unwrap_or(&self.directory).clone();
        Self { directory, staging: None, eab: self.eab.clone() }
    }
}

impl Default for AcmeSettings {
    fn default() -> Self {
        let cas = vec![Ca::from_directory(LETS_ENCRYPT.to_owned())];
        Self { cas, contact: Vec::new(), ca_root: None, profile: None, accept_tos: false }
    }
}

impl AcmeSettings {
    /// Returns the default TLS mode: ACME if a host is public and the CAs' terms are accepted.
    pub(super) fn default_mode(&self, hosts: &[HostName]) -> TlsMode {
        match self.accept_tos && hosts.iter().any(is_public) {
            true => TlsMode::Acme,
            false => TlsMode::default(),
        }
    }
}

/// Pairs the CAs with their staging directories by position; `-` stands for none.
pub(super) fn cas(directories: Vec<String>, stagings: Vec<String>) -> Result<Vec<Ca>, Box<Diagnostic>> {
    if stagings.len() > directories.len() {
        let (stagings, directories) = (stagings.len(), directories.len());
        let message = format!(
            "there are {stagings} `acme_staging` values for {directories} `acme_directory` \
                               values"
        );
        let help = "give at most one for each directory, in the same order, and `-` for a CA without one";
        return Err(Box::new(Diagnostic::error("acme-staging", message).help(help)));
    }
    let mut cas: Vec<Ca> = directories.into_iter().map(Ca::from_directory).collect();
    for (ca, staging) in cas.iter_mut().zip(stagings) {
        ca.staging = (staging != NONE).then_some(staging);
    }
    Ok(cas)
}

/// Pairs the CAs with their external accounts by position; `-` stands for none.
pub(super) fn bind(cas: &mut [Ca], kids: Vec<String>, keys: Vec<PathBuf>) -> Result<(), Box<Diagnostic>> {
    if kids.len() != keys.len() || kids.len() > cas.len() {
        let message = format!(
            "there are {} `acme_eab_kid`, {} `acme_eab_key_file` and {} `acme_directory` values, which do \
             not match",
            kids.len(),
            keys.len(),
            cas.len()
        );
        let help = "give a key id and a key file for each directory, in the same order, and `-` for both if \
                    a CA needs none";
        return Err(Box::new(Diagnostic::error("acme-eab", message).help(help)));
    }
    for (ca, (kid, key_file)) in cas.iter_mut().zip(kids.into_iter().zip(keys)) {
        ca.eab = (kid != NONE).then_some(ExternalAccount { kid, key_file });
    }
    Ok(())
}

/// Whether a public CA may issue certificates for a host.
pub(super) fn is_public(host: &HostName) -> bool {
    match host.ip_address() {
        Some(address) => net::is_global(address),
        None => host.as_str().contains('.') && !host.as_str().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn external_accounts_belong_to_cas_by_their_order() {
        let mut two = cas(texts(&["https://a", "https://b"]), Vec::new()).expect("they fit");
        bind(&mut two, texts(&["-", "kid"]), vec!["-".into(), "key".into()]).expect("they fit");
        assert_eq!(two[0].eab, None);
        assert_eq!(two[1].eab, Some(ExternalAccount { kid: "kid".into(), key_file: "key".into() }));
        let mut one = cas(texts(&["https://a"]), Vec::new()).expect("they fit");
        assert!(bind(&mut one, texts(&["kid"]), Vec::new()).is_err());
        assert!(bind(&mut one, texts(&["1", "2"]), vec!["1".into(), "2".into()]).is_err());
    }

    #[test]
    fn staging_is_known_of_one_ca_and_said_of_others() {
        let stagings = |directories: &[&str], said: &[&str]| {
            let cas = cas(texts(directories), texts(said)).expect("they fit");
            cas.into_iter().map(|ca| ca.staging).collect::<Vec<_>>()
        };
        let theirs = Some(LETS_ENCRYPT_STAGING.to_owned());
        assert_eq!(stagings(&[LETS_ENCRYPT, "https://a"], &[]), [theirs.clone(), None]);
        assert_eq!(stagings(&[LETS_ENCRYPT], &["-"]), [None]);
        assert_eq!(
            stagings(&["https://a", LETS_ENCRYPT], &["https://b"]),
            [Some("https://b".into()), theirs]
        );
        assert!(cas(texts(&["https://a"]), texts(&["https://b", "-"])).is_err());
    }

    #[test]
    fn a_public_name_and_agreed_terms_make_certificates_automatic() {
        let host = |text| vec![HostName::parse(text).expect("a host")];
        let agreed = AcmeSettings { accept_tos: true, ..AcmeSettings::default() };
        for public in ["mcp.example.com", "8.8.8.8", "[2606:4700::1111]"] {
            assert_eq!(agreed.default_mode(&host(public)), TlsMode::Acme, "{public}");
            assert_eq!(AcmeSettings::default().default_mode(&host(public)), TlsMode::SelfSigned, "{public}");
        }
        for private in ["localhost", "127.0.0.1", "10.0.0.1", "[::1]"] {
            assert_eq!(agreed.default_mode(&host(private)), TlsMode::SelfSigned, "{private}");
        }
    }
}
