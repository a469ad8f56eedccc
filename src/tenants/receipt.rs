//! The receipt beside a dropped file: `acme.status.json`, so that whoever copied the file sees what became of it.
//!
//! Written after the world was published, by a task of its own: no pass waits for a receipt, and of a tenant that
//! changes faster than they are written only the last is. Only when the content changes, without fsync, under a name
//! that rings no bell. On a read-only mount there are none; the admin API says the same.

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

/// Receipts that are put into words at once.
const AT_ONCE: usize = 64;
/// A receipt that says the same may have another time in it, of another length.
const SINCE_DIFFERS: usize = 64;

/// A receipt to write, or (`None`) to take away.
type Slip = (Arc<str>, Option<TenantStatus>);

/// Whoever writes the receipts. Cheap to clone.
#[derive(Clone)]
pub(super) struct Clerk {
    due: Arc<Mutex<BTreeSet<Arc<str>>>>,
    bell: Arc<Notify>,
    folder: Arc<Path>,
    registry: Registry,
}

impl Clerk {
    /// Starts the task. When it is asked to end it writes some of what is due; the next start writes the others.
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

    /// The receipts of these entries are to say what they are now.
    pub(super) fn write<'a>(&self, stems: impl IntoIterator<Item = &'a Arc<str>>) {
        self.due().extend(stems.into_iter().cloned());
        self.bell.notify_one();
    }

    /// Says whether any were due. A folder that takes none is mentioned once.
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

    /// Some of those that are due, as the entries are now.
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

/// Writes and removes receipts. The first error is returned; the others are alike.
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
    // Half a receipt is of no use to anybody, and takes room on a disk that is full.
    written.inspect_err(|_| drop(remove(&draft)))
}

/// A new file always: whatever else has that name, a link to somewhere among it, is not written to.
fn write_anew(file: &Path, text: &str) -> io::Result<()> {
    remove(file)?;
    fs::File::create_new(file)?.write_all(text.as_bytes())
}

/// Since when a tenant is as it is begins anew with the process; that alone is no news.
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
