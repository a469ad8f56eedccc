//! The arguments of `tenantd apikey`.

use clap::{Args, Subcommand};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd apikey new
  tenantd apikey new --label nightly-report --expires 2027-01-31
  tenantd apikey new --machine teams-agent     a program, for a tenant with a login";

/// The arguments of `tenantd apikey`.
#[derive(Debug, Args)]
pub struct ApikeyArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: ApikeyAction,
}

/// The commands below `tenantd apikey`.
#[derive(Debug, Subcommand)]
pub enum ApikeyAction {
    /// Create a new key and the lines for the tenant's file. The key is printed only once.
    #[command(after_help = EXAMPLES)]
    New {
        /// The label of the key's holder in logs.
        #[arg(long, value_name = "TEXT", default_value = "caller")]
        label: String,
        /// When the key expires: a date (2027-01-31) or a time (2027-01-31T12:00:00Z).
        #[arg(long, value_name = "WHEN", conflicts_with = "machine")]
        expires: Option<String>,
        /// Create the secret of a program instead, for a tenant with a login: its id. The lines are
        /// then `machine_clients:`.
        #[arg(long, value_name = "ID")]
        machine: Option<String>,
    },
}
