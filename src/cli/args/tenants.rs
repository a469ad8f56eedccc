//! The arguments of `tenantd tenants`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{AdminArgs, QueryArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd tenants list
  tenantd tenants show acme
  tenantd tenants add acme.zip
  tenantd tenants history acme
  tenantd tenants diff acme 3 4
  tenantd tenants rollback acme 3
  tenantd tenants list --format json --admin 127.0.0.1:9901";

/// The arguments of `tenantd tenants`.
#[derive(Debug, Args)]
pub struct TenantsArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: TenantsAction,
}

/// The commands below `tenantd tenants`.
#[derive(Debug, Subcommand)]
pub enum TenantsAction {
    /// List all tenants with their state and connector URL.
    List {
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Show one tenant with all findings about its files.
    Show {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// List the stored revisions of a tenant.
    History {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Compare two stored revisions, or a change that waits for approval with the one in force.
    ///
    /// Shows what of the tools' names, texts and schemas differs, and which lines of the files,
    /// with secrets blanked.
    Diff {
        /// The tenant's name, or the stem of its files.
        name: String,
        /// The older revision [default: the one before the newer].
        from: Option<u64>,
        /// The newer revision [default: the one in force].
        to: Option<u64>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Put a stored revision in force until the tenant's files change.
    Rollback {
        /// The tenant's name, or the stem of its files.
        name: String,
        /// The number of the revision, from `history`.
        revision: u64,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Stop serving a tenant, also after a restart, until `resume`.
    Pause {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Serve a paused tenant again.
    Resume {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Give a tenant the name, path or host that another tenant had when its files were refused.
    Accept {
        /// The stem of its files, or the tenant's name.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Put a change of a tenant's tools in force that waits for approval (hold_changes).
    Approve {
        /// The tenant's name, or the stem of its files.
        name: String,
        /// Approve only this change: the digest that `diff` shows.
        #[arg(long, value_name = "DIGEST")]
        digest: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Validate a file and put it into the tenants folder in one step.
    ///
    /// It is validated together with the tenant's files that are in the folder already: put an
    /// overlay or a .env there first.
    Add {
        /// The file. Its name decides to which tenant it belongs.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Add this file even if other files of the same tenant are beside it; they are not sent.
        #[arg(long)]
        alone: bool,
        /// Replace an existing file.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete a tenant's files and all its stored data.
    Remove {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Scan the whole tenants folder now.
    Reload {
        #[command(flatten)]
        admin: AdminArgs,
    },
}
