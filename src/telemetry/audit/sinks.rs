//! The sinks of the audit: receivers beside the file, each with a spool on the disk.
//!
//! The thread that writes the audit appends to the spools and waits for no receiver. A task for
//! each sink sends what waits, again after growing pauses, and forgets what was taken. A receiver
//! gets every line at least once, and knows by the lines' `id` what it has already.

mod channel;
mod config;
mod sink;
mod spool;
mod syslog_message;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::config::{
    ChannelConfig, Facility, HostPort, HttpConfig, SinkConfig, SyslogAddress, SyslogConfig,
};
use self::sink::Sink;
pub use self::sink::SinkTrouble;
pub(in crate::telemetry::audit) use self::spool::DroppedLines;
use super::Audit;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::telemetry::metrics::Metrics;

/// The folder of all spools, in the state folder.
const FOLDER: &str = "audit-sinks";

/// All sinks of an audit. Cheap to clone.
#[derive(Clone)]
pub(super) struct AuditSinks(Arc<SinksState>);

struct SinksState {
    /// The folder of all spools.
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    current: ArcSwap<Vec<Arc<Sink>>>,
    /// What the sinks' tasks belong to, once they are started.
    tasks: OnceLock<Tasks>,
}

impl AuditSinks {
    /// Opens the spools. Blocks.
    pub(super) fn open(
        configs: Vec<SinkConfig>,
        state: &Path,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let sinks = Self(Arc::new(SinksState {
            folder: state.join(FOLDER),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            current: ArcSwap::default(),
            tasks: OnceLock::new(),
        }));
        warn_of_strangers(&sinks.0.folder, &configs);
        let opened = configs.into_iter().map(|config| sinks.open_one(config)).collect();
        sinks.0.current.store(Arc::new(opened));
        sinks
    }

    fn open_one(&self, config: SinkConfig) -> Arc<Sink> {
        let SinksState { folder, clock, metrics, .. } = &*self.0;
        let folder = folder.join(&config.name);
        Arc::new(Sink::open(config, folder, Arc::clone(clock), Arc::clone(metrics)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.current.load().is_empty()
    }

    /// Appends lines to all spools. Blocks.
    pub(super) fn append(&self, lines: &[Vec<u8>]) {
        if !lines.is_empty() {
            self.0.current.load().iter().for_each(|sink| sink.append(lines));
        }
    }

    /// Starts to send; `audit` gets the lines that state what was dropped.
    pub(super) fn start(&self, audit: &Audit, tasks: &Tasks) {
        // It is started once.
        let _first = self.0.tasks.set(tasks.clone());
        self.0.current.load().iter().for_each(|sink| start_one(sink, audit, tasks));
    }

    /// Replaces the sinks. One that keeps its name keeps its spool, and sends to its new receiver
    /// what the one before has not taken. One that is gone sends what waits, if its receiver takes
    /// it; the rest stays in its spool. Returns those that are gone, for [`Sink::remove`] once
    /// nobody appends to them. Blocks.
    pub(super) fn replace(&self, configs: Vec<SinkConfig>, audit: &Audit) -> Vec<Arc<Sink>> {
        let before = self.0.current.load_full();
        let mut after = Vec::with_capacity(configs.len());
        for config in configs {
            if let Some(kept) = before.iter().find(|sink| sink.name() == config.name) {
                kept.reconfigure(config);
                after.push(Arc::clone(kept));
                continue;
            }
            let sink = self.open_one(config);
            if let Some(tasks) = self.0.tasks.get() {
                start_one(&sink, audit, tasks);
            }
            after.push(sink);
        }
        let gone = before.iter().filter(|sink| after.iter().all(|kept| !Arc::ptr_eq(kept, sink)));
        let gone = gone.cloned().collect();
        self.0.current.store(Arc::new(after));
        gone
    }

    /// Sends what waits, for a limited time, and ends. The rest is sent after the next start.
    pub(super) async fn finish(&self, patience: Duration) {
        let sinks = self.0.current.load_full();
        sinks.iter().for_each(|sink| sink.end());
        let ended = futures_util::future::join_all(sinks.iter().map(|sink| sink.ended()));
        // What was not sent in time lies in the spools.
        let _in_time = tokio::time::timeout(patience, ended).await;
    }

    /// Returns the sinks that are in trouble now.
    pub(super) fn troubles(&self) -> Vec<SinkTrouble> {
        self.0.current.load().iter().filter_map(|sink| sink.trouble()).collect()
    }
}

/// Starts the task of one sink.
fn start_one(sink: &Arc<Sink>, audit: &Audit, tasks: &Tasks) {
    let (sink, audit) = (Arc::clone(sink), audit.clone());
    let start = move || Arc::clone(&sink).run(audit.clone());
    // The last lines are written when all calls are over.
    tasks.spawn_beyond_drain("audit-sinks", tasks.supervise("audit-sink", start));
}

/// Warns of spools that no sink of the settings has: nobody sends what is in them.
fn warn_of_strangers(folder: &Path, configs: &[SinkConfig]) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let sink = Path::new(&name).file_stem().unwrap_or(&name);
        if configs.iter().all(|config| sink != config.name.as_str()) {
            let path: PathBuf = entry.path();
            tracing::warn!(
                folder = %path.display(),
                "no sink of the audit has this spool, so nobody sends what may be in it; name the sink in audit_sinks \
                 again, or delete the folder"
            );
        }
    }
}

#[cfg(test)]
mod tests;
