//! One pass: scan → classify → load → decide → build → publish → announce.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Ground;
use super::read::{Read, build, read};
use crate::base::task::Tasks;
use crate::bundle;
use crate::tenants::build::Parts;
use crate::tenants::companions::Companions;
use crate::tenants::drain::Drain;
use crate::tenants::holdings::Holdings;
use crate::tenants::keeper::Keeper;
use crate::tenants::kindred::Kindred;
use crate::tenants::look::{self, Due, Sightings};
use crate::tenants::pace::Look;
use crate::tenants::plan::{self, Refusal};
use crate::tenants::receipt::Clerk;
use crate::tenants::registry::Registry;
use crate::tenants::roster::{Known, Roster};
use crate::tenants::scan::{self, FolderId, Found, NamedFiles, SETTLE, Scanned, Sighting};
use crate::tenants::watch::{Doorbell, POLL, Surroundings, Watch};

/// The number of concurrent readers: the cores of the smallest machine.
const READERS: usize = 2;
/// The number of entries that are read, and persisted, in one batch: reading an entry takes more
/// memory than keeping it.
pub(super) const AT_ONCE: usize = 256;
/// How long tenants are kept after their folder was replaced by an empty one: a volume may be about
/// to be mounted.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// The stems of the entries that changed in a pass.
pub(super) type Changed = BTreeSet<Arc<str>>;

/// The state of the task.
pub(super) struct Worker {
    pub(super) folder: Arc<Path>,
    watch_mode: crate::settings::WatchMode,
    pub(super) context: Arc<bundle::Context>,
    pub(super) parts: Parts,
    pub(super) registry: Registry,
    bell: Doorbell,
    pub(super) drain: Drain,
    pub(super) clerk: Clerk,
    watch: Option<Watch>,
    _surroundings: Option<Surroundings>,
    folder_id: Option<FolderId>,
    /// Since when the folder is suspiciously empty or cannot be listed.
    doubt: Option<Instant>,
    pub(super) roster: Roster,
    pub(super) holdings: Holdings,
    companions: Companions,
    pub(super) sightings: Sightings,
    kindred: Kindred,
    pub(super) keeper: Keeper,
    /// Whether the folder was seen with entries in it, or counts as empty for good.
    pub(super) is_known: bool,
    pub(super) started: Instant,
    pub(super) generation: u64,
    pub(super) settled: bool,
    looked_at_all: Instant,
}

