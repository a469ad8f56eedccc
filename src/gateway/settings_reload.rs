//! SIGHUP: reads the settings again, and hands what may change to those who use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::ending::AUDIT_FLUSH_TIMEOUT;
use super::{certificate_names, load_context, open_files};
use crate::alerts::Alerts;
use crate::backend::Pool;
use crate::base::diagnostic::Report;
use crate::bundle::LoadContext;
use crate::server::Server;
use crate::settings::{SettingSources, SettingsInForce};
use crate::spec::HostName;
use crate::telemetry::audit::Audit;
use crate::telemetry::log;
use crate::tenants::ReconcilerHandle;

/// What reads the settings again, and those who use them.
pub(super) struct SettingsReloader {
    /// `None` if the settings are not read again.
    pub(super) sources: Option<SettingSources>,
    pub(super) in_force: Arc<ArcSwap<SettingsInForce>>,
    pub(super) server: Arc<Server>,
    pub(super) reconciler: ReconcilerHandle,
    pub(super) alerts: Arc<Alerts>,
    pub(super) audit: Audit,
    pub(super) pool: Pool,
    /// The context in force, of which only the hosts and the largest request change.
    pub(super) context: LoadContext,
    pub(super) own_hosts: watch::Sender<Arc<Vec<HostName>>>,
}

impl SettingsReloader {
    /// Reads the settings again. If they are not valid, nothing changes.
    pub(super) async fn reload(&self) {
        let Some(sources) = self.sources.clone() else { return };
        // An error would mean that reading panicked, which the log has.
        let Ok(read) = tokio::task::spawn_blocking(move || sources.read()).await else { return };
        let mut own = SettingsInForce::clone(&self.in_force.load());
        match read {
            Ok(read) => {
                let taken = own.update(&read);
                open_files::limit_connections(&mut own.settings);
                self.apply(&own, &taken).await;
                report(&own, &taken);
            }
            Err(error) => {
                let findings = describe(&error.report);
                tracing::error!(
                    "the settings have errors, so those in force stay; correct them and send SIGHUP again: {findings}"
                );
                own.refusal = Some(findings);
            }
        }
        self.in_force.store(Arc::new(own));
    }

    async fn apply(&self, own: &SettingsInForce, taken: &[&'static str]) {
        if taken.is_empty() {
            return;
        }
        let limits = &own.settings.limits;
        self.server.apply_settings(&own.settings);
        self.pool.set_memory_limits(limits.backend_memory_mib, limits.context_memory_mib);
        self.alerts.set_hold(Duration::from_secs(limits.notify_hold_seconds));
        if taken.contains(&"log_filter") {
            log::set_filter(own.settings.log_filter.as_deref());
        }
        if taken.contains(&"notify") {
            self.alerts.set_targets(own.settings.notify.clone());
        }
        if taken.contains(&"audit_sinks") {
            let (audit, sinks) = (self.audit.clone(), own.settings.audit_sinks.clone());
            let replacing =
                tokio::task::spawn_blocking(move || audit.replace_sinks(sinks, AUDIT_FLUSH_TIMEOUT));
            // An error would mean that it panicked, which the log has.
            let _replaced = replacing.await;
        }
        if taken.iter().any(|name| ["host", "extra_host", "limits.request_memory_mib"].contains(name)) {
            self.own_hosts.send_replace(Arc::new(certificate_names::own(&own.settings)));
            let changed = load_context(
                &own.settings,
                self.context.public_base.clone(),
                std::iter::empty(),
                BTreeMap::new(),
            );
            self.reconciler.change_context(LoadContext {
                hosts: changed.hosts,
                largest_request: changed.largest_request,
                ..self.context.clone()
            });
        }
    }
}

/// Returns all findings in one line.
fn describe(report: &Report) -> String {
    report.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn report(own: &SettingsInForce, taken: &[&'static str]) {
    if !taken.is_empty() {
        tracing::info!(settings = taken.join(", "), "changed settings are in force");
    }
    if !own.waiting.is_empty() {
        tracing::warn!(settings = own.waiting.join(", "), "changed settings wait for a restart");
    }
}
