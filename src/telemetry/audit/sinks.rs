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
use std::sync::Arc;
use std::time::Duration;

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
#[derive(Clone, Default)]
pub(super) struct AuditSinks(Arc<[Arc<Sink>]>);

impl AuditSinks {
    /// Opens the spools. Blocks.
    pub(super) fn open(
        configs: Vec<SinkConfig>,
        state: &Path,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let folder = state.join(FOLDER);
        warn_of_strangers(&folder, &configs);
        let open = |config: SinkConfig| {
            let folder = folder.join(&config.name);
            Arc::new(Sink::open(config, folder, Arc::clone(clock), Arc::clone(metrics)))
        };
        Self(configs.into_iter().map(open).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends lines to all spools. Blocks.
    pub(super) fn append(&self, lines: &[Vec<u8>]) {
        if !lines.is_empty() {
            self.0.iter().for_each(|sink| sink.append(lines));
        }
    }

    /// Starts to send; `audit` gets the lines that state what was dropped.
    pub(super) fn start(&self, audit: &Audit, tasks: &Tasks) {
        for sink in self.0.iter() {
            let (sink, audit) = (Arc::clone(sink), audit.clone());
            let start = move || Arc::clone(&sink).run(audit.clone());
            // The last lines are written when all calls are over.
            tasks.spawn_beyond_drain("audit-sinks", tasks.supervise("audit-sink", start));
        }
    }

    /// Sends what waits, for a limited time, and ends. The rest is sent after the next start.
    pub(super) async fn finish(&self, patience: Duration) {
        self.0.iter().for_each(|sink| sink.end());
        let ended = futures_util::future::join_all(self.0.iter().map(|sink| sink.ended()));
        // What was not sent in time lies in the spools.
        let _in_time = tokio::time::timeout(patience, ended).await;
    }

    /// Returns the sinks that are in trouble now.
    pub(super) fn troubles(&self) -> Vec<SinkTrouble> {
        self.0.iter().filter_map(|sink| sink.trouble()).collect()
    }
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
