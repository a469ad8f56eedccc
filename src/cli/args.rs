//! The command line as clap parses it: commands, flags and help.
//!
//! Doc comments on clap types are help texts. Values of settings remain texts here; `settings`
//! validates them, so that flags, variables and lines of the file get the same messages.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;

mod admin;
mod admin_token;
mod apikey;
mod audit;
mod certs;
mod check;
mod clients;
mod demo;
mod doctor;
mod healthcheck;
mod keys;
mod logins;
mod migrate;
mod nodes;
mod notifications;
mod run;
mod serve;
mod settings;
mod slim;
mod store;
mod support_bundle;
mod tenants;
#[cfg(test)]
mod tests;
mod upgrade;
mod usage;

pub use admin::{AdminAccessArgs, AdminArgs, Format, QueryArgs};
pub use admin_token::{AdminTokenAction, AdminTokenArgs};
pub use apikey::{ApikeyAction, ApikeyArgs};
pub use audit::{AuditArgs, AuditFormat};
pub use certs::{CertsAction, CertsArgs, CertsDoctorArgs, CertsQueryArgs};
pub use check::CheckArgs;
pub use clients::{ClientsAction, ClientsArgs};
pub use demo::DemoArgs;
pub use doctor::{ClientKind, DoctorArgs};
pub use healthcheck::HealthArgs;
pub use keys::{KeysAction, KeysArgs};
pub use logins::{BlockPlaceArgs, LoginFilterArgs, LoginsAction, LoginsArgs};
pub use migrate::MigrateArgs;
pub use nodes::NodesArgs;
pub use notifications::{NotifyAction, NotifyArgs};
pub use run::RunArgs;
pub use serve::ServeArgs;
pub use settings::{GatewayArgs, ValidationArgs};
pub use slim::SlimArgs;
pub use store::{StoreAction, StoreArgs, StoreDatabaseArgs, StoreLocationArgs};
pub use support_bundle::SupportBundleArgs;
pub use tenants::{TenantsAction, TenantsArgs};
pub use upgrade::UpgradeArgs;
pub use usage::{UsageArgs, UsageFormat};

/// Serves many tenants' MCP servers from one machine and one public IP.
#[derive(Debug, Parser)]
#[command(name = "tenantd", version, max_term_width = 100, after_help = TOP_EXAMPLES)]
pub struct Arguments {
    /// The command to run.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The commands of `tenantd`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the gateway.
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Serve one tenant from its export, as the vendor's run.sh and image do.
    #[command(after_help = run::EXAMPLES)]
    Run(Box<RunArgs>),
    /// Do in a container what is there to do: run for one tenant, else serve.
    #[command(after_help = serve::CONTAINER_EXAMPLES)]
    Container,
    /// Validate tenants' files without serving them.
    #[command(after_help = check::EXAMPLES)]
    Check(CheckArgs),
    /// Examine from outside in why clients do not connect.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Box<DoctorArgs>),
    /// Collect what others need to help, without secrets, into one archive.
    #[command(after_help = support_bundle::EXAMPLES)]
    SupportBundle(Box<SupportBundleArgs>),
    /// Turn an old installation of the vendor's servers into tenants' files.
    #[command(after_help = migrate::EXAMPLES)]
    Migrate(Box<MigrateArgs>),
    /// Keep of an export only what is read, for Kubernetes Secrets.
    #[command(after_help = slim::EXAMPLES)]
    Slim(SlimArgs),
    /// Show or change the tenants of a running gateway.
    #[command(after_help = tenants::EXAMPLES)]
    Tenants(TenantsArgs),
    /// Show the gateways that share a database, and the tenants that differ between them.
    #[command(after_help = nodes::EXAMPLES)]
    Nodes(NodesArgs),
    /// Check, back up or restore the store in the state folder.
    #[command(after_help = store::EXAMPLES)]
    Store(StoreArgs),
    /// Show, check, renew or import certificates.
    #[command(after_help = certs::EXAMPLES)]
    Certs(CertsArgs),
    /// Show or change the keys with which a tenant signs access tokens.
    #[command(after_help = keys::EXAMPLES)]
    Keys(KeysArgs),
    /// Add or remove applications that need a client id and secret at a tenant with login.
    #[command(after_help = clients::EXAMPLES)]
    Clients(ClientsArgs),
    /// Show or end people's logins at tenants, or keep people out.
    #[command(after_help = logins::EXAMPLES)]
    Logins(LoginsArgs),
    /// Print what was used: calls, errors, seconds and bytes.
    #[command(after_help = usage::EXAMPLES)]
    Usage(UsageArgs),
    /// Print lines of the audit: who did what.
    #[command(after_help = audit::EXAMPLES)]
    Audit(AuditArgs),
    /// Create API keys for callers of a tenant.
    #[command(after_help = apikey::EXAMPLES)]
    Apikey(ApikeyArgs),
    /// Show who is told of trouble, or test that it arrives.
    #[command(after_help = notifications::EXAMPLES)]
    Notify(NotifyArgs),
    /// Create tokens with which the admin listener is used from other machines.
    #[command(after_help = admin_token::EXAMPLES)]
    AdminToken(AdminTokenArgs),
    /// Go over to a new version of the program without a failed call.
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(UpgradeArgs),
    /// Ask a running gateway whether it is alive; for containers.
    #[command(after_help = healthcheck::EXAMPLES)]
    Healthcheck(HealthArgs),
    /// Run a gateway with two sample tenants on this machine.
    #[command(after_help = demo::EXAMPLES)]
    Demo(DemoArgs),
    /// Print the shell completions.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a folder; for packages.
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The folder; it is created if it is missing.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

const TOP_EXAMPLES: &str = "\
Examples:
  tenantd demo                                 see it work, with sample data
  tenantd serve --host mcp.example.com         serve the tenants in tenants.d
  tenantd run /opt/tursio-mcp                  serve one export, as its run.sh does
  tenantd check tenants.d                      find out what is wrong with a file
  tenantd tenants list                         show the served tenants

Exit codes: 0 success, 1 there are findings, 2 the command could not run.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tenantd completions bash > /etc/bash_completion.d/tenantd
  tenantd completions zsh > ~/.zfunc/_tenantd";

const MAN_EXAMPLES: &str = "\
Examples:
  tenantd man /usr/local/share/man/man1";
