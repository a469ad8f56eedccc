//! `tenantd upgrade`: has the running gateway hand over to a new program.

use anyhow::Context;

use super::args::UpgradeArgs;
use super::{Exit, configuration, output};
use crate::gateway::{self, OrderError};
use crate::settings::{Flags, SettingKey};

/// Runs the command.
pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<Exit> {
    let flags = Flags::new().with(SettingKey::STATE, &args.state);
    let settings = configuration::load_quietly(&flags, args.config.as_deref())?;
    // The gateway has a working directory of its own.
    let binary = args.binary.as_ref().map(std::path::absolute).transpose().context("--binary")?;
    match gateway::order_upgrade(&settings.state, binary, |step| output::print_error(step)) {
        Ok(upgraded) => {
            output::print(&format!(
                "upgraded: process {} serves; process {} finishes its calls and ends\n",
                upgraded.pid, upgraded.previous
            ))?;
            Ok(Exit::Fine)
        }
        Err(error @ OrderError::Refused(_)) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}
