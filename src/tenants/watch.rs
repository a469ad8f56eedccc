//! File notifications: an event names an entry to scan; its kind is used only to learn that a file
//! was renamed into place. Overflows and errors cause a full scan.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::debounce::Debouncer;
use super::scan::ScanRequest;
use super::source::TenantsSource;
use crate::base::clock::Clock;
use crate::bundle;
use crate::settings::WatchMode;

/// The interval of full scans with notifications, which find what those missed.
const RESCAN_INTERVAL: Duration = Duration::from_secs(10);
/// The interval of full scans without notifications.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The interval of attempts to get notifications.
const NOTIFY_RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The queue of entries to scan, shared between the watcher's thread and the reconciler.
#[derive(Debug, Clone)]
pub(super) struct WatchQueue {
    debouncer: Arc<Mutex<Debouncer>>,
    wakeup: Arc<Notify>,
    clock: Arc<dyn Clock>,
}

impl WatchQueue {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { debouncer: Arc::default(), wakeup: Arc::default(), clock }
    }

    /// Requests a scan of one entry.
    pub(super) fn notify(&self, entry_id: String) {
        self.lock_debouncer().notify(entry_id, self.clock.monotonic());
        self.wakeup.notify_one();
    }

    /// Requests a full scan.
    pub(super) fn notify_all(&self) {
        self.lock_debouncer().notify_all(self.clock.monotonic());
        self.wakeup.notify_one();
    }

    /// Waits until a scan is due. Cancellation-safe: a due scan stays due.
    pub(super) async fn next_scan(&self) -> ScanRequest {
        loop {
            let now = self.clock.monotonic();
            let due = {
                let mut debouncer = self.lock_debouncer();
                if let Some(request) = debouncer.take_due(now) {
                    return request;
                }
                debouncer.next_due()
            };
            match due {
                None => self.wakeup.notified().await,
                Some(due) => {
                    let sleep = tokio::time::sleep(due.saturating_duration_since(now));
                    tokio::select! {
                        () = sleep => {}
                        () = self.wakeup.notified() => {}
                    }
                }
            }
        }
    }

    fn on_event(&self, source: &TenantsSource, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            Ok(_) => return self.notify_all(),
            Err(error) => {
                tracing::warn!(%error, "the folder's watcher reported an error; scanning all tenants");
                return self.notify_all();
            }
        };
        // Our own reads cause access events, which must not cause another scan.
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return;
        }
        for path in &event.paths {
            match source.entry_id_of(path) {
                Some(entry_id) => {
                    if let Some(owner) = bundle::secret_file_owner(&entry_id) {
                        self.notify(owner.to_owned());
                    }
                    self.on_entry_event(entry_id, path, &event);
                }
                // A mounted ConfigMap changes as a whole: no event names the visible files.
                None if path == source.folder() || path.ends_with("..data") => self.notify_all(),
                None => {}
            }
        }
    }

    fn on_entry_event(&self, entry_id: String, path: &Path, event: &Event) {
        let arrived =
            matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)));
        let mut debouncer = self.lock_debouncer();
        match arrived && event.paths.last().is_some_and(|target| target == path) {
            true => debouncer.notify_renamed(&entry_id, path),
            false => debouncer.forget_renamed(path),
        }
        drop(debouncer);
        self.notify(entry_id);
    }

    fn lock_debouncer(&self) -> std::sync::MutexGuard<'_, Debouncer> {
        self.debouncer.lock().expect("no holder of this lock panics")
    }
}

/// The watch on one folder and on the tenants that are folders themselves. Ends when dropped.
pub(super) struct FolderWatch {
    /// `None`: only the periodic scans. They compare more than a polling watcher would
    /// (nanoseconds, inode, ctime).
    watcher: Option<RecommendedWatcher>,
    source: TenantsSource,
    mode: WatchMode,
    /// When notifications were last requested.
    last_attempt: Instant,
    /// The folders of tenants that are watched.
    watched_folders: HashSet<String>,
}

impl FolderWatch {
    /// Watches with the system's notifications, or polls if they are unavailable or disabled.
    pub(super) fn start(source: &TenantsSource, mode: WatchMode, queue: &WatchQueue) -> Self {
        let watcher = match mode {
            WatchMode::Poll => None,
            WatchMode::Auto => start_watcher(source, queue)
                .inspect_err(|error| {
                    tracing::warn!(%error, folder = %source.folder().display(), "file notifications are not available; polling instead");
                })
                .ok(),
        };
        Self {
            watcher,
            source: source.clone(),
            mode,
            last_attempt: queue.clock.monotonic(),
            watched_folders: HashSet::new(),
        }
    }

