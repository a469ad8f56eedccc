//! The share of the audit that one tenant, and all unidentified callers together, may write: a
//! burst in bytes, and a rate in bytes per second. So no tenant or caller can push the events of
//! others out of the files.
//!
//! Lines that exceed a share are counted by actor and outcome, and a line states the count. Only
//! the times of the single events are lost.

use std::sync::Mutex;

use dashmap::DashMap;
use dashmap::mapref::one::RefMut;
use jiff::Timestamp;

use super::{Actor, AuditEvent, AuditRecord};
use crate::base::sync::lock;

/// For identified callers, per tenant: a burst of some 6,000 calls, and 90 calls a second
/// permanently.
const KNOWN: ByteAllowance = ByteAllowance { at_once: 2 << 20, a_second: 32 << 10 };
/// For unidentified callers, per tenant.
const UNKNOWN: ByteAllowance = ByteAllowance { at_once: 64 << 10, a_second: 4 << 10 };
/// For unidentified callers, of all tenants together.
const ALL_UNKNOWN: ByteAllowance = ByteAllowance { at_once: 1 << 20, a_second: 16 << 10 };
/// How long lines are counted before their number is written.
const COUNTED_FOR_MS: i64 = 10_000;
/// The kinds of lines of a tenant that are counted by actor; kinds beyond that are counted by event
/// and outcome only.
const KINDS: usize = 32;
/// From this number of tenants on, idle ones are dropped when a new one arrives.
const KEPT: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct ByteAllowance {
    at_once: u64,
    a_second: u64,
}

/// What each tenant has written.
#[derive(Debug, Default)]
pub(super) struct AuditShares {
    tenants: DashMap<String, TenantShare>,
    unknown: Mutex<LeakyBucket>,
    counting: Mutex<PendingCounts>,
}

/// The tenants with counted lines.
#[derive(Debug, Default)]
struct PendingCounts {
    tenants: Vec<String>,
    since_ms: i64,
}

#[derive(Debug, Default)]
struct TenantShare {
    known: LeakyBucket,
    unknown: LeakyBucket,
    counted: Vec<OmittedLines>,
}

/// A leaky bucket: its level at the last access. It drains with time.
#[derive(Debug, Default)]
struct LeakyBucket {
    bytes: u64,
    at_ms: i64,
}

/// The lines of one kind that were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OmittedLines {
    pub(super) event: AuditEvent,
    pub(super) outcome: String,
    pub(super) actor: Option<OwnedActor>,
    pub(super) lines: u64,
    pub(super) since: Timestamp,
}

/// The actor of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnedActor {
    tid: Option<String>,
    oid: Option<String>,
    user: Option<String>,
    label: Option<String>,
    pub(super) client_id: Option<String>,
}

/// The decision about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdmitDecision {
    Write,
    /// Counted instead. `first` says that there was no count before.
    Count {
        first: bool,
    },
}

impl AuditShares {
    /// Decides about a line of `bytes` bytes, and counts it if it does not fit.
    pub(super) fn admit(&self, entry: &AuditRecord<'_>, bytes: usize, at: Timestamp) -> AdmitDecision {
        if is_unlimited(entry) {
            return AdmitDecision::Write;
        }
        let mut share = match self.tenants.get_mut(entry.tenant) {
            Some(share) => share,
            None => {
                self.sweep(at);
                self.tenants.entry(entry.tenant.to_owned()).or_default()
            }
        };
        if self.has_room(&mut share, entry, bytes as u64, at.as_millisecond()) {
            return AdmitDecision::Write;
        }
        self.count(share, entry, at)
    }

    /// Counts a line for which its tenant's share has no room, since it has `least_bytes` bytes or
    /// more. `None` if it may have.
    pub(super) fn count_if_full(
        &self,
        entry: &AuditRecord<'_>,
        least_bytes: usize,
        at: Timestamp,
    ) -> Option<AdmitDecision> {
        if is_unlimited(entry) {
            return None;
        }
        let mut share = self.tenants.get_mut(entry.tenant)?;
        let (bucket, allowance) = share.bucket_for(entry);
        let is_full = !bucket.fits(allowance, least_bytes as u64, at.as_millisecond());
        is_full.then(|| self.count(share, entry, at))
    }

    fn count(
        &self,
        mut share: RefMut<'_, String, TenantShare>,
        entry: &AuditRecord<'_>,
        at: Timestamp,
    ) -> AdmitDecision {
        let first_of_tenant = share.counted.is_empty();
        share.count(entry, at);
        drop(share);
        AdmitDecision::Count { first: first_of_tenant && self.begin_counting(entry.tenant, at) }
    }

    fn has_room(&self, share: &mut TenantShare, entry: &AuditRecord<'_>, bytes: u64, now_ms: i64) -> bool {
        let (bucket, allowance) = share.bucket_for(entry);
        bucket.take(allowance, bytes, now_ms)
            && (is_known(entry) || lock(&self.unknown).take(ALL_UNKNOWN, bytes, now_ms))
    }

