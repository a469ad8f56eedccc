//! The arguments of `tenantd doctor`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::{AdminAccessArgs, Format, ServeArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd doctor                               the machine, the gateway and all tenants
  tenantd doctor acme                          one tenant, as an SDK connects to it
  tenantd doctor acme --as claude              as Claude connects to it
  tenantd doctor acme --as vscode --key-file key.txt
  tenantd doctor /opt/tursio-mcp               the export that tenantd run serves
  tenantd doctor acme --format json            for programs

Nothing is changed: no login is begun, and no tool is called but the sample question that check
--live asks. With --as, a client may be registered, which stores nothing.

Exit codes: 0 no fault, 1 there are faults, 2 the command could not run.";

/// The arguments of `tenantd doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The tenant's name, the stem of its files, or the path of an export [default: all tenants].
    #[arg(value_name = "TENANT")]
    pub tenant: Option<String>,
    /// The client whose requests are repeated [default: sdk].
    #[arg(long = "as", value_enum, value_name = "CLIENT")]
    pub client: Option<ClientKind>,
    /// The base of the public URLs to ask instead of the gateway's own.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// A file with an API key or access token of the tenant, to ask what only callers are told.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
    /// The output format.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// What opens its admin listener.
    #[command(flatten)]
    pub access: AdminAccessArgs,
    /// The settings of the gateway, where they are not in its file.
    #[command(flatten)]
    pub settings: ServeArgs,
}

/// A client of MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    /// Claude on the web, Desktop and phones.
    Claude,
    /// ChatGPT in developer mode.
    Chatgpt,
    /// Cursor.
    Cursor,
    /// Visual Studio Code.
    Vscode,
    /// Microsoft Copilot Studio.
    CopilotStudio,
    /// Microsoft Teams and Microsoft 365 Copilot.
    Teams,
    /// A program with one of the SDKs.
    Sdk,
}
