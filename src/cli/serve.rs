//! `tenantd serve`: runs the gateway until a signal stops it.

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{self, Runtime};

use super::{Exit, configuration};
use crate::base::clock::SystemClock;
use crate::base::diagnostic::Report;
use crate::gateway::{Addresses, Drained, Gateway};
use crate::settings::Settings;
use crate::telemetry::log;

/// How long blocked threads may finish a disk write after the drain.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Serves until a signal stops the gateway. Errors are logged.
pub(super) fn run(settings: Settings, warnings: &Report) -> anyhow::Result<Exit> {
    run_announced(settings, warnings, |_| {})
}

/// The same, and calls `on_ready` with the addresses once connections are accepted.
pub(super) fn run_announced(
    settings: Settings,
    warnings: &Report,
    on_ready: impl FnOnce(&Addresses),
) -> anyhow::Result<Exit> {
    log::init(settings.log, SystemClock::shared()).context("the log cannot be started")?;
    warnings.iter().for_each(|warning| tracing::warn!(code = warning.code, "{warning}"));
    let served = serve(settings, on_ready);
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

fn serve(settings: Settings, on_ready: impl FnOnce(&Addresses)) -> anyhow::Result<()> {
    let key = configuration::key_source(&settings)?;
    let runtime =
        runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")?;
    let served = runtime.block_on(async {
        let gateway = Gateway::build(settings, configuration::tenant_variables(), key).await?;
        match gateway.run(on_ready).await? {
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
