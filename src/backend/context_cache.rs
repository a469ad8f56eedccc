//! The semantic contexts that are kept in memory: one slot for each tenant, one budget for all.
//!
//! A context counts with its bytes and with those of what is derived from it. When the budget is
//! full, the largest contexts are dropped first: a context gets the room of larger ones, never that
//! of smaller ones. Among `n` tenants, a context of at most an `n`th of the budget is therefore
//! always kept, whatever the others do, and no two tenants keep dropping each other's context.
//!
//! A context without room is given to those who asked for it and then forgotten; the next call
//! fetches it again.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::base::budget::{Budget, Exhausted, Reservation};
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::json::JsonDocument;
use crate::base::log_limiter::LogLimiter;
use crate::telemetry::metrics::Metrics;

/// What a kept context takes besides its text: a digest for models, and its places in the maps.
const OVERHEAD_BYTES: u64 = 3 << 10;
/// How often the log says that contexts have no room.
const LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// A tenant's semantic context: the backend's document, and what is derived from it.
#[derive(Debug)]
pub struct SemanticContext {
    document: Arc<JsonDocument>,
    derived: OnceLock<Box<dyn Any + Send + Sync>>,
    memory: ContextMemory,
}

/// Where the memory of a context is counted.
#[derive(Debug)]
enum ContextMemory {
    /// In the cache, as long as the slot has the context.
    Kept { cache: ContextCache, cell: Weak<SlotCell> },
    /// Among the backends' answers, as long as somebody has the context.
    Unkept { _reservation: Option<Reservation> },
}

/// A context that was fetched, or loaded after a restart.
#[derive(Debug)]
pub(super) struct FetchedContext {
    /// The backend that it belongs to.
    pub(super) backend: Digest,
    /// Holds no spare capacity.
    pub(super) document: JsonDocument,
    /// `None` if it was loaded.
    pub(super) fetched_at: Option<Instant>,
    /// What it holds of the memory for backends' answers.
    pub(super) reservation: Option<Reservation>,
}

/// A context in its slot.
#[derive(Debug, Clone)]
pub(super) struct CachedContext {
    pub(super) context: Arc<SemanticContext>,
    /// `None` if that was before a restart.
    pub(super) fetched_at: Option<Instant>,
    backend: Digest,
}

/// The contexts of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ContextCache(Arc<CacheShared>);

#[derive(Debug)]
struct CacheShared {
    budget: Arc<Budget>,
    /// Locked before the cell of any slot.
    index: Mutex<ContextIndex>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    log_limiter: LogLimiter,
}

/// The slots that have a context, from the smallest to the largest context.
#[derive(Debug)]
struct ContextIndex {
    slots: BTreeMap<Rank, ListedSlot>,
    /// What all contexts hold together.
    memory: Reservation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    weight: u64,
    /// The address of the slot's cell, which tells slots of one weight apart.
    cell: usize,
}

#[derive(Debug, Clone)]
struct ListedSlot {
    cell: Arc<SlotCell>,
    tenant: Option<Arc<str>>,
}

/// A context that left its slot. Its memory is freed with it, after the locks.
#[derive(Debug)]
struct DroppedContext {
    tenant: Option<Arc<str>>,
    weight: u64,
    _context: Option<CachedContext>,
}

/// The place of one tenant's context.
#[derive(Debug, Default)]
pub(super) struct ContextSlot(Arc<SlotCell>);

#[derive(Debug, Default)]
struct SlotCell(Mutex<SlotContent>);

#[derive(Debug, Default)]
struct SlotContent {
    context: Option<CachedContext>,
    /// The weight under which the index lists the slot; 0 if it does not.
    weight: u64,
    /// The weight of the last context if there was no room for it; else 0.
    rejected_weight: u64,
}

impl SemanticContext {
    /// Returns the backend's document.
    pub fn document(&self) -> &Arc<JsonDocument> {
        &self.document
    }

    /// Returns what is derived from the document and dropped with it. Always ask for the same type.
    pub fn derived<T: Any + Send + Sync + Default>(&self) -> &T {
        let derived = self.derived.get_or_init(|| Box::<T>::default());
        derived.downcast_ref().expect("one type is derived from contexts")
    }

    /// Creates a context that no cache has.
    #[cfg(test)]
    pub fn from_document(document: JsonDocument) -> Self {
        Self::new(document, ContextMemory::Unkept { _reservation: None })
    }

    /// Creates a context that is not kept: it lives as long as somebody has it.
    pub(super) fn unkept(fetched: FetchedContext) -> Self {
        Self::new(fetched.document, ContextMemory::Unkept { _reservation: fetched.reservation })
    }