    /// Requests unavailable notifications again, at intervals: other processes may have released
    /// theirs. The caller must run a full scan afterwards.
    pub(super) fn retry_if_due(&mut self, queue: &WatchQueue) {
        let now = queue.clock.monotonic();
        if self.mode == WatchMode::Poll
            || self.has_notifications()
            || now.duration_since(self.last_attempt) < NOTIFY_RETRY_INTERVAL
        {
            return;
        }
        self.last_attempt = now;
        self.watcher = start_watcher(&self.source, queue).ok();
        if self.has_notifications() {
            tracing::info!(folder = %self.source.folder().display(), "file notifications are available again");
        }
    }

    /// Returns the interval of full scans.
    pub(super) fn scan_interval(&self) -> Duration {
        if self.has_notifications() { RESCAN_INTERVAL } else { POLL_INTERVAL }
    }

    /// Whether the system's notifications are active.
    pub(super) fn has_notifications(&self) -> bool {
        self.watcher.is_some()
    }

    /// Watches a tenant that is a folder. If that fails, the periodic scans still cover it.
    pub(super) fn watch_entry_folder(&mut self, entry_id: &str) {
        let Some(watcher) = &mut self.watcher else { return };
        let folder = self.source.folder().join(entry_id);
        let (folders, is_deep) = bundle::watched_folders(&folder);
        let mode = if is_deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        match folders.iter().try_for_each(|folder| watcher.watch(folder, mode)) {
            Ok(()) => _ = self.watched_folders.insert(entry_id.to_owned()),
            Err(error) => {
                tracing::debug!(%error, folder = %folder.display(), "a tenant's folder cannot be watched");
            }
        }
    }

    /// Whether a tenant that is a folder is watched.
    pub(super) fn is_watching(&self, entry_id: &str) -> bool {
        self.watched_folders.contains(entry_id)
    }
}

/// The watch on the parent of the tenants folder, which notices at once that the folder is removed,
/// replaced or created again. Ends when dropped.
pub(super) struct ParentWatch {
    _watcher: RecommendedWatcher,
}

impl ParentWatch {
    /// Starts the watch, if possible; without it the periodic scans notice the change.
    pub(super) fn start(folder: &Path, mode: WatchMode, queue: &WatchQueue) -> Option<Self> {
        let watch = || {
            let absolute = std::path::absolute(folder)?;
            let parent = absolute.parent().ok_or_else(notify::Error::path_not_found)?;
            let (queue, folder) = (queue.clone(), absolute.clone());
            // Ignores other events in the parent folder.
            let on_event = move |event: notify::Result<Event>| match event {
                Ok(event) if !event.need_rescan() && !event.paths.contains(&folder) => {}
                Ok(event) if event.kind.is_access() => {}
                _ => queue.notify_all(),
            };
            let mut watcher = RecommendedWatcher::new(on_event, Config::default())?;
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
            Ok(Self { _watcher: watcher })
        };
        let watch = (mode == WatchMode::Auto).then(watch)?;
        let log = |error: &notify::Error| tracing::debug!(%error, "the parent of the tenants folder cannot be watched");
        watch.inspect_err(log).ok()
    }
}

