//! The arguments of `tenantd nodes`.

use clap::Args;

use super::QueryArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd nodes
  tenantd nodes --format json";

/// The arguments of `tenantd nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// The gateway to ask.
    #[command(flatten)]
    pub query: QueryArgs,
}