    fn new(document: JsonDocument, memory: ContextMemory) -> Self {
        Self { document: Arc::new(document), derived: OnceLock::new(), memory }
    }

    /// Whether the context was kept when it was fetched. Others may have taken its room since.
    pub fn was_kept(&self) -> bool {
        matches!(self.memory, ContextMemory::Kept { .. })
    }

    /// Counts `bytes` of derived values besides the digest with the context, in place of what was
    /// counted before. Returns `false`, and changes nothing, if the context is not kept or there is
    /// no room.
    pub fn reserve_derived(&self, bytes: usize) -> bool {
        let ContextMemory::Kept { cache, cell } = &self.memory else { return false };
        cell.upgrade().is_some_and(|cell| cache.reserve_derived(&cell, self, bytes))
    }

    fn weight(&self) -> u64 {
        base_weight(&self.document)
    }
}

/// Returns the weight of a context from which only a digest is derived yet.
fn base_weight(document: &JsonDocument) -> u64 {
    OVERHEAD_BYTES + document.capacity() as u64
}

impl ContextCache {
    /// Creates a cache whose contexts count in `budget`, which nothing else may use.
    pub(super) fn new(budget: Arc<Budget>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let memory = budget.new_reservation(None, None, true);
        let index = Mutex::new(ContextIndex { slots: BTreeMap::new(), memory });
        let log_limiter = LogLimiter::new(LOG_INTERVAL);
        Self(Arc::new(CacheShared { budget, index, clock, metrics, log_limiter }))
    }

    /// Puts a context into a tenant's slot in place of the last one, and returns it. If there is no
    /// room for it, the slot is empty afterwards.
    pub(super) fn keep(
        &self,
        slot: &ContextSlot,
        fetched: FetchedContext,
        tenant: Option<Arc<str>>,
    ) -> Arc<SemanticContext> {
        let weight = base_weight(&fetched.document);
        let mut index = self.index();
        let _replaced = index.remove(&slot.0);
        let Some(dropped) = self.make_room(&mut index, weight, weight) else {
            slot.0.content().rejected_weight = weight;
            drop(index);
            self.report_unkept(tenant.as_deref());
            return Arc::new(SemanticContext::unkept(fetched));
        };
        let FetchedContext { backend, document, fetched_at, reservation } = fetched;
        let memory = ContextMemory::Kept { cache: self.clone(), cell: Arc::downgrade(&slot.0) };
        let context = Arc::new(SemanticContext::new(document, memory));
        index.insert_listing(ListedSlot { cell: Arc::clone(&slot.0), tenant }, weight);
        let mut content = slot.0.content();
        content.rejected_weight = 0;
        content.context = Some(CachedContext { context: Arc::clone(&context), fetched_at, backend });
        drop((content, index, reservation));
        self.report_dropped(&dropped);
        context
    }

    /// Returns whether the last context of a slot had no room and would have some now.
    pub(super) fn has_room_again(&self, slot: &ContextSlot) -> bool {
        let rejected_weight = slot.0.content().rejected_weight;
        rejected_weight != 0 && rejected_weight <= self.free()
    }

    fn reserve_derived(&self, cell: &Arc<SlotCell>, context: &SemanticContext, bytes: usize) -> bool {
        let mut index = self.index();
        if !cell.content().has(context) {
            return false;
        }
        let Some((slot, before)) = index.remove_listing(cell) else { return false };
        let weight = context.weight() + bytes as u64;
        let dropped = self.make_room(&mut index, weight.saturating_sub(before), weight);
        match &dropped {
            Some(_) => index.resize(slot, before, weight),
            None => index.resize(slot, before, before),
        }
        drop(index);
        dropped.inspect(|dropped| self.report_dropped(dropped)).is_some()
    }

    /// Changes how much memory contexts may take to `mib` MiB. What no longer fits is dropped, the
    /// largest first.
    pub(super) fn set_mib(&self, mib: usize) {
        let mut index = self.index();
        self.0.budget.set_mib(mib);
        let mut dropped = Vec::new();
        while self.0.budget.held() > self.0.budget.limit() {
            let Some((_, largest)) = index.slots.last_key_value() else { break };
            let cell = Arc::clone(&largest.cell);
            dropped.extend(index.drop_context(&cell));
        }
        drop(index);
        self.report_dropped(&dropped);
    }

