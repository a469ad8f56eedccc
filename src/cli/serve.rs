//! `tenantd serve`: the gateway, until it is asked to stop.

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{self, Runtime};

use super::{Exit, configuration};
use crate::base::clock::{Clock, SystemClock};
use crate::base::diagnostic::Report;
use crate::gateway::{Addresses, Drained, Gateway};
use crate::settings::Settings;
use crate::telemetry::log;

/// What threads that block get after the drain, to finish a write to the disk.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Serves until a signal ends it. What keeps it from serving is said in the log.
pub(super) fn run(settings: Settings, warnings: &Report) -> anyhow::Result<Exit> {
    run_announced(settings, warnings, |_| {})
}

/// The same; `on_ready` is told the addresses once connections are taken.
pub(super) fn run_announced(
    settings: Settings,
    warnings: &Report,
    on_ready: impl FnOnce(&Addresses),
) -> anyhow::Result<Exit> {
    log::init(settings.log, || SystemClock.monotonic()).context("the log cannot be started")?;
    warnings.iter().for_each(|warning| tracing::warn!(code = warning.code, "{warning}"));
    let served = serve(settings, on_ready);
    let exit = match served {
        Ok(()) => Exit::Fine,
        // A filter may leave out even errors, but not why there is no gateway.
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
            Drained::Wholly => tracing::info!("everything under way was finished"),
            Drained::Cut => tracing::warn!("some connections were cut at the end of the drain period"),
        }
        Ok(())
    });
    leave(runtime);
    served
}

/// Ends the runtime. What still blocks a thread (a file of a share that hangs, a name that nobody resolves) had the
/// drain's time; it must not keep the process.
fn leave(runtime: Runtime) {
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
            leave(runtime);
            left.send(())
        });
        leaves.recv_timeout(5 * LAST_MOMENT).expect("the runtime waits for a thread that hangs");
        drop(held);
    }
}
