//! Whether the database can be used. Every statement reports its outcome.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Error;
use crate::base::clock::{Clock, SystemClock};
use crate::base::sync::lock_unpoisoned;

/// How long after an absence of the database other gateways may not have noticed its return.
const SETTLING: Duration = Duration::from_secs(15);

type Callback = Box<dyn Fn(bool) + Send + Sync>;

/// The outcome of the last statement.
pub(in crate::store) struct ConnectionHealth {
    shown: String,
    is_away: AtomicBool,
    clock: Arc<dyn Clock>,
    /// When the database came back last.
    back_at: Mutex<Option<Instant>>,
    callback: OnceLock<Callback>,
}

impl ConnectionHealth {
    pub(super) fn new(shown: String) -> Self {
        Self {
            shown,
            is_away: AtomicBool::new(false),
            clock: SystemClock::shared(),
            back_at: Mutex::default(),
            callback: OnceLock::new(),
        }
    }

    /// The same of a database that is away from the start.
    pub(super) fn away(shown: String) -> Self {
        let health = Self::new(shown);
        health.is_away.store(true, Ordering::Relaxed);
        health
    }

    pub(in crate::store) fn is_writable(&self) -> bool {
        !self.is_away.load(Ordering::Relaxed)
    }

    /// Returns whether the database is away, or has been back for a moment only.
    pub(in crate::store) fn was_away_lately(&self) -> bool {
        let back_at = *lock_unpoisoned(&self.back_at);
        !self.is_writable() || back_at.is_some_and(|at| self.clock.monotonic() < at + SETTLING)
    }

    /// Calls `on_change` whenever [`ConnectionHealth::is_writable`] changes. There is one callback at most.
    pub(in crate::store) fn on_change(&self, on_change: impl Fn(bool) + Send + Sync + 'static) {
        let set = self.callback.set(Box::new(on_change));
        debug_assert!(set.is_ok(), "there is a callback already");
    }

    /// Records the outcome of a statement. Logs when the database goes and when it comes back.
    pub(super) fn observe<T>(&self, outcome: &Result<T, Error>) {
        let is_away = match outcome {
            Ok(_) => false,
            Err(error) if error.is_outage() => true,
            // The database answered.
            Err(_) => return,
        };
        if self.is_away.swap(is_away, Ordering::Relaxed) == is_away {
            return;
        }
        match outcome {
            Err(error) => tracing::error!(
                database = self.shown,
                %error,
                "the database of logins is away: logins and renewals must wait, calls with tokens that were used \
                 before go on"
            ),
            Ok(_) => {
                *lock_unpoisoned(&self.back_at) = Some(self.clock.monotonic());
                tracing::info!(database = self.shown, "the database of logins is back");
            }
        }
        if let Some(callback) = self.callback.get() {
            callback(!is_away);
        }
    }
}
