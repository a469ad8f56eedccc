//! One pass: look → sort → read → judge → build → publish → announce.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Ground;
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::digest::Digest;
use crate::base::task::Tasks;
use crate::bundle::{self, Entry, Loaded};
use crate::tenants::announce;
use crate::tenants::build::Parts;
use crate::tenants::drain::Drain;
use crate::tenants::look::{self, Sightings};
use crate::tenants::pace::Look;
use crate::tenants::plan;
use crate::tenants::receipt::Slip;
use crate::tenants::registry::{Published, Registry, RoutingTable};
use crate::tenants::roster::{Known, Roster};
use crate::tenants::scan::{self, FolderId, Found, SETTLE, Signature};
use crate::tenants::watch::{Doorbell, TICK, Watch};

/// Entries read at once: as many as the smallest machine has cores.
const READERS: usize = 2;
/// An empty folder in another's place removes nobody for this long: a volume may be about to be mounted.
const GRACE: Duration = Duration::from_secs(30);

/// The state of the task.
pub(super) struct Worker {
    folder: PathBuf,
    watch_mode: crate::settings::WatchMode,
    context: Arc<bundle::Context>,
    parts: Parts,
    registry: Registry,
    bell: Doorbell,
    drain: Drain,
    watch: Option<Watch>,
    folder_id: Option<FolderId>,
    /// Since when the folder is suspiciously empty or cannot be listed.
    doubt: Option<Instant>,
    roster: Roster,
    sightings: Sightings,
    generation: u64,
    settled: bool,
    receipts_refused: bool,
    looked_at_all: Instant,
}

