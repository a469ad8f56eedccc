//! The arguments of `tenantd migrate`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::ValidationArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd migrate --dry-run /etc/nginx /srv/stacks      what would become of everything there
  tenantd migrate /opt/tursio-mcp /etc/systemd/system/tursio-mcp.service --to tenants.d
  tenantd migrate tenant-a/compose.yaml tenant-b/compose.yaml nginx.conf --to tenants.d
  tenantd migrate --compare http://127.0.0.1:8001/a/mcp --with https://localhost:8443/a/mcp

The old files are only read. Run it again whenever you like: what you edited since is kept.

Exit codes: 0 everything is understood, 1 something needs a person (with --compare: something
differs), 2 the command could not run.";

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
