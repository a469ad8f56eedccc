//! The arguments of `tenantd certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{AdminAccessArgs, AdminArgs, QueryArgs, ServeArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd certs list
  tenantd certs show mcp.example.com
  tenantd certs renew mcp.example.com
  tenantd certs test mcp.example.com           a test order at the authority's staging, if it has one
  tenantd certs doctor --config tenantd.yaml   what prevents a certificate
  tenantd certs import fullchain.pem --key privkey.pem

Exit codes: 0 success, 1 there are findings, 2 the command could not run.";

/// The arguments of `tenantd certs`.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: CertsAction,
}

/// The commands below `tenantd certs`.
#[derive(Debug, Subcommand)]
pub enum CertsAction {
    /// List all certificates with their state and expiry.
    List {
        #[command(flatten)]
        query: CertsQueryArgs,
    },
    /// Show one certificate, and why it cannot be obtained or renewed.
    Show {
        /// The host name or address.
        name: String,
        #[command(flatten)]
        query: CertsQueryArgs,
    },
    /// Renew an automatic certificate now, and wait for the result.
    Renew {
        /// The host name or address.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Test whether a certificate can be obtained; nothing is kept or served.
    Test {
        /// The host name or address.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Check everything that can prevent a certificate.
    Doctor(Box<CertsDoctorArgs>),
    /// Check a certificate and its key, and put them into the certs folder for --tls manual.
    Import {
        /// The certificate with its chain (PEM); the file can also contain the key.
        #[arg(value_hint = ValueHint::FilePath)]
        certificate: PathBuf,
        /// The key, if it is in a separate file.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key: Option<PathBuf>,
        /// The certs folder [default: certs].
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        certs: Option<String>,
        /// The gateway's configuration file, to read the certs folder from.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
    },
}

/// What is asked of a running gateway, or of its certs folder, to be read.
#[derive(Debug, Args)]
pub struct CertsQueryArgs {
    /// The output format and the gateway to ask.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Read this certs folder instead of asking a gateway [default: the gateway's, if none
    /// answers].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub certs: Option<String>,
}

/// The arguments of `tenantd certs doctor`.
#[derive(Debug, Args)]
pub struct CertsDoctorArgs {
    /// The settings of the gateway.
    #[command(flatten)]
    pub settings: ServeArgs,
    /// What opens its admin listener.
    #[command(flatten)]
    pub access: AdminAccessArgs,
}
