//! The command line as clap parses it: commands, flags and help.
//!
//! Doc comments on clap types are help texts. Values of settings remain texts here; `settings`
//! validates them, so that flags, variables and lines of the file get the same messages.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

mod settings;
#[cfg(test)]
mod tests;

pub use settings::{GatewayArgs, ValidationArgs};

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
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Judge tenants' files without serving them.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Ask a running gateway about its tenants, or change them.
    #[command(after_help = TENANTS_EXAMPLES)]
    Tenants(TenantsArgs),
    /// Check, copy or bring back what is kept in the state folder.
    #[command(after_help = STORE_EXAMPLES)]
    Store(StoreArgs),
    /// See to the certificates.
    #[command(after_help = CERTS_EXAMPLES)]
    Certs(CertsArgs),
    /// See or change the keys with which a tenant signs access tokens.
    #[command(after_help = KEYS_EXAMPLES)]
    Keys(KeysArgs),
    /// Enter applications at a tenant with a login that want a client id and secret, or shut them
    /// out.
    #[command(after_help = CLIENTS_EXAMPLES)]
    Clients(ClientsArgs),
    /// Make keys that callers of a tenant present.
    #[command(after_help = APIKEY_EXAMPLES)]
    Apikey(ApikeyArgs),
    /// Ask a running gateway whether it is well; for containers.
    #[command(after_help = HEALTH_EXAMPLES)]
    Healthcheck(HealthArgs),
    /// Run a gateway with two sample tenants on this machine.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Print the completions for a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell to print them for.
        shell: Shell,
    },
}

/// The arguments of `tenantd serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The settings that decide how tenants are validated.
    #[command(flatten)]
    pub validation: ValidationArgs,
    /// The settings of a running gateway.
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

