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
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::published::Published;
use super::registry::Registry;
use super::status::TenantStatus;
use crate::base::file as disk;
use crate::base::task::Tasks;

/// The number of status files in one batch.
const AT_ONCE: usize = 64;
/// The allowance for a different time in an otherwise equal file, in bytes.
const SINCE_DIFFERS: usize = 64;

/// A status file to write, or (`None`) to remove.
type Slip = (Arc<str>, Option<TenantStatus>);

/// The handle on the task that writes status files. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clerk {
    due: Arc<Mutex<BTreeSet<Arc<str>>>>,
    bell: Arc<Notify>,
    folder: Arc<Path>,
    registry: Registry,
}

impl Clerk {
    /// Starts the task. On shutdown it writes one more batch; the next start writes the rest.
    pub(super) fn start(tasks: &Tasks, folder: Arc<Path>, registry: Registry) -> Self {
        let clerk = Self { due: Arc::default(), bell: Arc::default(), folder, registry };
        let (working, stop) = (clerk.clone(), tasks.soft().clone());
        let work = move || working.clone().run(stop.clone());
        tasks.spawn("receipts", tasks.supervised("receipts", work));
        clerk
    }

    async fn run(self, stop: CancellationToken) {
        let mut warned = false;
        while stop.run_until_cancelled(self.bell.notified()).await.is_some() {
            while self.write_some(&mut warned).await && !stop.is_cancelled() {}
        }
        self.write_some(&mut warned).await;
    }

    /// Queues the status files of these entries.
    pub(super) fn write<'a>(&self, stems: impl IntoIterator<Item = &'a Arc<str>>) {
        self.due().extend(stems.into_iter().cloned());
        self.bell.notify_one();
    }

    /// Writes a batch and returns whether there was one. Logs only the first failure of a series.
    async fn write_some(&self, warned: &mut bool) -> bool {
        let Some(slips) = self.next_slips() else { return false };
        let folder = Arc::clone(&self.folder);
        match tokio::task::spawn_blocking(move || write(&folder, &slips)).await {
            Ok(Ok(())) => *warned = false,
            Ok(Err(error)) if !std::mem::replace(warned, true) => tracing::warn!(
                %error,
                folder = %self.folder.display(),
                "no receipts can be written into the tenants folder; \"tenantd tenants list\" says the same"
            ),
            Ok(Err(_)) => {}
            Err(_) => tracing::error!("writing receipts failed inside tenantd"),
        }
        true
    }

    /// Takes a batch of the queue, with the current statuses.
    fn next_slips(&self) -> Option<Vec<Slip>> {
        let stems: Vec<_> = {
            let mut due = self.due();
            std::iter::from_fn(|| due.pop_first()).take(AT_ONCE).collect()
        };
        let table = self.registry.load();
        let status = |stem: &Arc<str>| table.entries.get(stem).map(Published::status);
        let slips: Vec<_> = stems.into_iter().map(|stem| (Arc::clone(&stem), status(&stem))).collect();
        (!slips.is_empty()).then_some(slips)
    }

    fn due(&self) -> std::sync::MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.due.lock().expect("no holder of this lock panics")
    }
}

/// Writes and removes status files. Returns the first error only; the others are alike.
fn write(folder: &Path, slips: &[Slip]) -> io::Result<()> {
    let outcomes = slips.iter().map(|(stem, status)| match status {
        Some(status) => write_one(folder, stem, status),
        None => remove(&path(folder, stem)),
    });
    outcomes.fold(Ok(()), io::Result::and)
}

fn write_one(folder: &Path, stem: &str, status: &TenantStatus) -> io::Result<()> {
    let file = path(folder, stem);
    let mut text = serde_json::to_string_pretty(status)?;
    text.push('\n');
    let longest = text.len() + SINCE_DIFFERS;
    if disk::read_own(&file, longest as u64).is_ok_and(|written| says_the_same(&written, status)) {
        return Ok(());
    }
    let draft = folder.join(format!(".{stem}.status.json.tmp"));
    let written = write_anew(&draft, &text).and_then(|()| fs::rename(&draft, file));
    // A partial file is useless, and takes space on a full disk.
    written.inspect_err(|_| drop(remove(&draft)))
}

/// Always creates a new file, so that nothing else of that name is written to, such as a link's
/// target.
fn write_anew(file: &Path, text: &str) -> io::Result<()> {
    remove(file)?;
    fs::File::create_new(file)?.write_all(text.as_bytes())
}

/// Whether a file has this status already. `since` restarts with the process, so a change of it
/// alone does not count.
fn says_the_same(written: &[u8], status: &TenantStatus) -> bool {
    let Ok(mut written) = serde_json::from_slice::<TenantStatus>(written) else { return false };
    written.since = status.since;
    serde_json::to_value(written).ok() == serde_json::to_value(status).ok()
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}.status.json"))
}
