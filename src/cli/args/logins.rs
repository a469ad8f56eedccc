//! The arguments of `tenantd logins`.

use clap::{Args, Subcommand};

use super::{AdminArgs, QueryArgs};

/// The arguments of `tenantd logins`.
#[derive(Debug, Args)]
pub struct LoginsArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: LoginsAction,
}

/// The commands below `tenantd logins`.
#[derive(Debug, Subcommand)]
pub enum LoginsAction {
    /// List who is logged in, with which client, since when.
    List {
        #[command(flatten)]
        filter: LoginFilterArgs,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// End logins: tokens, calls and streams are over at once.
    End {
        /// The id of one login, as `list` shows it.
        #[arg(conflicts_with_all = ["tenant", "person", "client"])]
        id: Option<String>,
        #[command(flatten)]
        filter: LoginFilterArgs,
        /// End all logins at all tenants.
        #[arg(long, conflicts_with_all = ["id", "tenant", "person", "client"])]
        all: bool,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Keep a person out until unblocked, and end the person's logins.
    Block {
        /// A user name, an address, the account's object id, or DIRECTORY/ID.
        person: String,
        #[command(flatten)]
        place: BlockPlaceArgs,
        /// The reason, for operators; the person does not see it.
        #[arg(long)]
        reason: Option<String>,
        /// When the block ends by itself: a last day in UTC (2027-01-31) or a time
        /// (2027-01-31T12:00:00Z).
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Let a person in again, who then logs in again.
    Unblock {
        /// The block's id, or the person as in `block`.
        person: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List the blocks.
    Blocks {
        #[command(flatten)]
        query: QueryArgs,
    },
}

/// Which logins are meant.
#[derive(Debug, Args)]
pub struct LoginFilterArgs {
    /// The tenant's name.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// A user name, an address, the account's object id, or DIRECTORY/ID.
    #[arg(long)]
    pub person: Option<String>,
    /// The client's name or id.
    #[arg(long)]
    pub client: Option<String>,
}

/// Where a person is kept out.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct BlockPlaceArgs {
    /// Keep the person out of this tenant.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Keep the person out of all tenants.
    #[arg(long)]
    pub all_tenants: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd logins list
  tenantd logins list --tenant acme --person ada@contoso.com
  tenantd logins end --client Claude --tenant acme
  tenantd logins end 0123456789abcdef0123456789abcdef
  tenantd logins block ada@contoso.com --all-tenants --reason \"laptop stolen\"
  tenantd logins blocks
  tenantd logins unblock ada@contoso.com

`tenantd clients remove` keeps out a client.

Exit codes: 0 success, 1 the gateway refused, 2 the command could not run.";
