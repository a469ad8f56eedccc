//! The command line of `tenantd slim`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// The arguments of `tenantd slim`.
#[derive(Debug, Args)]
pub struct SlimArgs {
    /// The export.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The file to write. Not in the tenants folder, where it would be another tenant.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Replace the file if it is there already.
    #[arg(long)]
    pub overwrite: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd slim acme.zip --out slim/acme.zip
  kubectl create secret generic tenants --from-file=slim/ --dry-run=client -o yaml

The slim export is the same tenant: it has the same configurations, byte for byte, and loading it
makes no new revision.

Exit codes: 0 written, 1 the file is no export, 2 the command could not run.";
