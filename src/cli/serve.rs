//! `tenantd serve`: the gateway, until it is asked to stop.

use anyhow::Context;

use super::configuration;
use crate::gateway::{Addresses, Drained, Gateway};
use crate::settings::Settings;
use crate::telemetry::log;

/// Serves until a signal ends it.
pub(super) fn run(settings: Settings) -> anyhow::Result<()> {
    run_announced(settings, |_| {})
}

/// Serves until a signal ends it; `on_ready` is told the addresses once connections are taken.
pub(super) fn run_announced(settings: Settings, on_ready: impl FnOnce(&Addresses)) -> anyhow::Result<()> {
    let key = configuration::key_source(&settings)?;
    log::init(settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        let gateway = Gateway::build(settings, configuration::tenant_variables(), key).await?;
        match gateway.run(on_ready).await? {
            Drained::Wholly => tracing::info!("everything under way was finished"),
            Drained::Cut => tracing::warn!("some connections were cut at the end of the drain period"),
        }
        Ok(())
    })
}
