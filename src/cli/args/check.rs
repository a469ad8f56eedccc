//! The arguments of `tenantd check`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{AdminAccessArgs, Format, ValidationArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd check                                everything in tenants.d
  tenantd check acme.zip                       one export, with acme.yaml and acme.env beside it
  tenantd check --live acme.zip                also calls its backend
  tenantd check tenants.d --format json        for programs

Exit codes: 0 all would be served (and their backends answer), 1 some would not, 2 the command could
not run.";

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
