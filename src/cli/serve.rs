//! `tenantd serve`: runs the gateway until a signal stops it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{self, Runtime};

use super::{Exit, configuration};
use crate::base::clock::SystemClock;
use crate::base::diagnostic::Report;
use crate::base::handover;
use crate::gateway::{self, Addresses, Drained, Gateway, TenantInputs};
use crate::settings::{LoadedSettings, SettingSources, Settings, WrittenSettings};
use crate::telemetry::log;
use crate::tenants::TenantsSource;

/// How long blocked threads may finish a disk write after the drain.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Follows the start of a gateway.
pub(super) trait Announcer {
    /// The listeners are bound; nothing is served yet.
    fn on_bound(&mut self, _gateway: &mut Gateway) {}

    /// Connections are accepted and the tenants are loaded.
    async fn on_ready(self, addresses: &Addresses);
}

/// Announces in the log only.
struct Silent {
    /// The configuration file that was read.
    file: Option<PathBuf>,
    /// Where the settings come from.
    again: Option<(SettingSources, WrittenSettings)>,
}

impl Announcer for Silent {
    fn on_bound(&mut self, gateway: &mut Gateway) {
        if let Some((sources, written)) = self.again.take() {
            gateway.read_settings_again(sources, written);
        }
        if let Some(file) = &self.file {
            tracing::info!(file = %file.display(), "the settings were read");
        }
    }

    async fn on_ready(self, _addresses: &Addresses) {}
}

/// Serves the settings' folder until a signal stops the gateway. Errors are logged.
pub(super) fn run(loaded: LoadedSettings) -> anyhow::Result<Exit> {
    let again = Some((loaded.sources, loaded.written));
    run_announced(loaded.settings, &loaded.warnings, Silent { file: loaded.file, again })
}

/// The same, and tells somebody how far it is.
pub(super) fn run_announced(
    settings: Settings,
    warnings: &Report,
    announcer: impl Announcer,
) -> anyhow::Result<Exit> {
    log::init(settings.log, SystemClock::shared()).context("the log cannot be started")?;
    if settings.log_filter.is_some() {
        log::set_filter(settings.log_filter.as_deref());
    }
    warnings.iter().for_each(|warning| tracing::warn!(code = warning.code, "{warning}"));
    let source = TenantsSource::from_settings(&settings);
    let tenants = TenantInputs { source, env: configuration::tenant_variables(), given: None };
    let served = serve(settings, tenants, announcer);
    let exit = match served {
        Ok(()) => Exit::Fine,
        // The log filter may suppress even errors, but the reason for not serving must be shown.
        Err(error) if !tracing::enabled!(tracing::Level::ERROR) => return Err(error),
        Err(error) => {
            tracing::error!("{error:#}");
            Exit::CouldNotRun
        }
    };
    log::flush();
    Ok(exit)
}

/// Serves until a signal stops the gateway. If this process is started to take over from another,
/// that one hears why it does not.
pub(super) fn serve(
    settings: Settings,
    tenants: TenantInputs,
    announcer: impl Announcer,
) -> anyhow::Result<()> {
    let served = take_over_and_serve(settings, tenants, announcer);
    if let Err(error) = &served {
        handover::refuse(&format!("{error:#}"));
    }
    served
}

fn take_over_and_serve(
    settings: Settings,
    tenants: TenantInputs,
    mut announcer: impl Announcer,
) -> anyhow::Result<()> {
    let key = configuration::key_source(&settings)?;
    if let Some(predecessor) = handover::predecessor() {
        gateway::take_from(&predecessor, &settings, &tenants.source, &key)?;
    }
    let runtime =
        runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")?;
    let served = runtime.block_on(async {
        let mut gateway = Gateway::build(settings, tenants, key).await?;
        announcer.on_bound(&mut gateway);
        match gateway.run(async |addresses: &Addresses| announcer.on_ready(addresses).await).await? {
            Drained::Completely => tracing::info!("all calls in progress finished"),
            Drained::Cut => tracing::warn!("some connections were closed at the end of the drain period"),
        }
        Ok(())
    });
    shut_down_runtime(runtime);
    served
}

/// Shuts down the runtime. Threads that still block (on a hanging network share or an unanswered
/// DNS query) had the drain period and must not keep the process alive.
fn shut_down_runtime(runtime: Runtime) {
    runtime.shutdown_timeout(LAST_MOMENT);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_hangs_does_not_keep_the_process() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let (held, hang) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        runtime.spawn_blocking(move || {
            begun.send(()).expect("somebody waits");
            hang.recv()
        });
        begins.recv().expect("it hangs");
        let (left, leaves) = mpsc::channel();
        std::thread::spawn(move || {
            shut_down_runtime(runtime);
            left.send(())
        });
        leaves.recv_timeout(5 * LAST_MOMENT).expect("the runtime waits for a thread that hangs");
        drop(held);
    }
}
