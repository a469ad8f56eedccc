//! The command line as clap parses it: commands, flags and help.
//!
//! Doc comments on clap types are help texts. Values of settings remain texts here; `settings`
//! validates them, so that flags, variables and lines of the file get the same messages.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

mod audit;
mod doctor;
mod logins;
mod nodes;
mod run;
mod settings;
mod slim;
mod support_bundle;
#[cfg(test)]
mod tests;
mod upgrade;
mod usage;

pub use audit::{AuditArgs, AuditFormat};
pub use doctor::{ClientKind, DoctorArgs};
pub use logins::{BlockPlaceArgs, LoginFilterArgs, LoginsAction, LoginsArgs};
pub use nodes::NodesArgs;
pub use run::RunArgs;
pub use settings::{GatewayArgs, ValidationArgs};
pub use slim::SlimArgs;
pub use support_bundle::SupportBundleArgs;
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
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Serve one tenant from its export, as the vendor's run.sh and image do.
    #[command(after_help = run::EXAMPLES)]
    Run(Box<RunArgs>),
    /// Do in a container what is there to do: run for one tenant, else serve.
    #[command(after_help = CONTAINER_EXAMPLES)]
    Container,
    /// Validate tenants' files without serving them.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Examine from outside in why clients do not connect.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Box<DoctorArgs>),
    /// Collect what others need to help, without secrets, into one archive.
    #[command(after_help = support_bundle::EXAMPLES)]
    SupportBundle(Box<SupportBundleArgs>),
    /// Turn an old installation of the vendor's servers into tenants' files.
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(Box<MigrateArgs>),
    /// Keep of an export only what is read, for Kubernetes Secrets.
    #[command(after_help = slim::EXAMPLES)]
    Slim(SlimArgs),
    /// Show or change the tenants of a running gateway.
    #[command(after_help = TENANTS_EXAMPLES)]
    Tenants(TenantsArgs),
    /// Show the gateways that share a database, and the tenants that differ between them.
    #[command(after_help = nodes::EXAMPLES)]
    Nodes(NodesArgs),
    /// Check, back up or restore the store in the state folder.
    #[command(after_help = STORE_EXAMPLES)]
    Store(StoreArgs),
    /// Show, check, renew or import certificates.
    #[command(after_help = CERTS_EXAMPLES)]
    Certs(CertsArgs),
    /// Show or change the keys with which a tenant signs access tokens.
    #[command(after_help = KEYS_EXAMPLES)]
    Keys(KeysArgs),
    /// Add or remove applications that need a client id and secret at a tenant with login.
    #[command(after_help = CLIENTS_EXAMPLES)]
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
    #[command(after_help = APIKEY_EXAMPLES)]
    Apikey(ApikeyArgs),
    /// Show who is told of trouble, or test that it arrives.
    #[command(after_help = NOTIFY_EXAMPLES)]
    Notify(NotifyArgs),
    /// Create tokens with which the admin listener is used from other machines.
    #[command(after_help = ADMIN_TOKEN_EXAMPLES)]
    AdminToken(AdminTokenArgs),
    /// Go over to a new version of the program without a failed call.
    #[command(after_help = upgrade::EXAMPLES)]
    Upgrade(UpgradeArgs),
    /// Ask a running gateway whether it is alive; for containers.
    #[command(after_help = HEALTH_EXAMPLES)]
    Healthcheck(HealthArgs),
    /// Run a gateway with two sample tenants on this machine.
    #[command(after_help = DEMO_EXAMPLES)]
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

/// The arguments of `tenantd serve`.
#[derive(Debug, Clone, Default, Args)]
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
    /// Tenants' files or folders [default: the tenants folder of the settings].
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Also call each backend with a sample question, and report the result.
    #[arg(long)]
    pub live: bool,
    /// The timeout in seconds of each call of --live.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print only the tenants with errors.
    #[arg(long, short)]
    pub quiet: bool,
    /// The output format of findings.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The settings that decide how tenants are validated.
    #[command(flatten)]
    pub validation: ValidationArgs,
    /// What opens the admin listener of the gateway whose settings count.
    #[command(flatten)]
    pub access: AdminAccessArgs,
}