fn start_watcher(source: &TenantsSource, queue: &WatchQueue) -> notify::Result<RecommendedWatcher> {
    let (queue, source) = (queue.clone(), source.clone());
    let root = source.folder().to_owned();
    let folder = root.clone();
    let absolute = std::path::absolute(&folder)?;
    // A tenant's folder that is a link to a large tree must not cost a watch for each folder in it.
    let config = Config::default().with_follow_symlinks(false);
    let on_event = move |event: notify::Result<Event>| {
        queue.on_event(&source, event.map(|event| rebase_paths(event, &absolute, &root)));
    };
    let mut watcher = RecommendedWatcher::new(on_event, config)?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Translates an event's absolute paths to the configured form of the folder, which may be
/// relative.
fn rebase_paths(mut event: Event, absolute: &Path, folder: &Path) -> Event {
    for path in &mut event.paths {
        if let Ok(inside) = path.strip_prefix(absolute) {
            *path = if inside.as_os_str().is_empty() { folder.to_owned() } else { folder.join(inside) };
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::base::clock::{ManualClock, SystemClock};

    fn folder_source(folder: &Path) -> TenantsSource {
        TenantsSource::Folder(folder.to_owned())
    }

    #[tokio::test]
    async fn a_file_written_in_the_folder_requests_a_scan_of_its_entry() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let queue = WatchQueue::new(SystemClock::shared());
        let watch = FolderWatch::start(&folder_source(folder.path()), WatchMode::Auto, &queue);
        assert_eq!(watch.scan_interval(), RESCAN_INTERVAL);
        std::fs::write(folder.path().join("acme.yaml"), "x").expect("writable");
        let request =
            tokio::time::timeout(Duration::from_secs(20), queue.next_scan()).await.expect("requested");
        assert!(request.entry_ids.is_some_and(|entry_ids| entry_ids.contains("acme")));
    }

    #[tokio::test]
    async fn a_folder_that_goes_and_comes_again_requests_a_full_scan() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("tenants.d");
        let queue = WatchQueue::new(SystemClock::shared());
        let _watching = ParentWatch::start(&folder, WatchMode::Auto, &queue).expect("watched");
        let next_request = async || {
            tokio::time::timeout(Duration::from_secs(20), queue.next_scan())
                .await
                .expect("requested")
                .entry_ids
        };
        std::fs::create_dir(&folder).expect("made");
        assert_eq!(next_request().await, None);
        std::fs::rename(&folder, parent.path().join("elsewhere")).expect("renamed");
        assert_eq!(next_request().await, None);
        std::fs::write(parent.path().join("other"), "x").expect("written");
        std::fs::create_dir(&folder).expect("made");
        assert_eq!(next_request().await, None);
    }

    #[test]
    fn notifications_are_requested_again_at_intervals() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("tenants.d");
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH));
        let queue = WatchQueue::new(clock.clone());
        let mut watch = FolderWatch::start(&folder_source(&folder), WatchMode::Auto, &queue);
        let mut polling = FolderWatch::start(&folder_source(&folder), WatchMode::Poll, &queue);
        assert_eq!(watch.scan_interval(), POLL_INTERVAL);
        std::fs::create_dir(&folder).expect("made");
        watch.retry_if_due(&queue);
        assert!(!watch.has_notifications(), "not so soon");
        clock.advance(NOTIFY_RETRY_INTERVAL);
        watch.retry_if_due(&queue);
        polling.retry_if_due(&queue);
        assert_eq!((watch.scan_interval(), polling.scan_interval()), (RESCAN_INTERVAL, POLL_INTERVAL));
    }

    #[tokio::test]
    async fn what_the_system_lost_or_cannot_name_means_a_full_scan() {
        let folder = Path::new("/tenants");
        let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        let swap = Event::new(EventKind::Modify(ModifyKind::Name(RenameMode::Both)));
        let swap = swap.add_path(folder.join("..data_tmp")).add_path(folder.join("..data"));
        let gone =
            Event::new(EventKind::Remove(notify::event::RemoveKind::Folder)).add_path(folder.to_owned());
        for event in [Ok(overflow), Err(notify::Error::generic("no luck")), Ok(swap), Ok(gone)] {
            let queue = WatchQueue::new(SystemClock::shared());
            let said = format!("{event:?}");
            queue.on_event(&folder_source(folder), event);
            let request =
                tokio::time::timeout(Duration::from_secs(20), queue.next_scan()).await.expect("requested");
            assert_eq!(request.entry_ids, None, "{said}");
        }
    }

    #[test]
    fn events_below_a_relative_folder_name_its_files_as_they_are_known() {
        let event = |path: &str| Event::new(EventKind::Any).add_path(PathBuf::from(path));
        let said =
            |path| rebase_paths(event(path), Path::new("/srv/tenants.d"), Path::new("tenants.d")).paths;
        assert_eq!(said("/srv/tenants.d/acme.yaml"), [PathBuf::from("tenants.d/acme.yaml")]);
        assert_eq!(said("/srv/tenants.d"), [PathBuf::from("tenants.d")]);
        assert_eq!(said("/elsewhere/x"), [PathBuf::from("/elsewhere/x")]);
    }

    #[test]
    fn our_own_reads_and_status_files_request_no_scan() {
        let folder = Path::new("/tenants");
        let queue = WatchQueue::new(SystemClock::shared());
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Read));
        queue.on_event(&folder_source(folder), Ok(Event::new(opened).add_path(folder.join("acme.yaml"))));
        let made = EventKind::Create(notify::event::CreateKind::File);
        queue
            .on_event(&folder_source(folder), Ok(Event::new(made).add_path(folder.join("acme.status.json"))));
        queue.on_event(
            &folder_source(folder),
            Ok(Event::new(made).add_path(folder.join(".acme.status.json.tmp"))),
        );
        assert_eq!(queue.lock_debouncer().next_due(), None);
    }
}
