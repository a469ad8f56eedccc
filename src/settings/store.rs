//! Where logins are kept: in the state folder's file, or in a PostgreSQL database.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Settings;
use super::parse::{ParseError, ParseResult};
use crate::base::diagnostic::{Diagnostic, Report};

/// The database that logins are kept in. Its address is no secret here: a password in it comes from
/// a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSettings {
    /// Its address, `postgres://USER@HOST/DATABASE`.
    pub address: Option<String>,
    /// The file with the address.
    pub address_file: Option<PathBuf>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// What happens to calls while this gateway cannot know what others revoked.
    pub stale: StaleStore,
}

/// What a gateway among several does with calls to tenants with a login once it has heard nothing of
/// its database for ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StaleStore {
    /// It refuses them: somebody may have been kept out meanwhile.
    #[default]
    Refuse,
    /// It serves them by what it knows.
    Serve,
}

impl StoreSettings {
    /// Returns whether there is a database.
    pub fn is_database(&self) -> bool {
        self.address.is_some() || self.address_file.is_some()
    }
}

/// Parses `file`, or the address of a database without its password.
pub(super) fn parse(text: &str) -> ParseResult<Option<String>> {
    if text == "file" {
        return Ok(None);
    }
    let refuse = |what: &str, help: &str| Err(ParseError { what: what.to_owned(), help: help.to_owned() });
    let Some((_, rest)) =
        text.split_once("://").filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme))
    else {
        let help = "write `file`, or postgres://USER@HOST/DATABASE";
        return refuse("neither `file` nor the address of a PostgreSQL database", help);
    };
    let login = rest.split('?').next().unwrap_or_default().rsplit_once('@').map(|(login, _)| login);
    if login.is_some_and(|login| login.contains(':')) || rest.contains("password=") {
        let help = "put the password into a file and name that in `store_password_file`, or put the whole \
                    address into a file and name that in `store_file`";
        return refuse("an address with a password, which others could read here", help);
    }
    Ok(Some(text.to_owned()))
}

/// Parses `refuse` or `serve`.
pub(super) fn parse_stale(text: &str) -> ParseResult<StaleStore> {
    match text {
        "refuse" => Ok(StaleStore::Refuse),
        "serve" => Ok(StaleStore::Serve),
        _ => {
            let (what, help) = ("neither `refuse` nor `serve`".to_owned(), "write one of the two".to_owned());
            Err(ParseError { what, help })
        }
    }
}

/// Reports settings of the store that contradict each other.
pub(super) fn check(settings: &Settings, report: &mut Report) {
    let StoreSettings { address, address_file, password_file, stale: _ } = &settings.store;
    if address.is_some() && address_file.is_some() {
        let message = "`store` and `store_file` both give the address of the database";
        report.push(Diagnostic::error("store-twice", message).help("keep one of the two"));
    }
    if password_file.is_some() && !settings.store.is_database() {
        let message = "`store_password_file` is set, but logins are kept in the state folder, which has no \
                       password";
        let help = "give the address of the database in `store`, or remove this setting";
        report.push(Diagnostic::error("password-without-store", message).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_password_here() {
        assert_eq!(parse("file").ok(), Some(None));
        let address = "postgres://tenantd@db.example:5433/logins?sslrootcert=/etc/ca.pem";
        assert_eq!(parse(address).ok(), Some(Some(address.to_owned())));
        for bad in ["", "mysql://h/x", "postgres://u:secret@h/x", "postgres://u@h/x?password=secret"] {
            let told = parse(bad).expect_err(bad).what;
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
