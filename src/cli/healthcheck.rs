//! `tenantd healthcheck`: the probe for containers, whose images lack curl.

use super::admin_client::AdminClient;
use super::args::{AdminArgs, HealthArgs};
use super::{Exit, configuration, output};
use crate::settings::{Flags, SettingKey};

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

/// Creates a client for the gateway given by these arguments, the environment or the file.
pub(super) fn client(args: &AdminArgs) -> anyhow::Result<AdminClient> {
    let flags = Flags::new().with(SettingKey::ADMIN, &args.admin);
    let settings = configuration::load_quietly(&flags, args.config.as_deref())?;
    let off = "the admin listener is off, so the gateway cannot be asked; give its address as --admin";
    settings.admin.map(AdminClient::new).ok_or_else(|| anyhow::anyhow!(off))
}
