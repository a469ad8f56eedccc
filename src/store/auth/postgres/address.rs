//! The address of a database: `postgres://USER@HOST[:PORT]/DATABASE[?OPTION=VALUE…]`, with the
//! options of libpq that the client library knows, and two more: `sslmode` and `sslrootcert`. TLS
//! is on and verified unless `sslmode=disable` says otherwise, or the host is a Unix socket's
//! folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::Error;
use crate::base::disk;
use crate::base::error_chain::format_chain;
use crate::base::secret::Secret;
use crate::base::tls_client;

/// How long a connection may take to come about. One whose first packet was lost is asked for again by
/// the system after 1, 3 and 7 seconds only, so a new attempt is sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the server's machine may leave unconfirmed what was sent. Without it, what was sent into a
/// network that was cut arrives long after that is whole again.
const UNCONFIRMED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long nothing is heard of a connection, such as one that listens, before the system asks whether
/// it still is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// A password or address is short.
const MAX_SECRET_FILE_BYTES: u64 = 4096;

/// The address of a database, and how to log in there.
#[derive(Clone)]
pub struct PostgresAddress {
    pub(super) config: Config,
    /// `None` if the connection is not encrypted.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The address without secrets.
    pub(super) shown: String,
}

impl PostgresAddress {
    /// Parses an address, and reads the files that belong to it.
    ///
    /// # Errors
    /// [`Error::Address`] for a text that is none, [`Error::File`] for a file that cannot be read.
    pub fn parse(text: &str, password_file: Option<&Path>) -> Result<Self, Error> {
        let shown = hide_password(text);
        let refuse = |what: String| Error::Address { shown: shown.clone(), what };
        let (base, options) = text.trim().split_once('?').unwrap_or((text.trim(), ""));
        if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
            return Err(refuse("it does not begin with postgres://".to_owned()));
        }
        let (mut is_tls, mut ca_file, mut rest) = (true, None, Vec::new());
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", "disable")) => is_tls = false,
                // Each of them is verified: whoever asks for less gets more.
                Some(("sslmode", "require" | "verify-ca" | "verify-full")) => {}
                Some(("sslmode", other)) => {
                    return Err(refuse(format!(
                        "sslmode={other} would do without TLS; leave it out or say disable"
                    )));
                }
                Some(("sslrootcert", path)) => ca_file = Some(decode_path(path)),
                _ => rest.push(option),
            }
        }
        let text = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let parsed = text.parse().map_err(|error: tokio_postgres::Error| refuse(format_chain(&error)));
        let mut config: Config = parsed?;
        if config.get_hosts().is_empty() {
            return Err(refuse("it names no host".to_owned()));
        }
        if config.get_user().is_none() {
            return Err(refuse("it names no user".to_owned()));
        }
        if let Some(path) = password_file {
            config.password(read_secret("the password of the database,", path)?.expose());
        }
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let tls = match is_tls && !is_local {
            true => Some(Arc::new(tls_client::config(ca_file.as_deref()).map_err(Error::Tls)?)),
            false => None,
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.application_name("tenantd").connect_timeout(CONNECT_TIMEOUT);
        config.tcp_user_timeout(UNCONFIRMED_TIMEOUT);
        config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
        Ok(Self { config, tls, shown })
    }

    /// Reads the address from a file, which only its owner may read.
    ///
    /// # Errors
    /// As for [`PostgresAddress::parse`].
    pub fn read(file: &Path, password_file: Option<&Path>) -> Result<Self, Error> {
        Self::parse(read_secret("the address of the database,", file)?.expose(), password_file)
    }

    /// Returns the address without secrets.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl std::fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresAddress").field(&self.shown).finish()
    }
}

/// Returns the address without its options and its password.
fn hide_password(text: &str) -> String {
    let base = text.trim().split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = base.split_once("://") else { return "…".to_owned() };
    let shown = match rest.rsplit_once('@') {
        Some((login, place)) => format!("{}@{place}", login.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    format!("{scheme}://{shown}")
}

fn decode_path(text: &str) -> PathBuf {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned().into()
}

/// Reads a file with a secret; others must not be able to read it.
fn read_secret(what: &'static str, path: &Path) -> Result<Secret, Error> {
    use std::os::unix::fs::MetadataExt;
    let refuse = |cause: String| Error::File { what, path: path.to_owned(), cause };
    let (file, about) = disk::open(path).map_err(|error| refuse(error.into_io().to_string()))?;
    // A mounted Secret belongs to root and may be readable for the gateway's group.
    let others = about.mode() & 0o077;
    if others != 0 && !(about.uid() == 0 && others & !0o040 == 0) {
        let mode = about.mode() & 0o7777;
        return Err(refuse(format!("other users can read it (mode {mode:04o}); chmod 600 it")));
    }
    let bytes = disk::read_contents(&file, &about, MAX_SECRET_FILE_BYTES)
        .map_err(|error| refuse(error.into_io().to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not text".to_owned()))?;
    Ok(Secret::new(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresAddress, Error> {
        PostgresAddress::parse(text, None)
    }

    #[test]
    fn an_address_is_verified_by_tls_unless_it_says_otherwise() {
        let mode = |text: &str| parse(text).expect(text).config.get_ssl_mode();
        for text in ["postgres://u@db.example/x", "postgresql://u@db.example/x?sslmode=require"] {
            assert_eq!(mode(text), SslMode::Require, "{text}");
        }
        assert_eq!(mode("postgres://u@db.example/x?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://u@%2Frun%2Fpostgresql/x"), SslMode::Disable, "a socket");
    }

    #[test]
    fn a_faulty_address_is_refused_without_its_password() {
        for (text, part) in [
            ("mysql://u:canary@h/x", "postgres://"),
            ("postgres://u:canary@h/x?sslmode=prefer", "sslmode=prefer"),
            ("postgres://u:canary@h/x?colour=red", "colour"),
            ("postgres://h/x?password=canary", "no user"),
            ("postgres://u:canary@h/x?sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ] {
            let told = parse(text).expect_err(text).to_string();
            assert!(told.contains(part) && !told.contains("canary"), "{text}: {told}");
        }
    }

    #[test]
    fn a_password_comes_from_a_file_that_nobody_else_reads() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "canary\n").expect("written");
        let set = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
        set(0o644).expect("changed");
        let told = PostgresAddress::parse("postgres://u@h/x", Some(&file)).expect_err("open").to_string();
        assert!(told.contains("chmod 600"), "{told}");
        set(0o600).expect("changed");
        let address = PostgresAddress::parse("postgres://u@h/x", Some(&file)).expect("read");
        assert_eq!(address.config.get_password(), Some(&b"canary"[..]));
        assert!(!format!("{address:?}").contains("canary"));
    }
}
