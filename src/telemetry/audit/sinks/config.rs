//! What the settings say of a sink.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use url::Url;

use crate::base::tls_client::ClientIdentity;

/// A receiver of audit lines beside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    /// Its name in metrics, the log and the state folder; no other sink has it.
    pub name: String,
    /// Where lines are sent, and how.
    pub channel: ChannelConfig,
    /// How much waits on the disk for a receiver that takes nothing.
    pub spool_bytes: u64,
}

/// How lines are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelConfig {
    /// Messages of RFC 5424.
    Syslog(SyslogConfig),
    /// POST requests with lines of JSON.
    Http(HttpConfig),
}

/// A receiver of syslog messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Where it is.
    pub address: SyslogAddress,
    /// The facility of all messages (RFC 5424 section 6.2.1).
    pub facility: Facility,
    /// The APP-NAME of all messages.
    pub app_name: String,
}

/// Where a syslog receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A datagram for each message (RFC 5426).
    Udp(HostPort),
    /// Octet counting over TCP (RFC 6587 section 3.4.1).
    Tcp(HostPort),
    /// Octet counting over TLS (RFC 5425).
    Tls {
        /// Where it is.
        receiver: HostPort,
        /// Whom its certificate has to come from, instead of those that this machine trusts.
        ca_file: Option<PathBuf>,
        /// What the gateway proves itself by.
        identity: Option<ClientIdentity>,
    },
    /// A datagram socket of this machine.
    Unix(PathBuf),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A syslog facility, by its name in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility {
    /// The name.
    pub name: &'static str,
    /// The number.
    pub number: u8,
}

/// A receiver of POST requests.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it is.
    pub url: Url,
    /// The file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// The file with the keys that sign requests, one a line.
    pub secret_file: Option<PathBuf>,
    /// Whom its certificate has to come from, instead of those that this machine trusts.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for HttpConfig {
    /// Leaves out all of the URL that may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("url", &self.url.origin().ascii_serialization())
            .field("token_file", &self.token_file)
            .field("secret_file", &self.secret_file)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

impl Facility {
    /// The facilities that a program like this may use.
    pub const ALL: [Self; 13] = [
        Self::new("user", 1),
        Self::new("daemon", 3),
        Self::new("auth", 4),
        Self::AUTHPRIV,
        Self::new("audit", 13),
        Self::new("local0", 16),
        Self::new("local1", 17),
        Self::new("local2", 18),
        Self::new("local3", 19),
        Self::new("local4", 20),
        Self::new("local5", 21),
        Self::new("local6", 22),
        Self::new("local7", 23),
    ];
    /// Security and authorization, for readers with rights: what an audit is.
    pub const AUTHPRIV: Self = Self::new("authpriv", 10);

    const fn new(name: &'static str, number: u8) -> Self {
        Self { name, number }
    }

    /// Returns the facility with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|facility| facility.name == name)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(receiver) => write!(f, "udp://{receiver}"),
            Self::Tcp(receiver) => write!(f, "tcp://{receiver}"),
            Self::Tls { receiver, .. } => write!(f, "tls://{receiver}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ChannelConfig {
    /// Leaves out all of a URL that may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syslog(syslog) => syslog.address.fmt(f),
            Self::Http(http) => f.write_str(&http.url.origin().ascii_serialization()),
        }
    }
}