/// The arguments of `tenantd check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Tenants' files or folders of them; the tenants folder if none is given.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Also call each backend with a sample question, and say what it answered.
    #[arg(long)]
    pub live: bool,
    /// How many seconds each call of --live may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print only the tenants with errors.
    #[arg(long, short)]
    pub quiet: bool,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The settings that decide how tenants are validated.
    #[command(flatten)]
    pub validation: ValidationArgs,
}

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
        question: QueryArgs,
    },
    /// Show one tenant with everything that was found about its files.
    Show {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        question: QueryArgs,
    },
    /// List the kept revisions of a tenant.
    History {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        question: QueryArgs,
    },
    /// Compare two kept revisions line by line, secrets blanked.
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
    /// Put a kept revision in force until the tenant's files change.
    Rollback {
        /// The tenant's name, or the stem of its files.
        name: String,
        /// A number that `history` lists.
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
    /// Let a tenant have the name, path or host that another had when its files were refused.
    Accept {
        /// The stem of its files, or the tenant's name.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Judge a file and put it into the tenants folder in one step.
    Add {
        /// The file. Its name says which tenant it belongs to.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Put it in the place of the file that is there.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete a tenant's files and all that is kept of it.
    Remove {
        /// The tenant's name, or the stem of its files.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Look at the whole tenants folder now.
    Reload {
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// The arguments of `tenantd store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: StoreAction,
}

/// The commands below `tenantd store`.
#[derive(Debug, Subcommand)]
pub enum StoreAction {
    /// Check the whole file, and that the master key opens it. The gateway must be stopped.
    Check {
        #[command(flatten)]
        place: StoreLocationArgs,
    },
    /// Copy it into a new file. Works while the gateway runs. The master key is not in the copy.
    Backup {
        /// The file to make.
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// The admin address of the gateway that uses it [default: 127.0.0.1:9900].
        #[arg(long, value_name = "ADDR")]
        admin: Option<String>,
        #[command(flatten)]
        place: StoreLocationArgs,
    },
    /// Put a copy in its place; what was there is kept beside it. The gateway must be stopped.
    Restore {
        /// The file that `backup` made.
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        #[command(flatten)]
        place: StoreLocationArgs,
    },
}

/// Which store is meant.
#[derive(Debug, Args)]
pub struct StoreLocationArgs {
    /// The state folder [default: state].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<String>,
    /// The master key's file [default: the one in the state folder].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub master_key_file: Option<String>,
    /// The gateway's configuration file, to read these from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

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
        question: QueryArgs,
    },
    /// Make a new signing key. It is published now and signs in a day, so that nobody notices.
    Rotate {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        /// Sign with it now and throw the old ones away: every access token is refused from then
        /// on.
        #[arg(long)]
        emergency: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

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
    /// Make a client id, and a secret unless it is public.
    Add {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        /// What people are shown.
        #[arg(long)]
        name: String,
        /// Where people may be sent back to, exactly as the application says it; repeatable.
        #[arg(long, value_name = "URI", required = true)]
        redirect_uri: Vec<String>,
        /// The application cannot keep a secret, as on people's computers.
        #[arg(long)]
        public: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List the clients that were entered.
    List {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        #[command(flatten)]
        question: QueryArgs,
    },
    /// Remove one, or shut out one that registered itself; its logins end at once.
    Remove {
        /// The tenant's name, or the stem of its files.
        tenant: String,
        client_id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Compare the vendors' documents in this program with what the vendors publish. Needs the
    /// internet, no gateway.
    Refresh,
}

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
    /// List all certificates with their state and end.
    List {
        #[command(flatten)]
        question: CertsQueryArgs,
    },
    /// Show one certificate, and what keeps it from being obtained or renewed.
    Show {
        /// The host name or address.
        name: String,
        #[command(flatten)]
        question: CertsQueryArgs,
    },
    /// Renew an automatic certificate now, and wait for it.
    Renew {
        /// The host name or address.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Try whether a certificate could be obtained; nothing is kept or served.
    Test {
        /// The host name or address.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Look for everything that can keep a certificate from being obtained.
    Doctor(Box<ServeArgs>),
    /// Check a certificate and its key, and put them into the certs folder for --tls manual.
    Import {
        /// The certificate with its chain (PEM); it may hold the key, too.
        #[arg(value_hint = ValueHint::FilePath)]
        certificate: PathBuf,
        /// The key, if it is in a file of its own.
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
    /// Make a new key, printed once, and the lines that let it in.
    #[command(after_help = APIKEY_EXAMPLES)]
    New {
        /// What logs call the holder.
        #[arg(long, value_name = "TEXT", default_value = "caller")]
        label: String,
        /// When it stops working: a date (2027-01-31) or a time (2027-01-31T12:00:00Z).
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
}

/// The arguments of `tenantd healthcheck`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The admin listener to connect to.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What is asked of a running gateway to be read.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The admin listener to connect to.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What is asked of a running gateway, or of its certs folder, to be read.
#[derive(Debug, Args)]
pub struct CertsQueryArgs {
    /// The output format and the gateway to ask.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Read this certs folder instead of asking a gateway; its own is read if none answers.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub certs: Option<String>,
}

/// Where a running gateway's admin listener is.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The gateway's admin address [default: 127.0.0.1:9900].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// The gateway's configuration file, to read the admin address from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// The arguments of `tenantd demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The port to serve on, on this machine only.
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub port: u16,
    /// The folder for everything the demo writes [default: tenantd-demo in the system's temporary
    /// folder].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// The admin address; the system chooses a port for 0.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,
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

const TOP_EXAMPLES: &str = "\
Examples:
  tenantd demo                                 see it work, with sample data
  tenantd serve --host mcp.example.com         serve what lies in tenants.d
  tenantd check tenants.d                      find out what is wrong with a file
  tenantd tenants list                         see what is served

Exit codes: 0 all is well, 1 there are findings, 2 it could not run.";

const SERVE_EXAMPLES: &str = "\
Each flag can also be given as a variable (--backend-allow: TENANTD_BACKEND_ALLOW, lists
separated by commas) or in tenantd.yaml (backend_allow:). A flag wins over the variable, and
that over the file. Only these two know open_tenants, secret_root, confine_tenants, extra_host,
allowed_origin, hsts, audit, audit_files; only the file knows limits. TENANTD_LOG_FILTER
says how much is logged (debug).

Examples:
  tenantd serve --host mcp.example.com --accept-tos      with certificates of Let's Encrypt
  tenantd serve --host mcp.example.com
  tenantd serve --listen 127.0.0.1:8080 --tls off --public-base https://mcp.example.com
  tenantd serve --listen 0.0.0.0:443 --listen '[::]:443' --tls manual --certs /etc/tenantd/certs";

const CHECK_EXAMPLES: &str = "\
Examples:
  tenantd check                                everything in tenants.d
  tenantd check acme.zip                       one export, with acme.yaml and acme.env beside it
  tenantd check --live acme.zip                call its backend, too
  tenantd check tenants.d --format json        for programs

Exit codes: 0 all would be served (and their backends answer), 1 some would not, 2 it could not run.";

const TENANTS_EXAMPLES: &str = "\
Examples:
  tenantd tenants list
  tenantd tenants show acme
  tenantd tenants add acme.zip
  tenantd tenants history acme
  tenantd tenants diff acme 3 4
  tenantd tenants rollback acme 3
  tenantd tenants list --format json --admin 127.0.0.1:9901";

const STORE_EXAMPLES: &str = "\
Examples:
  tenantd store backup /var/backups/tenantd-2027-01-31.db
  tenantd store check --state /var/lib/tenantd
  tenantd store restore /var/backups/tenantd-2027-01-31.db --state /var/lib/tenantd

A copy is of no use without the master key (state/master.key): keep that, too, and elsewhere.

Exit codes: 0 all is well, 1 it is damaged, 2 it could not run.";

const KEYS_EXAMPLES: &str = "\
Examples:
  tenantd keys show acme
  tenantd keys rotate acme
  tenantd keys rotate acme --emergency         the key is in wrong hands

Exit codes: 0 all is well, 1 the gateway refused, 2 it could not run.";

const CLIENTS_EXAMPLES: &str = "\
Examples:
  tenantd clients add acme --name \"Copilot Studio\" --redirect-uri https://global.consent.azure-apim.net/redirect/…
  tenantd clients list acme
  tenantd clients remove acme op_0123456789abcdef
  tenantd clients refresh                      do the vendors still say what this program has?

Most applications introduce themselves and need none of this.

Exit codes: 0 done, 1 the gateway refused or something differs, 2 it could not run.";

const CERTS_EXAMPLES: &str = "\
Examples:
  tenantd certs list
  tenantd certs show mcp.example.com
  tenantd certs renew mcp.example.com
  tenantd certs test mcp.example.com           a rehearsal at the authority's staging, if it has one
  tenantd certs doctor --config tenantd.yaml   what keeps a certificate from being obtained
  tenantd certs import fullchain.pem --key privkey.pem

Exit codes: 0 all is well, 1 there are findings, 2 it could not run.";

const APIKEY_EXAMPLES: &str = "\
Examples:
  tenantd apikey new
  tenantd apikey new --label nightly-report --expires 2027-01-31";

const HEALTH_EXAMPLES: &str = "\
Examples:
  tenantd healthcheck
  HEALTHCHECK CMD [\"tenantd\", \"healthcheck\"]

Exit codes: 0 it is well, 1 it is not or does not answer, 2 the settings cannot be read.";

const DEMO_EXAMPLES: &str = "\
Examples:
  tenantd demo
  tenantd demo --port 9443 --dir ~/tenantd-demo";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tenantd completions bash > /etc/bash_completion.d/tenantd
  tenantd completions zsh > ~/.zfunc/_tenantd";
