//! The arguments of `tenantd clients`.

use clap::{Args, Subcommand};

use super::{AdminArgs, QueryArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd clients add acme --name \"Copilot Studio\" --redirect-uri https://global.consent.azure-apim.net/redirect/…
  tenantd clients list acme
  tenantd clients remove acme op_0123456789abcdef
  tenantd clients refresh                      are the vendors' documents still the same?

Most applications register themselves and need none of this.

Exit codes: 0 success, 1 the gateway refused or something differs, 2 the command could not run.";

/// The arguments of `tenantd clients`.
#[derive(Debug, Args)]
pub struct ClientsArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: ClientsAction,
}

/// The commands below `tenantd clients`.
#[derive(Debug, Subcommand)]
pub enum ClientsAction {
    /// Create a client id, and a secret unless the client is public.
    Add {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        /// The name that people see.
        #[arg(long)]
        name: String,
        /// A redirect URI, exactly as the application sends it; repeatable.
        #[arg(long, value_name = "URI", required = true)]
        redirect_uri: Vec<String>,
        /// The application cannot keep a secret, for instance on people's computers.
        #[arg(long)]
        public: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List the clients that were added.
    List {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Remove a client, or block one that registered itself; its logins end at once.
    Remove {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        client_id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Compare the vendors' documents in this program with the ones that the vendors publish. Needs
    /// internet access, but no gateway.
    Refresh,
}
