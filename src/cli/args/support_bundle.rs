//! The arguments of `tenantd support-bundle`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{AdminAccessArgs, DoctorArgs, Format, ServeArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd support-bundle                       shows what it would write, and asks
  tenantd support-bundle --out /tmp/case.zip --without-people --yes

It has versions, settings, states and findings, certificates' states, metrics, the last lines of
the log and of the audit, limits, names of files, and what the doctor says. It has no secret, no
tenant's file and no part of the store. Read it before you give it away: it names hosts and people.

Exit codes: 0 written, or not wanted, 2 the command could not run.";

/// The arguments of `tenantd support-bundle`.
#[derive(Debug, Args)]
pub struct SupportBundleArgs {
    /// The archive to write [default: tenantd-support-TIME.zip in the working directory].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Write it without asking.
    #[arg(long)]
    pub yes: bool,
    /// Replace people's names, ids and addresses, as the audit has them, by numbers.
    #[arg(long)]
    pub without_people: bool,
    /// What opens its admin listener.
    #[command(flatten)]
    pub access: AdminAccessArgs,
    /// The settings of the gateway, where they are not in its file.
    #[command(flatten)]
    pub settings: ServeArgs,
}

impl SupportBundleArgs {
    /// Returns the arguments with which the doctor examines the same gateway.
    pub(in crate::cli) fn doctor(&self) -> DoctorArgs {
        DoctorArgs {
            tenant: None,
            client: None,
            url: None,
            key_file: None,
            format: Format::Json,
            access: self.access.clone(),
            settings: self.settings.clone(),
        }
    }
}
