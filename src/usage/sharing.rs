//! Counting together with the gateways that share a database.
//!
//! Every few seconds a gateway sends what it counted since the last time, reads the sums of all,
//! and goes on from them. So quotas may be passed by what all gateways admit between two exchanges.
//! While the database is away, each goes on from the last sums with its own calls, and sends those
//! later; nothing is sent twice, since each batch has a number and stays as it is until it is
//! acknowledged.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use super::Usage;
use super::limit::QuotaWarning;
use super::period::Period;
use crate::base::random;
use crate::base::sync::lock;
use crate::store::{self, ClusterStore, SharedNews, UsageBatch, UsageBatchId};

/// How many rows of the ledger, and counts of quotas, one statement carries.
const MAX_ROWS: usize = 5_000;
const MAX_USES: usize = 10_000;
/// How many warnings wait for the database to say who tells them.
const MAX_WARNINGS: usize = 1_000;

/// What one gateway knows of counting together.
pub(super) struct SharedCounts {
    pub(super) store: ClusterStore,
    /// Drawn for each process: its batches are told from those of all others.
    writer: [u8; 16],
    state: tokio::sync::Mutex<ExchangeState>,
    warnings: Mutex<Vec<QuotaWarning>>,
}

#[derive(Default)]
struct ExchangeState {
    /// The number of the first batch that is not acknowledged.
    next_number: i64,
    unacknowledged: VecDeque<UsageBatch>,
    /// The period that sums were read for, and up to which change.
    read: Option<(Period, i64)>,
    /// The news that some gateway has told.
    told: HashSet<String>,
    is_failing: bool,
    /// Whether the counters have gone on where those in the database stand.
    is_restored: bool,
}

impl SharedCounts {
    pub(super) fn new(store: ClusterStore) -> Self {
        Self {
            store,
            writer: random::bytes(),
            state: tokio::sync::Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// Keeps a warning until the database says who tells it.
    pub(super) fn hold(&self, warning: QuotaWarning) {
        let mut warnings = lock(&self.warnings);
        if warnings.len() < MAX_WARNINGS {
            warnings.push(warning);
        }
    }
}

impl Usage {
    /// Sends what was counted here, and takes over what all have counted. Returns whether
    /// everything is in the database.
    pub(super) async fn exchange(&self, shared: &SharedCounts) -> bool {
        let mut state = shared.state.lock().await;
        let outcome = self.try_exchange(shared, &mut state).await;
        match &outcome {
            Ok(()) if std::mem::take(&mut state.is_failing) => {
                tracing::info!("usage is counted together with the other gateways again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut state.is_failing, true) {
                    tracing::warn!(
                        %error,
                        "usage cannot be exchanged with the other gateways: quotas count the last sums and this \
                         gateway's own calls, which are kept and added later"
                    );
                }
                // Better told by each gateway than by none.
                std::mem::take(&mut *lock(&shared.warnings)).iter().for_each(|warning| self.tell(warning));
            }
        }
        outcome.is_ok()
    }

    async fn try_exchange(
        &self,
        shared: &SharedCounts,
        state: &mut ExchangeState,
    ) -> Result<(), store::Error> {
        if !state.is_restored {
            // Before anything of this process is added.
            self.absorb_sums(shared, state).await?;
            self.restore_traffic().await?;
            state.is_restored = true;
        }
        self.collect();
        loop {
            if state.unacknowledged.is_empty() {
                let batch = lock(&self.backlog).take();
                state.unacknowledged.extend(split(batch));
            }
            let Some(batch) = state.unacknowledged.front() else { break };
            let id = UsageBatchId { writer: shared.writer, number: state.next_number };
            shared.store.add_usage(id, batch).await?;
            state.unacknowledged.pop_front();
            state.next_number += 1;
        }
        self.absorb_sums(shared, state).await?;
        self.tell_claimed(shared, state).await
    }

    /// Goes on where the counters in the database stand. If that is away, the first exchange does it.
    pub(super) async fn restore_shared(&self, shared: &SharedCounts) -> Result<(), store::Error> {
        if shared.store.awaited().is_some() {
            return Ok(());
        }
        let mut state = shared.state.lock().await;
        self.absorb_sums(shared, &mut state).await?;
        self.restore_traffic().await?;
        state.is_restored = true;
        Ok(())
    }

    /// Puts the sums in force that changed since the last time.
    async fn absorb_sums(
        &self,
        shared: &SharedCounts,
        state: &mut ExchangeState,
    ) -> Result<(), store::Error> {
        let period = Period::from_time(self.clock.now());
        // A gateway whose clock is ahead may have counted in a new day before this one reads it.
        let known = state.read.filter(|(read, _)| *read == period).map_or(0, |(_, number)| number);
        let sums = shared.store.load_quota_sums(period.day, period.month, known).await?;
        for sum in &sums.uses {
            self.tenant(&sum.tenant.as_str().into()).absorb(sum);
        }
        // A database that was restored from a copy numbers its changes from an earlier one on.
        state.read = Some((period, sums.read_up_to)).filter(|(_, number)| *number >= known);
        Ok(())
    }

    /// Tells the warnings that no other gateway tells.
    async fn tell_claimed(
        &self,
        shared: &SharedCounts,
        state: &mut ExchangeState,
    ) -> Result<(), store::Error> {
        let is_new = |warning: &QuotaWarning| !state.told.contains(&news_key(warning));
        lock(&shared.warnings).retain(is_new);
        let waiting = lock(&shared.warnings).clone();
        if waiting.is_empty() {
            return Ok(());
        }
        let news = waiting
            .iter()
            .map(|warning| SharedNews { key: news_key(warning), forget_at: warning.resets_at.as_second() });
        let news: Vec<_> = news.collect();
        let own = shared.store.claim_news(shared.writer, &news).await?;
        // More may have come meanwhile, behind these.
        lock(&shared.warnings).drain(..waiting.len());
        if state.told.len() > MAX_WARNINGS {
            state.told.clear();
        }
        for warning in waiting {
            let key = news_key(&warning);
            if own.contains(&key) && !state.told.contains(&key) {
                self.tell(&warning);
            }
            state.told.insert(key);
        }
        Ok(())
    }
}

/// Returns what is told once in a day or month: which limit is nearly used up.
fn news_key(warning: &QuotaWarning) -> String {
    let QuotaWarning { tenant, scope, kind, used: _, of, resets_at } = warning;
    format!("quota-near {tenant} {resets_at} {} {of} {scope}", kind.as_str()).replace('\0', "\u{fffd}")
}

/// Splits a batch into parts that a statement takes in time.
fn split(mut batch: UsageBatch) -> impl Iterator<Item = UsageBatch> {
    std::iter::from_fn(move || {
        if batch.is_empty() {
            return None;
        }
        let rows = batch.rows.split_off(batch.rows.len().saturating_sub(MAX_ROWS));
        let uses = batch.uses.split_off(batch.uses.len().saturating_sub(MAX_USES));
        Some(UsageBatch { rows, quotas: std::mem::take(&mut batch.quotas), uses })
    })
}

#[cfg(test)]
mod tests;
