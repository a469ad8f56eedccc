//! The settings of access to the admin listener.

use std::path::PathBuf;

use super::parse::{ParseError, ParseResult};
use crate::spec::HostName;

/// Who may use the admin listener from elsewhere, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdminAccess {
    /// The file of tokens (`admin_auth`). Without it there is no login, and other machines only
    /// read.
    pub tokens: Option<PathBuf>,
    /// The names by which the listener is reached, besides addresses and `localhost`.
    pub hosts: Vec<HostName>,
    /// Whose certificate it has; `None` if nothing is said, which is plain HTTP.
    pub tls: Option<AdminTls>,
}

/// The source of the admin listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminTls {
    /// Plain HTTP, on purpose: a proxy in front ends TLS.
    Off,
    /// The gateway's certificates.
    Gateway,
    /// Two PEM files.
    Files {
        /// The certificate and its chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

impl AdminTls {
    /// Reads one word or two files. `paths` are the texts, resolved.
    pub(super) fn parse(texts: &[String], paths: &[PathBuf]) -> ParseResult<Self> {
        match (texts, paths) {
            ([one], _) if one == "off" => Ok(Self::Off),
            ([one], _) if one == "gateway" => Ok(Self::Gateway),
            ([_, _], [certificate, key]) => {
                Ok(Self::Files { certificate: certificate.clone(), key: key.clone() })
            }
            _ => Err(ParseError {
                what: format!("{texts:?} is neither a mode nor two files"),
                help: "write `gateway`, `off`, or the files of certificate and key: `[cert.pem, key.pem]`"
                    .to_owned(),
            }),
        }
    }
}
