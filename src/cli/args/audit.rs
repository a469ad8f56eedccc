//! The arguments of `tenantd audit`.

use clap::{Args, ValueEnum};

use super::AdminArgs;

/// The arguments of `tenantd audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only lines about this tenant.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only lines of this person, key, program or operator: the user name, the id, or the label.
    #[arg(long, value_name = "WHO")]
    pub person: Option<String>,
    /// Only lines of this OAuth client, by its id.
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only calls of this tool.
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// Only lines with this outcome, such as ok or not_allowed.
    #[arg(long, value_name = "WORD")]
    pub outcome: Option<String>,
    /// Only this kind of line: login, token, revocation, refusal, call, read, order.
    #[arg(long, value_name = "KIND")]
    pub event: Option<String>,
    /// Only lines from this time on: 2026-11-25T09:00:00Z, 2026-11-25, or how long ago (30m, 6h,
    /// 7d).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only lines before this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The most lines to print, the newest ones.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    pub limit: usize,
    /// Go on with the lines that are written from now on, also over a restart of the gateway.
    #[arg(long, short, conflicts_with = "until")]
    pub follow: bool,
    /// The output format: text, or json (the lines as they are in the file).
    #[arg(long, value_enum, default_value_t)]
    pub format: AuditFormat,
    /// The admin listener to connect to.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// How lines of the audit are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum AuditFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd audit --tenant acme --since 1h
  tenantd audit --person ann@example.com --event call
  tenantd audit --outcome not_allowed --format json
  tenantd audit --follow

Exit codes: 0 success, 1 the gateway refused, 2 the command could not run.";
