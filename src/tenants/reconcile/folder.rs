//! The tenants folder itself: whether it is there, whether it was replaced, and the watches on it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::settings::WatchMode;
use crate::tenants::source::TenantsSource;
use crate::tenants::watch::{FolderWatch, POLL_INTERVAL, ParentWatch, WatchQueue};

/// How long tenants are kept after their folder was replaced by an empty one: a volume may be about
/// to be mounted.
const EMPTY_FOLDER_GRACE: Duration = Duration::from_secs(30);

/// The state of the folder.
pub(super) struct TenantsFolder {
    source: Arc<TenantsSource>,
    path: Arc<Path>,
    mode: WatchMode,
    queue: WatchQueue,
    watch: Option<FolderWatch>,
    _parent_watch: Option<ParentWatch>,
    id: Option<FolderId>,
    /// Since when the folder is suspiciously empty or cannot be listed.
    suspect_since: Option<Instant>,
    /// Whether the folder was seen with entries in it, or counts as empty for good.
    contents_are_confirmed: bool,
    started: Instant,
}

/// The identity of the folder, which changes when it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    fn read(folder: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(folder)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl TenantsFolder {
    pub(super) fn new(source: Arc<TenantsSource>, mode: WatchMode, queue: WatchQueue, now: Instant) -> Self {
        let path: Arc<Path> = source.folder().into();
        let parent_watch = ParentWatch::start(&path, mode, &queue);
        Self {
            source,
            path,
            mode,
            queue,
            watch: None,
            _parent_watch: parent_watch,
            id: None,
            suspect_since: None,
            contents_are_confirmed: false,
            started: now,
        }
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Returns where the entries are.
    pub(super) fn source(&self) -> &Arc<TenantsSource> {
        &self.source
    }

    /// Watches the current folder. Returns whether it was replaced.
    pub(super) fn watch(&mut self) -> io::Result<bool> {
        let id = FolderId::read(&self.path)?;
        if self.id == Some(id) && self.watch.is_some() {
            return Ok(false);
        }
        let is_replaced = self.id.replace(id).is_some_and(|before| before != id);
        self.watch = Some(FolderWatch::start(&self.source, self.mode, &self.queue));
        Ok(is_replaced)
    }

    /// Requests unavailable notifications again, at intervals. The caller must run a full scan
    /// afterwards.
    pub(super) fn retry_watch_if_due(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.retry_if_due(&self.queue);
        }
    }

    /// Watches a tenant that is a folder. One that changed may have been replaced, so its watch is
    /// renewed.
    pub(super) fn watch_entry_folder(&mut self, entry_id: &str, is_unchanged: bool) {
        let Some(watch) = &mut self.watch else { return };
        if !(is_unchanged && watch.is_watching(entry_id)) {
            watch.watch_entry_folder(entry_id);
        }
    }

    /// Whether the system notifies of changes.
    pub(super) fn has_notifications(&self) -> bool {
        self.watch.as_ref().is_some_and(FolderWatch::has_notifications)
    }

    /// Returns the interval of full scans. No event would announce that a missing folder is back,
    /// so it is polled.
    pub(super) fn scan_interval(&self) -> Duration {
        self.watch.as_ref().map_or(POLL_INTERVAL, FolderWatch::scan_interval)
    }

    /// Whether the folder is suspiciously empty or cannot be listed.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect_since.is_some()
    }

    /// Records that a full scan found entries, or that there are none to be missed.
    pub(super) fn clear_suspicion(&mut self) {
        if self.suspect_since.take().is_some() {
            tracing::info!(folder = %self.path.display(), "the tenants folder is available again");
        }
    }

    /// Records an empty full scan. Returns whether the folder itself may be missing, so that its
    /// tenants are kept for now.
    pub(super) fn update_suspicion(&mut self, is_replaced: bool, now: Instant) -> bool {
        if is_replaced {
            self.suspect_since = Some(now);
            tracing::warn!(
                folder = %self.path.display(),
                "the tenants folder was replaced by an empty one; its tenants are kept for 30 s in case it is being mounted"
            );
        }
        self.suspect_since =
            self.suspect_since.filter(|since| now.duration_since(*since) < EMPTY_FOLDER_GRACE);
        self.suspect_since.is_some()
    }

    /// Handles a scan that failed: the folder is watched anew once it can be listed.
    pub(super) fn report_scan_error(&mut self, error: &io::Error, now: Instant) {
        self.watch = None;
        if self.suspect_since.is_none() {
            self.suspect_since = Some(now);
            tracing::warn!(
                %error,
                folder = %self.path.display(),
                "the tenants folder cannot be read; its tenants continue unchanged. Check that it exists and \
                 that this user can read it"
            );
        }
    }

    /// Records a full scan. Returns whether what it did not find is gone for good. An empty folder
    /// may be a volume that is not mounted yet, so it counts only after a grace period.
    pub(super) fn may_remove_missing(&mut self, is_empty: bool, now: Instant) -> bool {
        self.contents_are_confirmed |= !is_empty || now.duration_since(self.started) >= EMPTY_FOLDER_GRACE;
        self.contents_are_confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn folder_at(path: &Path, clock: &Arc<ManualClock>) -> TenantsFolder {
        let queue = WatchQueue::new(clock.clone());
        let source = Arc::new(TenantsSource::Folder(path.to_owned()));
        TenantsFolder::new(source, WatchMode::Poll, queue, clock.monotonic())
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn a_folder_is_replaced_once_another_has_its_place() {
        let parent = tempfile::tempdir().expect("a folder");
        let (path, clock) = (parent.path().join("tenants.d"), clock());
        let mut folder = folder_at(&path, &clock);
        assert!(folder.watch().is_err(), "it is not there");
        assert_eq!(folder.scan_interval(), POLL_INTERVAL);
        std::fs::create_dir(&path).expect("made");
        assert!(!folder.watch().expect("there"), "the first one replaces none");
        assert!(!folder.watch().expect("there"));
        std::fs::rename(&path, parent.path().join("aside")).expect("moved");
        std::fs::create_dir(&path).expect("made");
        assert!(folder.watch().expect("there"));
        assert!(!folder.watch().expect("there"));
    }

    #[test]
    fn an_empty_folder_in_place_of_another_keeps_its_tenants_for_a_while() {
        let (parent, clock) = (tempfile::tempdir().expect("a folder"), clock());
        let mut folder = folder_at(parent.path(), &clock);
        assert!(!folder.update_suspicion(false, clock.monotonic()), "the same folder was emptied");
        assert!(folder.update_suspicion(true, clock.monotonic()) && folder.is_suspect());
        clock.advance(EMPTY_FOLDER_GRACE - Duration::from_secs(1));
        assert!(folder.update_suspicion(false, clock.monotonic()));
        clock.advance(Duration::from_secs(1));
        assert!(!folder.update_suspicion(false, clock.monotonic()) && !folder.is_suspect());
        assert!(folder.update_suspicion(true, clock.monotonic()));
        folder.clear_suspicion();
        assert!(!folder.is_suspect());
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_watched_anew_and_suspect_from_its_first_error_on() {
        let (parent, clock) = (tempfile::tempdir().expect("a folder"), clock());
        let mut folder = folder_at(parent.path(), &clock);
        folder.watch().expect("there");
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        folder.report_scan_error(&error, clock.monotonic());
        assert!(folder.watch.is_none() && folder.is_suspect());
        clock.advance(EMPTY_FOLDER_GRACE);
        folder.report_scan_error(&error, clock.monotonic());
        assert!(!folder.update_suspicion(false, clock.monotonic()), "the first error counts");
    }

    #[test]
    fn an_empty_folder_counts_after_a_while_and_one_with_entries_at_once() {
        let (parent, clock) = (tempfile::tempdir().expect("a folder"), clock());
        let mut empty = folder_at(parent.path(), &clock);
        assert!(!empty.may_remove_missing(true, clock.monotonic()));
        assert!(folder_at(parent.path(), &clock).may_remove_missing(false, clock.monotonic()));
        clock.advance(EMPTY_FOLDER_GRACE);
        assert!(empty.may_remove_missing(true, clock.monotonic()));
        let mut seen = folder_at(parent.path(), &clock);
        assert!(
            seen.may_remove_missing(false, clock.monotonic())
                && seen.may_remove_missing(true, clock.monotonic())
        );
    }
}