    /// Returns whether the tenant is the first one.
    fn begin_counting(&self, tenant: &str, at: Timestamp) -> bool {
        let mut counting = lock(&self.counting);
        counting.tenants.push(tenant.to_owned());
        let is_first = counting.tenants.len() == 1;
        if is_first {
            counting.since_ms = at.as_millisecond();
        }
        is_first
    }

    /// Returns in how many milliseconds the counts are due; `None` if nothing is counted.
    pub(super) fn due_in_ms(&self, at: Timestamp) -> Option<u64> {
        let counting = lock(&self.counting);
        let due = counting.since_ms + COUNTED_FOR_MS - at.as_millisecond();
        // A clock that was set back must not delay them further.
        (!counting.tenants.is_empty()).then(|| due.clamp(0, COUNTED_FOR_MS).unsigned_abs())
    }

    /// Takes the counts, by tenant.
    pub(super) fn take_counts(&self) -> Vec<(String, Vec<OmittedLines>)> {
        let tenants = std::mem::take(&mut lock(&self.counting).tenants);
        let counts = |tenant: String| {
            let counted = std::mem::take(&mut self.tenants.get_mut(&tenant)?.counted);
            Some((tenant, counted))
        };
        tenants.into_iter().filter_map(counts).collect()
    }

    fn sweep(&self, at: Timestamp) {
        if self.tenants.len() >= KEPT {
            self.tenants.retain(|_, share| !share.is_idle(at.as_millisecond()));
        }
    }
}

/// Whether there is no bound: operators do not flood, and nothing that others do shall hide what
/// they did.
fn is_unlimited(entry: &AuditRecord<'_>) -> bool {
    matches!(entry.event, AuditEvent::Order | AuditEvent::Loss)
}

/// Returns whether the caller is identified, which takes a valid credential. A refused caller has
/// shown none, whatever identity it claims.
fn is_known(entry: &AuditRecord<'_>) -> bool {
    entry.event != AuditEvent::Refusal && entry.who != Actor::default()
}

impl TenantShare {
    /// Returns what lines of this entry's caller fill, and how much that holds.
    fn bucket_for(&mut self, entry: &AuditRecord<'_>) -> (&mut LeakyBucket, ByteAllowance) {
        match is_known(entry) {
            true => (&mut self.known, KNOWN),
            false => (&mut self.unknown, UNKNOWN),
        }
    }

    fn is_idle(&mut self, now_ms: i64) -> bool {
        self.known.empty(KNOWN, now_ms);
        self.unknown.empty(UNKNOWN, now_ms);
        self.counted.is_empty() && self.known.bytes == 0 && self.unknown.bytes == 0
    }

    fn count(&mut self, entry: &AuditRecord<'_>, at: Timestamp) {
        let known = self.counted.iter_mut().find(|counted| counted.is_of(entry));
        match known {
            Some(counted) => counted.lines += 1,
            None => {
                let by = (self.counted.len() < KINDS).then(|| OwnedActor::of(entry));
                let (event, outcome) = (entry.event, entry.outcome.to_owned());
                self.counted.push(OmittedLines { event, outcome, actor: by, lines: 1, since: at });
            }
        }
    }
}

