//! How the admin listener of a running gateway is reached, and how its answer is printed.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// What is asked of a running gateway to be read.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// The output format.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The admin listener to connect to.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What opens the admin listener of the gateway's settings.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminAccessArgs {
    /// A file with the token for the admin listener [default: the variable TENANTD_ADMIN_TOKEN, or
    /// none].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub admin_token_file: Option<PathBuf>,
    /// The certificate of the authority that the admin listener's TLS must be from (PEM) [default:
    /// what this machine trusts].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub admin_ca: Option<PathBuf>,
}

/// Where a running gateway's admin listener is.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The gateway's admin address, or https://NAME:PORT [default: 127.0.0.1:9900].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// A file with the token for it [default: the variable TENANTD_ADMIN_TOKEN, or none].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub admin_token_file: Option<PathBuf>,
    /// The certificate of the authority that its TLS must be from (PEM) [default: what this machine
    /// trusts].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub admin_ca: Option<PathBuf>,
    /// The gateway's configuration file, to read the admin address from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl AdminArgs {
    /// Returns what opens the listener.
    pub(in crate::cli) fn access(&self) -> AdminAccessArgs {
        AdminAccessArgs { admin_token_file: self.admin_token_file.clone(), admin_ca: self.admin_ca.clone() }
    }
}

/// For whom something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
}
