//! The arguments of `tenantd run`: the vendor's flags, and the settings that make sense for one
//! tenant.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::settings::{Flags, SettingKey};

pub(super) const EXAMPLES: &str = "\
Variables: MCP_PORT, API_KEY, SEARCH_URL, CONTEXT_URL, PATH_PREFIX, PUBLIC_URL, OAUTH_ENABLED,
MICROSOFT_CLIENT_ID, MICROSOFT_CLIENT_SECRET, MICROSOFT_TENANT_ID and PUBLIC; each may also be
given as the path of a file that contains it (API_KEY_FILE). A flag overrides the variable, and the
variable overrides the export. TENANTD_… variables are read as by serve.

Examples:
  tenantd run /opt/tursio-mcp                  an unpacked export; edits take effect at once
  tenantd run mcp_export.zip --port 8001
  tenantd run --oauth --url https://mcp.example.com --client-id … --tenant-id … \\
      --client-secret-file /run/secrets/entra  with a Microsoft login

Exit codes: 0 stopped by a signal, 2 it cannot serve.";

/// The arguments of `tenantd run`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// The export: mcp_export.zip, or the folder in which it was unpacked [default: the working
    /// directory if the export is unpacked there, else /app/server.zip].
    #[arg(value_name = "ZIP|FOLDER", value_hint = ValueHint::AnyPath)]
    pub path: Option<PathBuf>,
    /// The port to serve on [default: 8000].
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Require a Microsoft login.
    #[arg(long)]
    pub oauth: bool,
    /// The public URL of the server, with its path prefix if it has one.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// The application (client) id of the app registration.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// The client secret of the app registration. Every user of this machine can read it (ps).
    #[arg(long, value_name = "SECRET")]
    pub client_secret: Option<String>,
    /// A file that contains only the client secret.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "client_secret")]
    pub client_secret_file: Option<PathBuf>,
    /// The directory (tenant) id of the app registration.
    #[arg(long, value_name = "ID")]
    pub tenant_id: Option<String>,
    /// Answer callers from the internet although no login is required.
    #[arg(long)]
    pub public: bool,
    /// A file for the log besides the terminal, or off [default: mcp/run.log in the folder of an
    /// unpacked export].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    /// The folder for keys, logins and other persistent state [default: state in the folder of an
    /// unpacked export, else in the working directory].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<String>,
    /// The key that encrypts the secrets in the state folder [default: one created there at first
    /// start].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub master_key_file: Option<String>,
    /// The address of the admin listener, or off [default: 127.0.0.1:9900, or off if another
    /// program uses that].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// The login host of Microsoft; another one for sovereign clouds [default:
    /// login.microsoftonline.com].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub entra_authority: Option<String>,
    /// A network that an open tenant answers, like private networks; repeatable.
    #[arg(long, value_name = "CIDR")]
    pub private_networks: Vec<String>,
    /// A loopback or link-local network in which the backend may be; repeatable.
    #[arg(long, value_name = "CIDR")]
    pub backend_allow: Vec<String>,
    /// How the files are watched [default: auto].
    #[arg(long, value_name = "MODE", value_parser = ["auto", "poll"])]
    pub watch: Option<String>,
    /// The format of log lines [default: text].
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub log: Option<String>,
    /// A file to write the bound addresses to (JSON) once the server serves.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<String>,
    /// A configuration file for all other settings; without this flag none is read.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl RunArgs {
    /// Returns the settings of the gateway that were given.
    pub(in crate::cli) fn flags(&self) -> Flags {
        Flags::new()
            .with(SettingKey::STATE, &self.state)
            .with(SettingKey::MASTER_KEY_FILE, &self.master_key_file)
            .with(SettingKey::ADMIN, &self.admin)
            .with(SettingKey::ENTRA_AUTHORITY, &self.entra_authority)
            .with(SettingKey::PRIVATE_NETWORKS, &self.private_networks)
            .with(SettingKey::BACKEND_ALLOW, &self.backend_allow)
            .with(SettingKey::WATCH, &self.watch)
            .with(SettingKey::LOG, &self.log)
            .with(SettingKey::READY_FILE, &self.ready_file)
    }
}
