//! The arguments of `tenantd notify`.

use clap::{Args, Subcommand};

use super::QueryArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd notify show
  tenantd notify test
  tenantd notify test --target pager

Exit codes: 0 success, 1 a target did not take the event, 2 the command could not run.";

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