impl Worker {
    pub(super) fn new(ground: Ground, bell: Doorbell, tasks: &Tasks) -> Self {
        let Ground { folder, watch, context, parts, registry, store, kept } = ground;
        let looked_at_all = parts.clock.monotonic();
        let folder: Arc<Path> = folder.into();
        let drain = Drain::start(tasks, Arc::clone(&parts.clock), parts.drain);
        let surroundings = Surroundings::watch(&folder, watch, &bell);
        let clerk = Clerk::start(tasks, Arc::clone(&folder), registry.clone());
        let (keeper, mut holdings) = (Keeper::new(store, kept), Holdings::default());
        keeper.holdings().for_each(|(stem, holding)| holdings.reserve(stem, holding));
        Self {
            folder,
            watch_mode: watch,
            context,
            parts,
            registry,
            bell,
            drain,
            clerk,
            watch: None,
            _surroundings: surroundings,
            folder_id: None,
            doubt: None,
            roster: Roster::new(),
            holdings,
            companions: Companions::default(),
            sightings: Sightings::new(),
            kindred: Kindred::default(),
            keeper,
            is_known: false,
            started: looked_at_all,
            generation: 0,
            settled: false,
            looked_at_all,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn now(&self) -> Instant {
        self.parts.clock.monotonic()
    }

    /// Whether no entry waits for another scan.
    pub(super) fn has_settled(&self) -> bool {
        self.sightings.is_empty()
    }

    /// Runs the first pass, which takes the folder as it is.
    pub(super) async fn first_pass(&mut self) {
        self.look_at_all().await;
        tracing::info!(folder = %self.folder.display(), entries = self.roster.len(), "tenants folder read");
    }

    pub(super) async fn look_at_all(&mut self) {
        self.looked_at_all = self.parts.clock.monotonic();
        if let Some(watch) = &mut self.watch {
            watch.try_again(&self.bell);
        }
        self.pass(Look::default()).await;
    }

    /// Waits until the next periodic full scan is due.
    pub(super) async fn until_tick(&self) {
        // No event would announce that a missing folder is back, so it is polled.
        let due = self.looked_at_all + self.watch.as_ref().map_or(POLL, Watch::tick);
        tokio::time::sleep(due.saturating_duration_since(self.parts.clock.monotonic())).await;
    }

    /// Waits until entries that have not settled are due for another scan; forever if there are
    /// none.
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

    /// Runs one pass over the entries of a scan request.
    pub(super) async fn pass(&mut self, mut look: Look) {
        let started = self.parts.clock.monotonic();
        let changed = match self.try_pass(&mut look).await {
            Ok(changed) => Some(changed),
            Err(error) => {
                self.report_folder(&error);
                None
            }
        };
        if !self.settled {
            self.settled = true;
            self.publish(&Changed::new()).await;
        }
        let clock = &self.parts.clock;
        let elapsed = clock.monotonic().saturating_duration_since(started);
        let now = clock.now().as_millisecond() as f64 / 1000.0;
        self.parts.metrics.pass(changed.is_some(), changed.unwrap_or(0), elapsed, now);
        self.parts.metrics.folder(self.sightings.len(), self.watch.as_ref().is_some_and(Watch::is_notified));
    }

    async fn try_pass(&mut self, look: &mut Look) -> io::Result<usize> {
        let moved = self.watch_folder()?;
        if moved || self.doubt.is_some() {
            // In a replaced folder all entries must be scanned: no event names those that are
            // missing.
            look.stems = None;
        }
        look.stems.iter_mut().for_each(|stems| self.kindred.widen(stems));
        let scanned = self.scan(look).await?;
        self.kindred.note(&scanned, look.stems.is_none());
        let found = scanned.found;
        if self.is_doubtful(&found, look, moved) {
            return Ok(0);
        }
        let now = self.parts.clock.monotonic();
        let cold = !self.settled;
        self.drop_absent(&found, look);
        self.watch_folders(&found);
        let outcome = look::sort(look, found, &self.roster, &mut self.sightings, now, cold);
        let mut changed: Changed = outcome.gone.into_iter().collect();
        for stem in &changed {
            self.remove(stem);
        }
        changed.extend(self.read_and_take_in(outcome.to_read, now).await);
        self.judge_and_build(&mut changed);
        let news = self.keep(&changed).await;
        changed.extend(news);
        if !changed.is_empty() {
            self.settled = true;
            self.publish(&changed).await;
        }
        Ok(changed.len())
    }

    /// Watches the current folder. Returns whether it was replaced.
    fn watch_folder(&mut self) -> io::Result<bool> {
        let id = FolderId::of(&self.folder)?;
        if self.folder_id == Some(id) && self.watch.is_some() {
            return Ok(false);
        }
        let moved = self.folder_id.replace(id).is_some_and(|before| before != id);
        self.watch = Some(Watch::start(&self.folder, self.watch_mode, &self.bell));
        Ok(moved)
    }

    async fn scan(&self, look: &Look) -> io::Result<Scanned> {
        let (folder, only) = (self.folder.clone(), look.stems.clone());
        let named = self.named_files(look);
        let scan = tokio::task::spawn_blocking(move || scan::scan(&folder, only.as_ref(), &named));
        scan.await.map_err(io::Error::other)?
    }

    /// Returns the files that the entries' files name, as last read, whether or not that was
    /// accepted.
    fn named_files(&self, look: &Look) -> HashMap<Arc<str>, NamedFiles> {
        let is_looked_at = |stem: &str| look.stems.as_ref().is_none_or(|stems| stems.contains(stem));
        let known = self.roster.iter().map(|(stem, known)| (stem, known.signature.named()));
        let known = known.filter(|(_, named)| !named.is_empty());
        let unsettled = self.sightings.iter();
        let unsettled =
            unsettled.filter_map(|(stem, sighting)| Some((stem, sighting.signature.as_ref()?.named())));
        let named = known.chain(unsettled).filter(|(stem, _)| is_looked_at(stem));
        named.map(|(stem, named)| (Arc::clone(stem), Arc::clone(named))).collect()
    }

    /// Whether an empty full scan may mean that the folder itself is missing.
    fn is_doubtful(&mut self, found: &[Found], look: &Look, moved: bool) -> bool {
        if look.stems.is_some() {
            return false;
        }
        if !found.is_empty() || self.roster.is_empty() {
            if self.doubt.take().is_some() {
                tracing::info!(folder = %self.folder.display(), "the tenants folder is there again");
            }
            return false;
        }
        let now = self.parts.clock.monotonic();
        if moved {
            self.doubt = Some(now);
            tracing::warn!(
                folder = %self.folder.display(),
                "the tenants folder was replaced by an empty one; its tenants are kept for 30 s in case it is being mounted"
            );
        }
        let doubtful = self.doubt.is_some_and(|since| now.duration_since(since) < GRACE);
        if doubtful {
            self.sightings.clear();
        } else {
            self.doubt = None;
        }
        doubtful
    }

    fn report_folder(&mut self, error: &io::Error) {
        self.watch = None;
        self.sightings.clear();
        if self.doubt.is_none() {
            self.doubt = Some(self.parts.clock.monotonic());
            tracing::warn!(
                %error,
                folder = %self.folder.display(),
                "the tenants folder cannot be read; its tenants go on as they are. Check that it exists and that this user may read it"
            );
        }
    }

    /// Watches tenants that are folders. A folder that changed may have been replaced, so its watch
    /// is renewed.
    fn watch_folders(&mut self, found: &[Found]) {
        let Some(watch) = &mut self.watch else { return };
        for found in found.iter().filter(|found| found.is_folder) {
            let stem = found.entry.stem.as_str();
            let is_as_it_was = self.roster.get(stem).is_some_and(|known| known.signature == found.signature);
            if !(is_as_it_was && watch.includes(stem)) {
                watch.include(stem);
            }
        }
    }

    /// Reads entries in batches and updates the roster. Returns those that changed.
    async fn read_and_take_in(&mut self, due: Vec<Due>, now: Instant) -> Changed {
        let (mut due, mut changed) = (due.into_iter(), Changed::new());
        while due.len() > 0 {
            let read = self.read(due.by_ref().take(AT_ONCE).collect()).await;
            changed.extend(read.into_iter().filter_map(|read| self.take_in(read, now)));
        }
        changed
    }

    /// Reads entries on blocking threads, in a few shares. Returns them in order of their stems.
    async fn read(&self, due: Vec<Due>) -> Vec<Read> {
        let mut readers = JoinSet::new();
        let per_reader = due.len().div_ceil(READERS).max(1);
        let kept = |due: Due| (self.keeper.last_good(&due.found.entry.stem), due);
        let mut due: Vec<_> = due.into_iter().map(kept).collect();
        while !due.is_empty() {
            let rest = due.split_off(due.len().min(per_reader));
            let share = std::mem::replace(&mut due, rest);
            let (context, folder) = (Arc::clone(&self.context), self.folder.clone());
            let read_one = move |(last_good, due)| read(due, last_good, &folder, &context);
            readers.spawn_blocking(move || share.into_iter().map(read_one).collect::<Vec<_>>());
        }
        let mut read: Vec<Read> = readers.join_all().await.into_iter().flatten().collect();
        read.sort_by(|a, b| a.stem.cmp(&b.stem));
        read
    }

    /// Updates the roster with what was read of an entry, unless it is still being written.
    fn take_in(&mut self, read: Read, now: Instant) -> Option<Arc<str>> {
        if read.is_unsettled(!self.roster.contains_key(&read.stem)) {
            look::unsettled(&mut self.sightings, read.stem, read.afterwards, now);
            return None;
        }
        self.sightings.remove(&read.stem);
        let since = self.parts.clock.now();
        let known = self
            .roster
            .entry(Arc::clone(&read.stem))
            .or_insert_with(|| Box::new(Known::new(since, self.keeper.remember(&read.stem))));
        if let Some(revived) = read.revived {
            known.revive(revived, since, |spec, revision, slot| {
                build(&self.parts, &read.stem, spec, revision, slot)
            });
        }
        known.take_in(read.loaded, read.signature, read.files).then_some(read.stem)
    }

    pub(super) fn remove(&mut self, stem: &Arc<str>) {
        let paused = self.roster.remove(stem).is_some_and(|known| known.is_paused());
        self.keeper.gone(stem, paused);
        self.sightings.remove(stem);
        tracing::info!(entry = %stem, "tenant removed");
    }

    /// Resolves all claims and builds the candidates that may serve; adds to `changed` the entries
    /// whose state changed.
    pub(super) fn judge_and_build(&mut self, changed: &mut Changed) {
        self.note_holdings(changed);
        if !self.holdings.waiting().is_empty() {
            self.judge(changed);
            self.note_holdings(changed);
        }
        self.warn_of_guards(changed);
    }

    fn judge(&mut self, changed: &mut Changed) {
        let now = self.parts.clock.now();
        let (holdings, sightings) = (&self.holdings, &self.sightings);
        let refused = plan::settle(&self.holdings.applicants(&self.roster, &self.companions));
        for stem in self.holdings.waiting().clone() {
            let Some(known) = self.roster.get_mut(&stem) else { continue };
            let news = match refused.get(&*stem) {
                Some(refusal) => known.refuse(refusal.finding(&stem), !is_away(refusal, holdings, sightings)),
                None => {
                    known
                        .promote(now, |spec, revision, slot| build(&self.parts, &stem, spec, revision, slot));
                    true
                }
            };
            if news {
                changed.insert(stem);
            }
        }
    }

    fn note_holdings(&mut self, changed: &Changed) {
        for stem in changed {
            let known = self.roster.get(stem).map(|known| &**known);
            self.holdings.note(stem, known);
            let guards = known.map(Known::guards).unwrap_or_default();
            let open = known.map(|known| known.open().to_vec()).unwrap_or_default();
            self.companions.note(stem, guards, open);
        }
    }

    /// Tells those who are open whether another guards the same data; adds to `changed` whoever is told something new.
    fn warn_of_guards(&mut self, changed: &mut Changed) {
        for stem in self.companions.concerned(changed) {
            let Some(known) = self.roster.get_mut(&stem) else { continue };
            let guard = self.companions.guard(&stem, known.open());
            if known.note_guarded(guard.map(|by| plan::stays_open(by))) {
                changed.insert(stem);
            }
        }
    }
}

/// Whether the holder's files were missing in the last scan. The newcomer may be there to replace
/// them; the next scan shows whether they are gone, so the refusal does not last.
fn is_away(refusal: &Refusal, holdings: &Holdings, sightings: &Sightings) -> bool {
    let away = |stem: &str| sightings.get(stem).is_some_and(Sighting::is_of_nothing);
    match refusal {
        Refusal::Name { holder, .. } => away(holder),
        Refusal::Mount(conflict) => holdings.named(&conflict.holder).any(|stem| away(stem)),
        // What a guard that goes away leaves behind is not opened by that.
        Refusal::Free { .. } | Refusal::Guarded { .. } => false,
    }
}