    /// Makes `needed` bytes free by dropping contexts of more than `weight` bytes, the largest
    /// first. Drops none, and returns `None`, if that does not suffice.
    fn make_room(&self, index: &mut ContextIndex, needed: u64, weight: u64) -> Option<Vec<DroppedContext>> {
        let mut free = self.free();
        let mut larger = index.slots.range(Rank { weight: weight + 1, cell: 0 }..).rev();
        let mut cells = Vec::new();
        while free < needed {
            let (rank, slot) = larger.next()?;
            free += rank.weight;
            cells.push(Arc::clone(&slot.cell));
        }
        Some(cells.iter().filter_map(|cell| index.drop_context(cell)).collect())
    }

    fn free(&self) -> u64 {
        self.0.budget.limit().saturating_sub(self.0.budget.held())
    }

    fn report_dropped(&self, dropped: &[DroppedContext]) {
        dropped.iter().for_each(|dropped| self.report_unkept(dropped.tenant.as_deref()));
    }

    /// Counts a context that is not kept, and logs it unless that was done recently.
    fn report_unkept(&self, tenant: Option<&str>) {
        self.0.metrics.record_budget_rejection("contexts", Exhausted::Budget.reason());
        tracing::debug!(tenant, "a semantic context is not kept for want of memory");
        let Some(suppressed) = self.0.log_limiter.check(self.0.clock.monotonic()) else { return };
        tracing::warn!(
            tenant,
            suppressed,
            "the semantic contexts of all tenants together take all of limits.context_memory_mib, so the \
             largest are not kept and each call that needs one fetches it again; docs/configuration.md \
             says what counts"
        );
    }

    fn index(&self) -> MutexGuard<'_, ContextIndex> {
        self.0.index.lock().expect("no holder of this lock panics")
    }
}

impl ContextIndex {
    /// Lists a slot whose context weighs this much. The caller has made room.
    fn insert_listing(&mut self, slot: ListedSlot, weight: u64) {
        self.resize(slot, 0, weight);
    }

    /// Lists a slot whose context weighed `before` and weighs `weight` now.
    fn resize(&mut self, slot: ListedSlot, before: u64, weight: u64) {
        self.memory.shrink(before.saturating_sub(weight));
        let grown = self.memory.try_grow(weight.saturating_sub(before));
        debug_assert_eq!(grown, Ok(()), "room was made under the same lock");
        slot.cell.content().weight = weight;
        self.slots.insert(Rank::new(&slot.cell, weight), slot);
    }

    /// Takes a slot from the list. The memory of its context stays counted.
    fn remove_listing(&mut self, cell: &Arc<SlotCell>) -> Option<(ListedSlot, u64)> {
        let weight = std::mem::take(&mut cell.content().weight);
        self.slots.remove(&Rank::new(cell, weight)).map(|slot| (slot, weight))
    }

    /// Empties a slot and returns what it had.
    fn remove(&mut self, cell: &Arc<SlotCell>) -> Option<DroppedContext> {
        let (slot, weight) = self.remove_listing(cell)?;
        self.memory.shrink(weight);
        let context = cell.content().context.take();
        Some(DroppedContext { tenant: slot.tenant, weight, _context: context })
    }

    /// Empties a slot to the benefit of another, and returns what it had.
    fn drop_context(&mut self, cell: &Arc<SlotCell>) -> Option<DroppedContext> {
        let dropped = self.remove(cell)?;
        cell.content().rejected_weight = dropped.weight;
        Some(dropped)
    }
}

impl Rank {
    fn new(cell: &Arc<SlotCell>, weight: u64) -> Self {
        Self { weight, cell: Arc::as_ptr(cell).addr() }
    }
}

impl ContextSlot {
    /// Returns the context of this backend, if it is kept.
    pub(super) fn cached_context(&self, backend: Digest) -> Option<CachedContext> {
        self.0.content().context.as_ref().filter(|context| context.backend == backend).cloned()
    }

    /// Forgets the context.
    pub(super) fn clear(&self) {
        let context = {
            let mut content = self.0.content();
            content.rejected_weight = 0;
            content.context.as_ref().map(|kept| Arc::clone(&kept.context))
        };
        if let Some(ContextMemory::Kept { cache, .. }) = context.as_deref().map(|context| &context.memory) {
            let removed = cache.index().remove(&self.0);
            drop(removed);
        }
    }
}

impl Drop for ContextSlot {
    fn drop(&mut self) {
        self.clear();
    }
}

impl SlotCell {
    fn content(&self) -> MutexGuard<'_, SlotContent> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl SlotContent {
    fn has(&self, context: &SemanticContext) -> bool {
        self.context.as_ref().is_some_and(|kept| std::ptr::eq(&*kept.context, context))
    }
}

#[cfg(test)]
mod tests;
