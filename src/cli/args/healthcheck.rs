//! The arguments of `tenantd healthcheck`.

use clap::Args;

use super::AdminArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  tenantd healthcheck
  tenantd healthcheck --serving                is the only tenant served
  HEALTHCHECK CMD [\"tenantd\", \"healthcheck\"]

Exit codes: 0 alive (or serving), 1 no answer, an error or no tenant, 2 the settings cannot be read.";

/// The arguments of `tenantd healthcheck`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Fail unless at least one tenant is served; the readiness of a gateway with one tenant.
    #[arg(long)]
    pub serving: bool,
    /// The admin listener to connect to.
    #[command(flatten)]
    pub admin: AdminArgs,
}
