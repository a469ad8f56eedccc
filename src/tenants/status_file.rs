//! Writes a status file beside a dropped file, `acme.status.json`, which tells the operator what
//! became of it.
//!
//! Written after the table is published, by a task of its own: no pass waits for it, and of a
//! tenant that changes faster than it is written only the latest status is. Written only if the
//! content changes, without fsync, under a name that triggers no scan. A read-only mount has none;
//! the admin API has the same information.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::published_entry::PublishedEntry;
use super::registry::Registry;
use super::status::TenantStatus;
use crate::base::disk;
use crate::base::task::Tasks;

/// The number of status files in one batch.
const BATCH_SIZE: usize = 64;
/// The allowance for a different time in an otherwise equal file, in bytes.
const TIMESTAMP_SLACK: usize = 64;

/// A status file to write, or (`None`) to remove.
type StatusFileJob = (Arc<str>, Option<TenantStatus>);

/// The handle on the task that writes status files. Cheap to clone.
#[derive(Clone)]
pub(super) struct StatusFileWriter {
    due: Arc<Mutex<BTreeSet<Arc<str>>>>,
    wakeup: Arc<Notify>,
    folder: Arc<Path>,
    registry: Registry,
}

impl StatusFileWriter {
    /// Starts the task. On shutdown it writes one more batch; the next start writes the rest.
    pub(super) fn start(tasks: &Tasks, folder: Arc<Path>, registry: Registry) -> Self {
        let writer = Self { due: Arc::default(), wakeup: Arc::default(), folder, registry };
        let (worker, stop) = (writer.clone(), tasks.shutdown_signal().clone());
        let work = move || worker.clone().run(stop.clone());
        tasks.spawn("status files", tasks.supervise("status files", work));
        writer
    }

    async fn run(self, stop: CancellationToken) {
        let mut warned = false;
        while stop.run_until_cancelled(self.wakeup.notified()).await.is_some() {
            while self.write_batch(&mut warned).await && !stop.is_cancelled() {}
        }
        self.write_batch(&mut warned).await;
    }

    /// Queues the status files of these entries.
    pub(super) fn enqueue<'a>(&self, entry_ids: impl IntoIterator<Item = &'a Arc<str>>) {
        self.lock_due().extend(entry_ids.into_iter().cloned());
        self.wakeup.notify_one();
    }

    /// Writes a batch and returns whether there was one. Logs only the first failure of a series.
    async fn write_batch(&self, warned: &mut bool) -> bool {
        let Some(jobs) = self.next_batch() else { return false };
        let folder = Arc::clone(&self.folder);
        match tokio::task::spawn_blocking(move || run_jobs(&folder, &jobs)).await {
            Ok(Ok(())) => *warned = false,
            Ok(Err(error)) if !std::mem::replace(warned, true) => tracing::warn!(
                %error,
                folder = %self.folder.display(),
                "status files cannot be written into the tenants folder; \"tenantd tenants list\" shows the \
                 same information"
            ),
            Ok(Err(_)) => {}
            Err(_) => tracing::error!("writing status files failed inside tenantd"),
        }
        true
    }

    /// Takes a batch of the queue, with the current statuses.
    fn next_batch(&self) -> Option<Vec<StatusFileJob>> {
        let entry_ids: Vec<_> = {
            let mut due = self.lock_due();
            std::iter::from_fn(|| due.pop_first()).take(BATCH_SIZE).collect()
        };
        let table = self.registry.load();
        let status = |entry_id: &Arc<str>| table.entries.get(entry_id).map(PublishedEntry::status);
        let jobs: Vec<_> =
            entry_ids.into_iter().map(|entry_id| (Arc::clone(&entry_id), status(&entry_id))).collect();
        (!jobs.is_empty()).then_some(jobs)
    }

    fn lock_due(&self) -> std::sync::MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.due.lock().expect("no holder of this lock panics")
    }
}

/// Writes and removes status files. Returns the first error only; the others are alike.
fn run_jobs(folder: &Path, jobs: &[StatusFileJob]) -> io::Result<()> {
    let outcomes = jobs.iter().map(|(entry_id, status)| match status {
        Some(status) => write_status_file(folder, entry_id, status),
        None => remove_if_present(&folder.join(status_file_name(entry_id))),
    });
    outcomes.fold(Ok(()), io::Result::and)
}

fn write_status_file(folder: &Path, entry_id: &str, status: &TenantStatus) -> io::Result<()> {
    let name = status_file_name(entry_id);
    let file = folder.join(&name);
    let mut text = serde_json::to_string_pretty(status)?;
    text.push('\n');
    let longest = text.len() + TIMESTAMP_SLACK;
    if disk::read_no_follow(&file, longest as u64).is_ok_and(|written| is_unchanged(&written, status)) {
        return Ok(());
    }
    replace(folder, &name, &text)
}

/// Replaces a file in the tenants folder by way of a draft whose name triggers no scan.
pub(super) fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let draft = folder.join(format!(".{name}.tmp"));
    let written = create_fresh(&draft, text).and_then(|()| fs::rename(&draft, folder.join(name)));
    // A partial file is useless, and takes space on a full disk.
    written.inspect_err(|_| drop(remove_if_present(&draft)))
}

/// Always creates a new file, so that nothing else of that name is written to, such as a link's
/// target.
fn create_fresh(file: &Path, text: &str) -> io::Result<()> {
    remove_if_present(file)?;
    fs::File::create_new(file)?.write_all(text.as_bytes())
}

/// Whether a file has this status already. `since` restarts with the process, so a change of it
/// alone does not count.
fn is_unchanged(written: &[u8], status: &TenantStatus) -> bool {
    let Ok(mut written) = serde_json::from_slice::<TenantStatus>(written) else { return false };
    written.since = status.since;
    serde_json::to_value(written).ok() == serde_json::to_value(status).ok()
}

fn remove_if_present(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn status_file_name(entry_id: &str) -> String {
    format!("{entry_id}.status.json")
}