impl LeakyBucket {
    fn take(&mut self, allowance: ByteAllowance, bytes: u64, now_ms: i64) -> bool {
        let fits = self.fits(allowance, bytes, now_ms);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    fn fits(&mut self, allowance: ByteAllowance, bytes: u64, now_ms: i64) -> bool {
        self.empty(allowance, now_ms);
        self.bytes + bytes <= allowance.at_once
    }

    fn empty(&mut self, allowance: ByteAllowance, now_ms: i64) {
        let passed_ms = u64::try_from(now_ms - self.at_ms).unwrap_or(0);
        let gone = passed_ms.saturating_mul(allowance.a_second) / 1_000;
        // Periods too short for a byte are counted later.
        if gone > 0 || now_ms < self.at_ms {
            self.at_ms = now_ms;
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

impl OmittedLines {
    fn is_of(&self, entry: &AuditRecord<'_>) -> bool {
        let is_by =
            |by: &OwnedActor| by.as_actor() == entry.who && by.client_id.as_deref() == entry.client_id;
        self.event == entry.event && self.outcome == entry.outcome && self.actor.as_ref().is_none_or(is_by)
    }
}

impl OwnedActor {
    fn of(entry: &AuditRecord<'_>) -> Self {
        let Actor { tid, oid, user, label } = entry.who;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            tid: owned(tid),
            oid: owned(oid),
            user: owned(user),
            label: owned(label),
            client_id: owned(entry.client_id),
        }
    }

    pub(super) fn as_actor(&self) -> Actor<'_> {
        Actor {
            tid: self.tid.as_deref(),
            oid: self.oid.as_deref(),
            user: self.user.as_deref(),
            label: self.label.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'a>(tenant: &'a str, label: Option<&'a str>) -> AuditRecord<'a> {
        let who = Actor { label, ..Actor::default() };
        AuditRecord { who, ..AuditRecord::new(AuditEvent::Call, tenant, "ok") }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("a time")
    }

    /// Returns how many of `lines` lines of 200 bytes are kept.
    fn kept(shares: &AuditShares, entry: &AuditRecord<'_>, lines: usize, ms: i64) -> usize {
        (0..lines).filter(|_| shares.admit(entry, 200, at(ms)) == AdmitDecision::Write).count()
    }

    #[test]
    fn a_flood_takes_its_tenants_share_and_nothing_of_others() {
        let shares = AuditShares::default();
        assert_eq!(kept(&shares, &call("a", Some("key")), 100_000, 0), (2 << 20) / 200);
        assert_eq!(
            kept(&shares, &call("a", None), 100_000, 0),
            (64 << 10) / 200,
            "those who are unknown have their own"
        );
        assert_eq!(kept(&shares, &call("b", Some("key")), 1_000, 0), 1_000);
        let left_over = (2 << 20) % 200;
        assert_eq!(kept(&shares, &call("a", Some("key")), 1_000, 1_000), (left_over + (32 << 10)) / 200);
    }

    #[test]
    fn a_line_that_cannot_fit_is_counted_before_it_is_made_and_others_are_not() {
        let shares = AuditShares::default();
        let entry = call("a", Some("key"));
        assert_eq!(shares.count_if_full(&entry, 200, at(0)), None, "nothing is written yet");
        let room = KNOWN.at_once as usize - kept(&shares, &entry, 20_000, 0) * 200;
        assert_eq!(shares.take_counts().len(), 1);
        assert_eq!(shares.count_if_full(&entry, room, at(0)), None);
        assert_eq!(shares.admit(&entry, room, at(0)), AdmitDecision::Write);
        let counted = Some(AdmitDecision::Count { first: true });
        assert_eq!(shares.count_if_full(&entry, 1, at(0)), counted);
        assert_eq!(shares.count_if_full(&call("a", None), 200, at(0)), None, "strangers have their own");
        let order = AuditRecord::new(AuditEvent::Order, "a", "ok");
        assert_eq!(shares.count_if_full(&order, 1 << 30, at(0)), None);
        assert_eq!(shares.take_counts()[0].1[0].lines, 1);
    }

    #[test]
    fn what_is_left_out_is_counted_by_who_did_it() {
        let shares = AuditShares::default();
        assert_eq!(shares.due_in_ms(at(0)), None);
        let mine = kept(&shares, &call("a", Some("mine")), 50_000, 0);
        let yours = kept(&shares, &call("a", Some("yours")), 70_000, 0);
        assert_eq!((shares.due_in_ms(at(0)), shares.due_in_ms(at(60_000))), (Some(10_000), Some(0)));
        let mut all = shares.take_counts();
        let (tenant, counted) = all.pop().expect("one tenant");
        assert!(all.is_empty() && tenant == "a");
        let lines = |label: &str| {
            let of = |counted: &&OmittedLines| {
                counted.actor.as_ref().is_some_and(|by| by.as_actor().label == Some(label))
            };
            counted.iter().filter(of).map(|counted| counted.lines as usize).sum::<usize>()
        };
        assert_eq!((mine + lines("mine"), yours + lines("yours")), (50_000, 70_000));
        assert!(shares.take_counts().is_empty() && shares.due_in_ms(at(0)).is_none());
    }

    #[test]
    fn many_callers_are_counted_together_and_none_is_missing() {
        let shares = AuditShares::default();
        let mut total = 0;
        for number in 0..20_000 {
            let label = (number % 100).to_string();
            total += kept(&shares, &call("a", Some(&label)), 1, 0);
        }
        let counted = shares.take_counts().pop().expect("one tenant").1;
        assert!(counted.len() <= KINDS + 1, "{}", counted.len());
        assert_eq!(total as u64 + counted.iter().map(|counted| counted.lines).sum::<u64>(), 20_000);
    }

    #[test]
    fn strangers_at_many_tenants_have_a_bound_together() {
        let shares = AuditShares::default();
        let tenants: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let kept: usize = tenants.iter().map(|tenant| kept(&shares, &call(tenant, None), 1_000, 0)).sum();
        assert_eq!(kept, (1 << 20) / 200);
    }

    #[test]
    fn tenants_that_wrote_nothing_lately_are_forgotten() {
        let shares = AuditShares::default();
        for number in 0..20_000 {
            let tenant = number.to_string();
            kept(&shares, &call(&tenant, Some("key")), 1, number * 100);
        }
        assert!(shares.tenants.len() <= KEPT, "{}", shares.tenants.len());
    }
}