/// The arguments of `tenantd migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Files and folders of the old installation: exports, unpacked or not, Compose files with
    /// their .env, systemd units, scripts with `docker run`, Kubernetes manifests, NGINX
    /// configurations.
    #[arg(value_name = "FROM", required_unless_present = "compare", value_hint = ValueHint::AnyPath)]
    pub from: Vec<PathBuf>,
    /// The folder to write the tenants' files to [default: the tenants folder of the settings].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace files that are there already and differ.
    #[arg(long)]
    pub overwrite: bool,
    /// Move nothing: ask the old server with this connector URL and the new one the same questions
    /// (discovery, initialize, tools/list), and print the differences.
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "to", "dry_run", "overwrite"], value_hint = ValueHint::Url)]
    pub compare: Option<String>,
    /// The connector URL of the new server [default: the path of the old one at the gateway's
    /// host].
    #[arg(long, value_name = "URL", requires = "compare", value_hint = ValueHint::Url)]
    pub with: Option<String>,
    /// A file with an access token or API key for the old server.
    #[arg(long, value_name = "FILE", requires = "compare", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// The same for the new server.
    #[arg(long, value_name = "FILE", requires = "compare", value_hint = ValueHint::FilePath)]
    pub with_token_file: Option<PathBuf>,
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
    /// Check the whole store, and that the master key decrypts it. The gateway must be stopped.
    Check {
        #[command(flatten)]
        database: StoreDatabaseArgs,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
    /// Copy the logins to a PostgreSQL database, or back to the file. They are kept there from then
    /// on. The gateway must be stopped.
    Copy {
        /// The address of an empty database, or file to copy back from the database of --store.
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        #[command(flatten)]
        database: StoreDatabaseArgs,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
    /// Copy the store into a new file, also while the gateway runs. The copy does not contain the
    /// master key.
    Backup {
        /// The file to create.
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// The admin address of the gateway that uses the store, or https://NAME:PORT [default:
        /// 127.0.0.1:9900].
        #[arg(long, value_name = "ADDR")]
        admin: Option<String>,
        /// What opens the listener.
        #[command(flatten)]
        access: AdminAccessArgs,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
    /// Replace the store with a copy; the old store is kept beside it. The gateway must be stopped.
    Restore {
        /// The file that `backup` made.
        #[arg(value_hint = ValueHint::FilePath)]
        path: PathBuf,
        #[command(flatten)]
        location: StoreLocationArgs,
    },
}

/// Which database of logins is meant.
#[derive(Debug, Args)]
pub struct StoreDatabaseArgs {
    /// The database that logins are kept in [default: file].
    #[arg(long, value_name = "ADDRESS")]
    pub store: Option<String>,
    /// A file that contains only the database's address, which may have a password.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_file: Option<String>,
    /// A file that contains only the database's password.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub store_password_file: Option<String>,
}

/// Which store is meant.
#[derive(Debug, Args)]
pub struct StoreLocationArgs {
    /// The state folder [default: state].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<String>,
    /// The master key's file [default: master.key in the state folder].
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
    #[command(after_help = APIKEY_EXAMPLES)]
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

/// The arguments of `tenantd notify`.
#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// The command below it.
    #[command(subcommand)]
    pub action: NotifyAction,
}

/// The commands below `tenantd notify`.
#[derive(Debug, Subcommand)]
pub enum NotifyAction {
    /// Show the targets of the setting `notify`, and what is wrong now.
    Show {
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Send a test event to each target and print what it answers.
    Test {
        /// The name of the only target to test.
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        #[command(flatten)]
        query: QueryArgs,
    },
}

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

/// The arguments of `tenantd healthcheck`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Fail unless at least one tenant is served; the readiness of a gateway with one tenant.
    #[arg(long)]
    pub serving: bool,
    /// The admin listener to connect to.
    #[command(flatten)]
    pub admin: AdminArgs,
}

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
    pub(super) fn access(&self) -> AdminAccessArgs {
        AdminAccessArgs { admin_token_file: self.admin_token_file.clone(), admin_ca: self.admin_ca.clone() }
    }
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
  tenantd serve --host mcp.example.com         serve the tenants in tenants.d
  tenantd run /opt/tursio-mcp                  serve one export, as its run.sh does
  tenantd check tenants.d                      find out what is wrong with a file
  tenantd tenants list                         show the served tenants

Exit codes: 0 success, 1 there are findings, 2 the command could not run.";

const SERVE_EXAMPLES: &str = "\
Each flag can also be set as a variable (--backend-allow: TENANTD_BACKEND_ALLOW, lists with
commas) or in tenantd.yaml (backend_allow:). A flag overrides the variable, and the variable
overrides the file. Only variables and the file know open_tenants, secret_root, confine_tenants,
extra_host, allowed_origin, hold_changes, hsts, log_filter, audit and audit_files; only the file
knows limits and notify. log_filter sets how much is logged (debug).

Examples:
  tenantd serve --host mcp.example.com --accept-tos      with certificates from Let's Encrypt
  tenantd serve --host mcp.example.com
  tenantd serve --listen 127.0.0.1:8080 --tls off --public-base https://mcp.example.com
  tenantd serve --listen 0.0.0.0:443 --listen '[::]:443' --tls manual --certs /etc/tenantd/certs";

const CONTAINER_EXAMPLES: &str = "\
If there is /app/server.zip or one of the variables of run is set (PUBLIC alone does not count),
this is tenantd run, else tenantd serve. Settings come from TENANTD_… variables.

Examples:
  docker run -p 8000:8000 -v /opt/tursio/mcp_export.zip:/app/server.zip:ro -e API_KEY=… tenantd
  docker run -p 443:8443 -v /srv/tenants.d:/data/tenants.d tenantd";

const CHECK_EXAMPLES: &str = "\
Examples:
  tenantd check                                everything in tenants.d
  tenantd check acme.zip                       one export, with acme.yaml and acme.env beside it
  tenantd check --live acme.zip                also calls its backend
  tenantd check tenants.d --format json        for programs

Exit codes: 0 all would be served (and their backends answer), 1 some would not, 2 the command could
not run.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  tenantd migrate --dry-run /etc/nginx /srv/stacks      what would become of everything there
  tenantd migrate /opt/tursio-mcp /etc/systemd/system/tursio-mcp.service --to tenants.d
  tenantd migrate tenant-a/compose.yaml tenant-b/compose.yaml nginx.conf --to tenants.d
  tenantd migrate --compare http://127.0.0.1:8001/a/mcp --with https://localhost:8443/a/mcp

The old files are only read. Run it again whenever you like: what you edited since is kept.

Exit codes: 0 everything is understood, 1 something needs a person (with --compare: something
differs), 2 the command could not run.";

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

You cannot use a copy without the master key (state/master.key): back up the key, too, elsewhere.

Exit codes: 0 success, 1 the store is damaged, 2 the command could not run.";

const KEYS_EXAMPLES: &str = "\
Examples:
  tenantd keys show acme
  tenantd keys rotate acme
  tenantd keys rotate acme --emergency         the key is in the wrong hands

Exit codes: 0 success, 1 the gateway refused, 2 the command could not run.";

const CLIENTS_EXAMPLES: &str = "\
Examples:
  tenantd clients add acme --name \"Copilot Studio\" --redirect-uri https://global.consent.azure-apim.net/redirect/…
  tenantd clients list acme
  tenantd clients remove acme op_0123456789abcdef
  tenantd clients refresh                      are the vendors' documents still the same?

Most applications register themselves and need none of this.

Exit codes: 0 success, 1 the gateway refused or something differs, 2 the command could not run.";

const CERTS_EXAMPLES: &str = "\
Examples:
  tenantd certs list
  tenantd certs show mcp.example.com
  tenantd certs renew mcp.example.com
  tenantd certs test mcp.example.com           a test order at the authority's staging, if it has one
  tenantd certs doctor --config tenantd.yaml   what prevents a certificate
  tenantd certs import fullchain.pem --key privkey.pem

Exit codes: 0 success, 1 there are findings, 2 the command could not run.";

const APIKEY_EXAMPLES: &str = "\
Examples:
  tenantd apikey new
  tenantd apikey new --label nightly-report --expires 2027-01-31
  tenantd apikey new --machine teams-agent     a program, for a tenant with a login";

const NOTIFY_EXAMPLES: &str = "\
Examples:
  tenantd notify show
  tenantd notify test
  tenantd notify test --target pager

Exit codes: 0 success, 1 a target did not take the event, 2 the command could not run.";
const ADMIN_TOKEN_EXAMPLES: &str = "\
Examples:
  tenantd admin-token new --name ann --role operate
  tenantd admin-token new --name wallboard --role read --expires 2027-01-31
  tenantd admin-token check /etc/tenantd/admin-tokens.yaml

Exit codes: 0 success, 1 the file is wrong, 2 the command could not run.";

const HEALTH_EXAMPLES: &str = "\
Examples:
  tenantd healthcheck
  tenantd healthcheck --serving                is the only tenant served
  HEALTHCHECK CMD [\"tenantd\", \"healthcheck\"]

Exit codes: 0 alive (or serving), 1 no answer, an error or no tenant, 2 the settings cannot be read.";

const DEMO_EXAMPLES: &str = "\
Examples:
  tenantd demo
  tenantd demo --port 9443 --dir ~/tenantd-demo";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tenantd completions bash > /etc/bash_completion.d/tenantd
  tenantd completions zsh > ~/.zfunc/_tenantd";
const MAN_EXAMPLES: &str = "\
Examples:
  tenantd man /usr/local/share/man/man1";
