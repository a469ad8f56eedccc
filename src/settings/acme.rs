//! The settings of automatic certificates: whom to ask, as whom, for what.

use std::path::PathBuf;

use super::TlsMode;
use crate::base::diagnostic::Diagnostic;
use crate::base::reach;
use crate::spec::HostName;

pub(super) const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub(super) const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// In a list of key ids or staging directories: this CA has none.
pub(super) const NONE: &str = "-";

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
    /// The URL of the directory where one may try without using up this CA's limits.
    pub staging: Option<String>,
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
    /// The CA of a directory, with the staging that it is known to have.
    fn of(directory: String) -> Self {
        let staging = (directory == LETS_ENCRYPT).then(|| LETS_ENCRYPT_STAGING.to_owned());
        Self { directory, staging, eab: None }
    }

    /// Where to try something out: staging, or itself where there is none.
    pub fn rehearsal(&self) -> Self {
        let directory = self.staging.as_ref().unwrap_or(&self.directory).clone();
        Self { directory, staging: None, eab: self.eab.clone() }
    }
}

impl Default for Acme {
    fn default() -> Self {
        let cas = vec![Ca::of(LETS_ENCRYPT.to_owned())];
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

/// Puts the CAs together with their staging directories: one for each in order, `-` where there is none.
pub(super) fn cas(directories: Vec<String>, stagings: Vec<String>) -> Result<Vec<Ca>, Box<Diagnostic>> {
    if stagings.len() > directories.len() {
        let (stagings, directories) = (stagings.len(), directories.len());
        let message = format!("there are {stagings} `acme_staging` for {directories} `acme_directory`");
        let help = "give at most one for each directory, in the same order, and `-` where a CA has none";
        return Err(Box::new(Diagnostic::error("acme-staging", message).help(help)));
    }
    let mut cas: Vec<Ca> = directories.into_iter().map(Ca::of).collect();
    for (ca, staging) in cas.iter_mut().zip(stagings) {
        ca.staging = (staging != NONE).then_some(staging);
    }
    Ok(cas)
}

/// Gives the CAs their external accounts: one for each in order, `-` where there is none.
pub(super) fn bind(cas: &mut [Ca], kids: Vec<String>, keys: Vec<PathBuf>) -> Result<(), Box<Diagnostic>> {
    if kids.len() != keys.len() || kids.len() > cas.len() {
        let message = format!(
            "there are {} `acme_eab_kid`, {} `acme_eab_key_file` and {} `acme_directory`, which do not fit",
            kids.len(),
            keys.len(),
            cas.len()
        );
        let help = "give a key id and a key file for each directory, in the same order, and `-` for both where a CA needs none";
        return Err(Box::new(Diagnostic::error("acme-eab", message).help(help)));
    }
    for (ca, (kid, key_file)) in cas.iter_mut().zip(kids.into_iter().zip(keys)) {
        ca.eab = (kid != NONE).then_some(Eab { kid, key_file });
    }
    Ok(())
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
        let mut two = cas(texts(&["https://a", "https://b"]), Vec::new()).expect("they fit");
        bind(&mut two, texts(&["-", "kid"]), vec!["-".into(), "key".into()]).expect("they fit");
        assert_eq!(two[0].eab, None);
        assert_eq!(two[1].eab, Some(Eab { kid: "kid".into(), key_file: "key".into() }));
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
