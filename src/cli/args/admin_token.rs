//! The arguments of `tenantd admin-token`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd admin-token new --name ann --role operate
  tenantd admin-token new --name wallboard --role read --expires 2027-01-31
  tenantd admin-token check /etc/tenantd/admin-tokens.yaml

Exit codes: 0 success, 1 the file is wrong, 2 the command could not run.";

/// The arguments of `tenantd admin-token`.
#[derive(Debug, Args)]
pub struct AdminTokenArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: AdminTokenAction,
}

/// The commands below `tenantd admin-token`.
#[derive(Debug, Subcommand)]
pub enum AdminTokenAction {
    /// Create a token, and the lines for the file that admin_auth names.
    New {
        /// Whose it is; the audit names it.
        #[arg(long)]
        name: String,
        /// What its holder may do: read, or operate (change things, too).
        #[arg(long, value_parser = ["read", "operate"])]
        role: String,
        /// The date or time at which it ends: 2027-01-31, 2027-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List the tokens of a file, or say what is wrong with it.
    Check {
        /// The file that admin_auth names.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}
