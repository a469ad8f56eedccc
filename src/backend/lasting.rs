//! What outlives a reload of a tenant.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use jiff::Timestamp;

use super::Error;
use super::breaker::Breaker;
use super::bulkhead::Bulkhead;
use super::workbench::Workbench;
use crate::base::digest::Digest;
use crate::base::json::Document;

/// What outlives a reload of a tenant: its bulkhead, its breaker, its trouble and its last good context. All but the
/// bulkhead are about one backend: when a reload brings another one, they start anew.
#[derive(Debug)]
pub struct Lasting {
    pub(super) bulkhead: Bulkhead,
    pub(super) breaker: Breaker,
    /// Held by whoever works on a large answer.
    pub(super) bench: Workbench,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Which backend this is about.
    backend: Option<Digest>,
    context: Option<Kept>,
    /// What it is, and since when there is any.
    trouble: Option<(Error, Timestamp)>,
}

/// A context, and when it was fetched; `None` if that was in an earlier life of the process.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) value: Arc<Document>,
    pub(super) fetched: Option<Instant>,
}

impl Lasting {
    pub fn new() -> Self {
        Self {
            bulkhead: Bulkhead::closed(),
            breaker: Breaker::default(),
            bench: Workbench::default(),
            memory: Mutex::default(),
        }
    }

    /// From now on it is about this backend.
    pub(super) fn serve(&self, backend: Digest) {
        let mut memory = self.memory();
        if memory.backend != Some(backend) {
            *memory = Memory { backend: Some(backend), ..Memory::default() };
            self.breaker.reset();
        }
    }

    pub(super) fn context(&self, backend: Digest) -> Option<Kept> {
        let memory = self.memory();
        if memory.backend == Some(backend) { memory.context.clone() } else { None }
    }

    pub(super) fn keep_context(&self, backend: Digest, kept: Kept) {
        let mut memory = self.memory();
        if memory.backend == Some(backend) {
            memory.context = Some(kept);
        }
    }

    pub(super) fn trouble(&self) -> Option<(Error, Timestamp)> {
        self.memory().trouble.clone()
    }

    /// Notes how the backend is at `now`; says whether it fell into trouble or came out of it.
    pub(super) fn note(&self, backend: Digest, trouble: Option<Error>, now: Timestamp) -> bool {
        let mut memory = self.memory();
        if memory.backend != Some(backend) {
            return false;
        }
        let before = memory.trouble.as_ref().map(|(_, since)| *since);
        let turned = before.is_some() != trouble.is_some();
        memory.trouble = trouble.map(|trouble| (trouble, before.unwrap_or(now)));
        turned
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of this lock panics")
    }
}

impl Default for Lasting {
    fn default() -> Self {
        Self::new()
    }
}