impl Worker {
    pub(super) fn new(ground: Ground, bell: Doorbell, tasks: &Tasks) -> Self {
        let Ground { folder, watch, context, parts, registry } = ground;
        let looked_at_all = parts.clock.monotonic();
        let drain = Drain::start(tasks, Arc::clone(&parts.clock), parts.drain);
        Self {
            folder,
            watch_mode: watch,
            context,
            parts,
            registry,
            bell,
            drain,
            watch: None,
            folder_id: None,
            doubt: None,
            roster: Roster::new(),
            sightings: Sightings::new(),
            generation: 0,
            settled: false,
            receipts_refused: false,
            looked_at_all,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes the folder as it is.
    pub(super) async fn first_pass(&mut self) {
        self.look_at_all().await;
        tracing::info!(folder = %self.folder.display(), entries = self.roster.len(), "tenants folder read");
    }

    pub(super) async fn look_at_all(&mut self) {
        self.looked_at_all = self.parts.clock.monotonic();
        self.pass(Look::default()).await;
    }

    /// When all entries are due for a look, whatever was heard.
    pub(super) async fn until_tick(&self) {
        let due = self.looked_at_all + self.watch.as_ref().map_or(TICK, Watch::tick);
        tokio::time::sleep(due.saturating_duration_since(self.parts.clock.monotonic())).await;
    }

    /// When entries that have not settled are due for another look; never, if there are none.
    pub(super) async fn until_second_look(&self) {
        let Some(first) = self.sightings.values().map(|sighting| sighting.at).min() else {
            return std::future::pending().await;
        };
        let due = first + SETTLE;
        tokio::time::sleep(due.saturating_duration_since(self.parts.clock.monotonic())).await;
    }

    pub(super) async fn second_look(&mut self) {
        let stems = self.sightings.keys().map(|stem| stem.to_string()).collect();
        self.pass(Look { stems: Some(stems), ..Look::default() }).await;
    }

    /// One pass over what a look names.
    pub(super) async fn pass(&mut self, look: Look) {
        let started = self.parts.clock.monotonic();
        let changed = match self.try_pass(&look).await {
            Ok(changed) => Some(changed),
            Err(error) => {
                self.report_folder(&error);
                None
            }
        };
        if !self.settled {
            self.settled = true;
            self.publish(&[]).await;
        }
        let clock = &self.parts.clock;
        let elapsed = clock.monotonic().saturating_duration_since(started);
        let now = clock.now().as_millisecond() as f64 / 1000.0;
        self.parts.metrics.pass(changed.is_some(), changed.unwrap_or(0), elapsed, now);
    }

    async fn try_pass(&mut self, look: &Look) -> io::Result<usize> {
        let moved = self.watch_folder()?;
        let found = self.scan(look).await?;
        if self.is_doubtful(look, &found, moved) {
            return Ok(0);
        }
        let now = self.parts.clock.monotonic();
        let cold = !self.settled;
        let outcome = look::sort(look, found, &self.roster, &mut self.sightings, now, cold);
        self.include_folders(&outcome.to_read);
        let read = self.read(outcome.to_read).await;
        let mut changed: Vec<Arc<str>> = outcome.gone;
        for stem in &changed {
            self.remove(stem);
        }
        changed.extend(read.into_iter().filter_map(|read| self.take_in(read)));
        if !changed.is_empty() || self.has_waiting() {
            self.judge_and_build(&mut changed);
        }
        if !changed.is_empty() {
            self.settled = true;
            self.publish(&changed).await;
        }
        Ok(changed.len())
    }

    /// Watches the folder that is there now. Says whether it is another one than before.
    fn watch_folder(&mut self) -> io::Result<bool> {
        let id = FolderId::of(&self.folder)?;
        if self.folder_id == Some(id) && self.watch.is_some() {
            return Ok(false);
        }
        let moved = self.folder_id.replace(id).is_some_and(|before| before != id);
        self.watch = Some(Watch::start(&self.folder, self.watch_mode, &self.bell));
        Ok(moved)
    }

    async fn scan(&self, look: &Look) -> io::Result<Vec<Found>> {
        let (folder, only) = (self.folder.clone(), look.stems.clone());
        let scan = tokio::task::spawn_blocking(move || scan::scan(&folder, only.as_ref()));
        scan.await.map_err(io::Error::other)?
    }

    /// Whether an empty look at all may mean that the folder itself is gone.
    fn is_doubtful(&mut self, look: &Look, found: &[Found], moved: bool) -> bool {
        let empty = look.stems.is_none() && found.is_empty() && !self.roster.is_empty();
        if !empty {
            self.doubt = None;
            return false;
        }
        if moved && self.doubt.is_none() {
            self.doubt = Some(self.parts.clock.monotonic());
            tracing::warn!(
                folder = %self.folder.display(),
                "the tenants folder was replaced by an empty one; its tenants are kept for 30 s in case it is being mounted"
            );
        }
        self.doubt.is_some_and(|since| self.parts.clock.monotonic().duration_since(since) < GRACE)
    }

    fn report_folder(&mut self, error: &io::Error) {
        self.watch = None;
        if self.doubt.is_none() {
            self.doubt = Some(self.parts.clock.monotonic());
            tracing::warn!(
                %error,
                folder = %self.folder.display(),
                "the tenants folder cannot be read; its tenants go on as they are. Check that it exists and that this user may read it"
            );
        }
    }

    fn include_folders(&mut self, found: &[Found]) {
        let Some(watch) = &mut self.watch else { return };
        for found in found.iter().filter(|found| found.is_folder) {
            watch.include(&found.entry.stem);
        }
    }

    /// Reads entries on blocking threads, a few at once, in their order.
    async fn read(&self, found: Vec<Found>) -> Vec<Read> {
        let mut readers = JoinSet::new();
        let per_reader = found.len().div_ceil(READERS).max(1);
        let mut found = found;
        while !found.is_empty() {
            let rest = found.split_off(found.len().min(per_reader));
            let share = std::mem::replace(&mut found, rest);
            let context = Arc::clone(&self.context);
            readers.spawn_blocking(move || {
                share.into_iter().map(|found| read(found, &context)).collect::<Vec<_>>()
            });
        }
        let mut read = readers.join_all().await.concat();
        read.sort_by(|a, b| a.stem.cmp(&b.stem));
        read
    }

    /// Takes in what was read; a file that changed while it was read is looked at again.
    fn take_in(&mut self, read: Read) -> Option<Arc<str>> {
        if read.changed_meanwhile {
            self.bell.ring(read.stem.to_string());
            return None;
        }
        let now = self.parts.clock.now();
        let known = self.roster.entry(Arc::clone(&read.stem)).or_insert_with(|| Known::new(now));
        known.take_in(read.loaded, read.signature, read.files).then_some(read.stem)
    }

    fn remove(&mut self, stem: &Arc<str>) {
        self.roster.remove(stem);
        self.sightings.remove(stem);
        tracing::info!(entry = %stem, "tenant removed");
    }

    fn has_waiting(&self) -> bool {
        self.roster.values().any(Known::has_candidate)
    }

    /// Judges all claims and builds those who may serve; adds to `changed` whoever's lot is another now.
    fn judge_and_build(&mut self, changed: &mut Vec<Arc<str>>) {
        if !self.has_waiting() {
            return;
        }
        let applicants: Vec<_> = self.roster.iter().map(|(stem, known)| known.applicant(stem)).collect();
        let refused = plan::settle(&applicants);
        for (stem, known) in self.roster.iter_mut().filter(|(_, known)| known.has_candidate()) {
            match refused.get(&**stem) {
                Some(refusal) => {
                    let (message, help) = refusal.explain();
                    known.refuse(Diagnostic::error("claim-taken", message).help(help));
                }
                None => {
                    known.promote(|spec, revision, slot| self.parts.build(spec, revision, slot));
                    if !changed.contains(stem) {
                        changed.push(Arc::clone(stem));
                    }
                }
            }
        }
    }

    /// Publishes the world with these entries changed, then tells everybody.
    async fn publish(&mut self, changed: &[Arc<str>]) {
        self.generation += 1;
        let old = self.registry.load().entries.clone();
        let now = self.parts.clock.now();
        let mut entries = old.clone();
        let mut slips: Vec<Slip> = Vec::new();
        for stem in changed {
            match self.roster.get_mut(stem) {
                Some(known) => {
                    let published = known.publish(stem, &self.folder, now);
                    slips.push((stem.to_string(), Some(published.status())));
                    entries.insert(Arc::clone(stem), published);
                }
                None => {
                    entries.remove(stem);
                    slips.push((stem.to_string(), None));
                }
            }
        }
        let mut table = RoutingTable {
            entries,
            generation: self.generation,
            settled: self.settled,
            ..RoutingTable::default()
        };
        for tenant in table.entries.values().filter_map(|entry| entry.tenant.as_ref()) {
            tenant.spec.mounts.iter().for_each(|mount| table.router.insert(mount, Arc::clone(tenant)));
        }
        announce::count(&table, &self.roster, &self.parts.metrics);
        self.registry.publish(table);
        self.announce(changed, &old);
        self.forget_contexts(changed, &old).await;
        announce::hand_out(&self.folder, slips, &mut self.receipts_refused).await;
    }

    /// The contexts kept on disk go with their tenants.
    async fn forget_contexts(&self, changed: &[Arc<str>], old: &BTreeMap<Arc<str>, Published>) {
        let table = self.registry.load_full();
        let gone: Vec<_> = changed
            .iter()
            .filter(|stem| table.entries.get(*stem).is_none_or(|entry| entry.tenant.is_none()))
            .filter_map(|stem| Some(old.get(stem)?.tenant.as_ref()?.spec.name.clone()))
            .collect();
        if gone.is_empty() {
            return;
        }
        let warm_up = self.parts.warm_up.clone();
        let forget = tokio::task::spawn_blocking(move || gone.iter().for_each(|name| warm_up.forget(name)));
        if forget.await.is_err() {
            tracing::error!("removing the contexts of removed tenants failed inside tenantd");
        }
    }

    fn announce(&self, changed: &[Arc<str>], old: &BTreeMap<Arc<str>, Published>) {
        let table = self.registry.load();
        for stem in changed {
            let new = table.entries.get(stem);
            if let Some(new) = new {
                announce::log(&self.roster, stem, &new.status(), self.generation);
            }
            let old = old.get(stem);
            if let Some(old) = old {
                announce::dismiss(old, new, &self.drain);
            }
            let name = |entry: &Published| entry.status().name;
            let tenant = new.and_then(|new| new.tenant.as_ref());
            match tenant {
                None => old.map(name).iter().for_each(|name| self.parts.metrics.forget(name)),
                Some(tenant) => self.parts.warm_up.enqueue(tenant.spec.name.clone(), &tenant.backend),
            }
        }
    }
}

/// What was read of one entry.
#[derive(Clone)]
struct Read {
    stem: Arc<str>,
    loaded: Loaded,
    signature: Signature,
    files: Vec<PathBuf>,
    changed_meanwhile: bool,
}

fn read(found: Found, context: &bundle::Context) -> Read {
    let Found { entry, signature, .. } = found;
    let loaded =
        catch_unwind(AssertUnwindSafe(|| bundle::load(&entry, context))).unwrap_or_else(|_| broken(&entry));
    let changed_meanwhile = Signature::of(&entry) != signature;
    Read { stem: entry.stem.as_str().into(), loaded, signature, files: entry.files, changed_meanwhile }
}

/// A panic while reading is our fault; it costs this entry and no other.
fn broken(entry: &Entry) -> Loaded {
    let finding = Diagnostic::error("internal", "reading this entry failed inside tenantd")
        .help("the log says where; please report it with the file that causes it");
    let located = match entry.files.first() {
        Some(file) => finding.at(Location::file(file)),
        None => finding,
    };
    let digest = Digest::of(entry.stem.as_bytes());
    Loaded { digest, name: None, spec: None, access: None, report: Report::from(located) }
}
