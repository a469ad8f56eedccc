//! The arguments of `tenantd keys`.

use clap::{Args, Subcommand};

use super::{AdminArgs, QueryArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd keys show acme
  tenantd keys rotate acme
  tenantd keys rotate acme --emergency         the key is in the wrong hands

Exit codes: 0 success, 1 the gateway refused, 2 the command could not run.";

/// The arguments of `tenantd keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: KeysAction,
}

/// The commands below `tenantd keys`.
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// List the published signing keys of a tenant with a login.
    Show {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Create a new signing key. It is published now and signs in one day, so that no user is
    /// affected.
    Rotate {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        /// Sign with it now and delete the old keys: every earlier access token is refused.
        #[arg(long)]
        emergency: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
}
