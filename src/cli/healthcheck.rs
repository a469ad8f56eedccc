//! `tenantd healthcheck`: the probe for containers, whose images lack curl.

use super::admin_request::client;
use super::args::HealthArgs;
use super::{Exit, output};

/// Requests `/healthz`.
pub(super) fn run(args: &HealthArgs) -> anyhow::Result<Exit> {
    match client(&args.admin)?.health() {
        Ok(()) => Ok(Exit::Fine),
        Err(error) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
    }
}
