//! The orders of operators that this gateway knows, and those that it has yet to read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::{ChangeBatch, ClusterStore, EntryOrders, ORDER_CHANGE};

/// The pause after a failure to read orders.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The orders that this gateway knows.
pub(super) struct OrderBook {
    pub(super) cluster: ClusterStore,
    pub(super) orders: HashMap<Arc<str>, EntryOrders>,
    /// Which were given and could not be read yet; all, if it is not known which.
    pub(super) unread: Unread,
    pub(super) retry_at: Option<Instant>,
}

/// Orders that are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    Some(Vec<Arc<str>>),
    All,
}

impl Unread {
    pub(super) fn add(&mut self, batch: &ChangeBatch) {
        match (self, batch) {
            (Self::All, _) => {}
            (unread, ChangeBatch::Everything) => *unread = Self::All,
            (Self::Some(entry_ids), ChangeBatch::Changes(changes)) => {
                let orders = changes.iter().filter(|change| &*change.kind == ORDER_CHANGE);
                entry_ids.extend(orders.map(|change| Arc::clone(&change.tenant)));
            }
        }
    }

    pub(super) fn add_entry(&mut self, entry_id: &str) {
        if let Self::Some(entry_ids) = self {
            entry_ids.push(entry_id.into());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Some(entry_ids) if entry_ids.is_empty())
    }
}

impl OrderBook {
    pub(super) fn new(cluster: ClusterStore) -> Self {
        Self { cluster, orders: HashMap::new(), unread: Unread::All, retry_at: None }
    }

    /// Returns the orders about an entry.
    pub(super) fn find(&self, entry_id: &str) -> EntryOrders {
        self.orders.get(entry_id).copied().unwrap_or_default()
    }

    /// Reads what is unread. Returns the entries whose orders changed.
    pub(super) async fn read(&mut self, now: Instant) -> BTreeSet<Arc<str>> {
        let only = match &self.unread {
            Unread::All => None,
            Unread::Some(entry_ids) => Some(entry_ids.as_slice()),
        };
        let read = match self.cluster.load_orders(only).await {
            Ok(read) => read,
            Err(error) => {
                if self.retry_at.is_none() {
                    tracing::warn!(%error, "operators' orders cannot be read; the gateway tries again every second");
                }
                self.retry_at = Some(now + RETRY_PAUSE);
                return BTreeSet::new();
            }
        };
        self.retry_at = None;
        let concerned: BTreeSet<Arc<str>> =
            match std::mem::replace(&mut self.unread, Unread::Some(Vec::new())) {
                Unread::All => self.orders.keys().chain(read.keys()).cloned().collect(),
                Unread::Some(entry_ids) => entry_ids.into_iter().collect(),
            };
        let mut changed = BTreeSet::new();
        for entry_id in concerned {
            let orders = read.get(&entry_id).copied().unwrap_or_default();
            if self.find(&entry_id) != orders {
                self.orders.insert(Arc::clone(&entry_id), orders);
                changed.insert(entry_id);
            }
        }
        changed
    }
}
