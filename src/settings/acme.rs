//! The settings of automatic certificates: whom to ask, as whom, for what.

use std::path::PathBuf;

use super::TlsMode;
use crate::base::diagnostic::Diagnostic;
use crate::base::reach;
use crate::spec::HostName;

pub(super) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub(super) const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// In a list of key ids: this CA has none.
const NONE: &str = "-";

/// How automatic certificates are obtained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// In the order they are asked; at least one.
    pub cas: Vec<Ca>,
    /// Mail addresses that a CA may write to.
    pub contact: Vec<String>,
    /// Whom to trust when talking to the CAs, instead of what the machine trusts.
    pub ca_root: Option<PathBuf>,
    /// The profile for names; addresses have their own.
    pub profile: Option<String>,
    /// Whether the operator agrees to the CAs' terms.
    pub accept_tos: bool,
}

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca {
    /// The URL of its ACME directory.
    pub directory: String,
    pub eab: Option<Eab>,
}

/// An account opened elsewhere, which the ACME account is tied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eab {
    pub kid: String,
    /// The file with the key, which is a secret and so no setting.
    pub key_file: PathBuf,
}

impl Ca {
    /// Where to try something out without using up this CA's limits; itself, if it is not known to have such a place.
    pub fn rehearsal_directory(&self) -> String {
        match self.directory.as_str() {
            LETS_ENCRYPT => LETS_ENCRYPT_STAGING.to_owned(),
            own => own.to_owned(),
        }
    }
}

impl Default for Acme {
    fn default() -> Self {
        let cas = vec![Ca { directory: LETS_ENCRYPT.to_owned(), eab: None }];
        Self { cas, contact: Vec::new(), ca_root: None, profile: None, accept_tos: false }
    }
}

impl Acme {
    /// Where certificates come from when nobody says: a CA, if there is something it would issue for and its terms are
    /// agreed to.
    pub(super) fn default_mode(&self, hosts: &[HostName]) -> TlsMode {
        match self.accept_tos && hosts.iter().any(is_public) {
            true => TlsMode::Acme,
            false => TlsMode::default(),
        }
    }
}

/// Puts the CAs together with their external accounts: one for each in order, `-` where there is none.
pub(super) fn cas(
    directories: Vec<String>,
    kids: Vec<String>,
    keys: Vec<PathBuf>,
) -> Result<Vec<Ca>, Box<Diagnostic>> {
    if kids.len() != keys.len() || kids.len() > directories.len() {
        let message = format!(
            "there are {} `acme_eab_kid`, {} `acme_eab_key_file` and {} `acme_directory`, which do not fit",
            kids.len(),
            keys.len(),
            directories.len()
        );
        let help = "give a key id and a key file for each directory, in the same order, and `-` for both where a CA needs none";
        return Err(Box::new(Diagnostic::error("acme-eab", message).help(help)));
    }
    let eabs =
        kids.into_iter().zip(keys).map(|(kid, key_file)| (kid != NONE).then_some(Eab { kid, key_file }));
    let eabs = eabs.chain(std::iter::repeat(None));
    Ok(directories.into_iter().zip(eabs).map(|(directory, eab)| Ca { directory, eab }).collect())
}

/// Whether a public authority might issue for a host.
pub(super) fn is_public(host: &HostName) -> bool {
    match host.address() {
        Some(address) => reach::is_global(address),
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
        let found =
            cas(texts(&["https://a", "https://b"]), texts(&["-", "kid"]), vec!["-".into(), "key".into()]);
        let found = found.expect("they fit");
        assert_eq!(found[0].eab, None);
        assert_eq!(found[1].eab, Some(Eab { kid: "kid".into(), key_file: "key".into() }));
        assert!(cas(texts(&["https://a"]), texts(&["kid"]), Vec::new()).is_err());
        assert!(cas(texts(&["https://a"]), texts(&["1", "2"]), vec!["1".into(), "2".into()]).is_err());
    }

    #[test]
    fn a_public_name_and_agreed_terms_make_certificates_automatic() {
        let host = |text| vec![HostName::parse(text).expect("a host")];
        let agreed = Acme { accept_tos: true, ..Acme::default() };
        for public in ["mcp.example.com", "8.8.8.8", "[2606:4700::1111]"] {
            assert_eq!(agreed.default_mode(&host(public)), TlsMode::Acme, "{public}");
            assert_eq!(Acme::default().default_mode(&host(public)), TlsMode::SelfSigned, "{public}");
        }
        for private in ["localhost", "127.0.0.1", "10.0.0.1", "[::1]"] {
            assert_eq!(agreed.default_mode(&host(private)), TlsMode::SelfSigned, "{private}");
        }
    }
}
