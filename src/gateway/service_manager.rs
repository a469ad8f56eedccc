//! Tells the service manager how far the gateway is (sd_notify(3)): messages to the socket that
//! `NOTIFY_SOCKET` names. Without that variable, nothing happens.

use std::convert::Infallible;
use std::env;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;

use crate::base::task::Tasks;
use crate::settings::SettingsInForce;
use crate::tenants::registry::{Registry, RoutingTable};
use crate::tenants::status::TenantState;

/// How often the drain asks for time.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often the status is looked at beside publications: a backend that fails publishes nothing.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// The shortest time between two messages about the tenants.
const PAUSE: Duration = Duration::from_secs(1);

/// The gateway serves.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The gateway reads its settings and tenants again; [`ready`] says that this has ended.
pub(super) fn reloading() {
    // Asked for by `Type=notify-reload`; older service managers ignore it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Another process is the gateway now. This one's messages no longer count.
pub(super) fn hand_over(pid: u32) {
    notify(&[NotifyState::MainPid(pid)]);
}

/// The gateway drains. Asks for time until that has ended, each time until the next time: a drain
/// may be longer than the service manager waits by itself.
pub(super) async fn tell_of_drain(seconds: u64) -> Infallible {
    let status = format!("draining: calls in progress have {seconds} s to finish");
    notify(&[NotifyState::Stopping, NotifyState::Status(&status)]);
    loop {
        let micros = u32::try_from((2 * INTERVAL).as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Keeps the service manager's status line in step with the tenants until the drain.
pub(super) fn follow_tenants(registry: &Registry, settings: &Arc<ArcSwap<SettingsInForce>>, tasks: &Tasks) {
    if !is_present() {
        return;
    }
    let (registry, settings, stop) =
        (registry.clone(), Arc::clone(settings), tasks.shutdown_signal().clone());
    let following = async move {
        let mut generation = registry.subscribe_generation();
        let mut last = String::new();
        loop {
            generation.mark_unchanged();
            let mut status = describe_tenants(&registry.load());
            status += &describe_settings(&settings.load());
            if status != last {
                notify(&[NotifyState::Status(&status)]);
                last = status;
            }
            tokio::time::sleep(PAUSE).await;
            // An error would mean that the registry is gone, but this task has it.
            let _either = tokio::time::timeout(STATUS_INTERVAL, generation.changed()).await;
        }
    };
    tasks.spawn_detached("service manager's status", async move {
        stop.run_until_cancelled(following).await;
    });
}

/// Feeds the service manager's watchdog, if it wants that, for as long as all loops go on.
pub(super) fn feed_watchdog(tasks: &Tasks) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|_| is_present()) else { return };
    let heartbeats = tasks.heartbeats().clone();
    // Not waited for, and fed during the drain too, which has an end of its own.
    tasks.spawn_detached("watchdog", async move {
        let mut silent = Vec::new();
        loop {
            heartbeats.begin_round();
            // A third, so that one late answer does not end the gateway.
            tokio::time::sleep(period / 3).await;
            let now_silent = heartbeats.silent();
            if now_silent.is_empty() {
                notify(&[NotifyState::Watchdog]);
            } else if silent != now_silent {
                tracing::error!(
                    tasks = now_silent.join(", "),
                    "a task does not go on, so the service manager's watchdog is not fed and will restart \
                     the gateway"
                );
            }
            silent = now_silent;
        }
    });
}

/// Returns whether there is a service manager that wants to be told.
fn is_present() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = if is_present() { sd_notify::notify(state) } else { Ok(()) } {
        tracing::warn!(%error, ?state, "the service manager could not be told");
    }
}

/// `; settings have errors`, `; listen, tls wait for a restart`.
fn describe_settings(settings: &SettingsInForce) -> String {
    match (&settings.refusal, settings.waiting.as_slice()) {
        (Some(_), _) => "; changed settings have errors and are not in force".to_owned(),
        (None, []) => String::new(),
        (None, [one]) => format!("; {one} waits for a restart"),
        (None, several) => format!("; {} wait for a restart", several.join(", ")),
    }
}

/// `12 tenants served, 1 in trouble`.
fn describe_tenants(table: &RoutingTable) -> String {
    use TenantState::{Degraded, Held, Rejected, Serving, Stale};
    let counts = table.count_current_states();
    let sum = |states: &[TenantState]| states.iter().map(|state| counts[*state as usize].1).sum::<i64>();
    let served = sum(&[Serving, Degraded, Stale, Held]);
    let noun = if served == 1 { "tenant" } else { "tenants" };
    let troubled = match sum(&[Degraded, Stale, Rejected]) {
        0 => String::new(),
        troubled => format!(", {troubled} in trouble"),
    };
    let held = match sum(&[Held]) {
        0 => String::new(),
        1 => ", 1 with a change that waits for approval".to_owned(),
        held => format!(", {held} with changes that wait for approval"),
    };
    format!("{served} {noun} served{troubled}{held}")
}
