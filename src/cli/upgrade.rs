//! `tenantd upgrade`: has the running gateway hand over to a new program.

use anyhow::Context;

use super::args::UpgradeArgs;
use super::{Exit, configuration, output};
use crate::gateway::{self, OrderError};
use crate::settings::Flags;

/// Runs the command.
pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<Exit> {
    let state = match &args.state {
        // Settings with errors are for the new program to tell.
        Some(state) => state.clone(),
        None => configuration::load_quietly(&Flags::new(), args.config.as_deref())?.state,
    };
    // The gateway has a working directory of its own.
    let binary = args.binary.as_ref().map(std::path::absolute).transpose().context("--binary")?;
    match gateway::order_upgrade(&state, binary, |step| output::print_error(step)) {
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
