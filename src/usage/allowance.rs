//! What one scope (a tenant, a tool or a caller) has used of its limits.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::limit::{LimitKind, is_nearly};
use super::period::Period;
use super::rate_limit::{RateShare, WINDOW, acquire_one, next_full};
use crate::base::live_nodes::LiveNodes;
use crate::spec::CallLimits;
use crate::store::QuotaPeriod;

/// When a call is checked or counted, by both clocks, and among how many gateways.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallTime<'a> {
    pub(super) now: Timestamp,
    pub(super) monotonic: Instant,
    pub(super) period: Period,
    pub(super) nodes: &'a LiveNodes,
}

/// What was used in a day and in a month; kept over restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct QuotaCounts {
    pub(super) day: i64,
    pub(super) month: i64,
    pub(super) calls_per_day: u64,
    pub(super) calls_per_month: u64,
    pub(super) bytes_per_day: u64,
    pub(super) bytes_per_month: u64,
}

/// What one scope has used.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowance {
    pub(super) counts: QuotaCounts,
    in_flight: u32,
    /// When the allowance of a minute is whole again.
    full_at: Option<Instant>,
    /// Whether the counts differ from those in the store.
    pub(super) is_unsaved: bool,
    /// The part of the counts that the database has, which all gateways write.
    shared: QuotaCounts,
    /// Whether other gateways have used more since the last call here.
    is_raised: bool,
}

/// A limit that is reached: which, of how much, and how long to wait.
pub(super) type Reached = (LimitKind, u64, Option<Duration>);

/// A quota whose use has just passed four fifths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crossing {
    pub(super) kind: LimitKind,
    pub(super) used: u64,
    pub(super) of: u64,
}

impl QuotaCounts {
    /// Begins anew what a new day or month has begun for. A clock that is set back changes nothing.
    fn roll(&mut self, period: Period) {
        if period.day > self.day {
            (self.day, self.calls_per_day, self.bytes_per_day) = (period.day, 0, 0);
        }
        if period.month > self.month {
            (self.month, self.calls_per_month, self.bytes_per_month) = (period.month, 0, 0);
        }
    }

    fn quotas(&self, limits: &CallLimits) -> [(LimitKind, u64, Option<u64>); 4] {
        [
            (LimitKind::CallsPerMonth, self.calls_per_month, limits.calls_per_month),
            (LimitKind::BytesPerMonth, self.bytes_per_month, limits.bytes_per_month),
            (LimitKind::CallsPerDay, self.calls_per_day, limits.calls_per_day),
            (LimitKind::BytesPerDay, self.bytes_per_day, limits.bytes_per_day),
        ]
    }
}

impl Allowance {
    /// Creates one with the counts of an earlier process.
    pub(super) fn restored(counts: QuotaCounts) -> Self {
        Self { counts, ..Self::default() }
    }

    /// Checks whether one more call is allowed, and takes nothing.
    pub(super) fn check(&mut self, limits: &CallLimits, at: &CallTime<'_>) -> Result<(), Reached> {
        self.counts.roll(at.period);
        for (kind, used, of) in self.counts.quotas(limits) {
            if let Some(of) = of.filter(|of| used >= *of) {
                return Err((kind, of, Some(until(kind, at))));
            }
        }
        let at_once = limits.concurrent_calls.map(|of| at.nodes.share(of));
        if let Some(of) = at_once.filter(|of| self.in_flight >= *of) {
            return Err((LimitKind::ConcurrentCalls, of.into(), None));
        }
        let Some(per_minute) = limits.calls_per_minute else { return Ok(()) };
        let mut full_at = self.full_at.unwrap_or(at.monotonic);
        acquire_one(&mut full_at, RateShare::among(at.nodes, per_minute), at.monotonic)
            .map_err(|wait| (LimitKind::CallsPerMinute, per_minute.into(), Some(wait)))
    }

    /// Takes one call that [`check`](Self::check) allowed.
    pub(super) fn take(&mut self, limits: &CallLimits, at: &CallTime<'_>) -> Vec<Crossing> {
        self.in_flight += 1;
        if let Some(per_minute) = limits.calls_per_minute {
            let rate = RateShare::among(at.nodes, per_minute);
            self.full_at = Some(next_full(self.full_at.unwrap_or(at.monotonic), rate, at.monotonic));
        }
        self.change_counts(limits, |counts| {
            counts.calls_per_day = counts.calls_per_day.saturating_add(1);
            counts.calls_per_month = counts.calls_per_month.saturating_add(1);
        })
    }

    /// Ends a call that was taken, with the bytes of its result.
    pub(super) fn end(&mut self, limits: &CallLimits, bytes: u64, period: Period) -> Vec<Crossing> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counts.roll(period);
        if bytes == 0 {
            return Vec::new();
        }
        self.change_counts(limits, |counts| {
            counts.bytes_per_day = counts.bytes_per_day.saturating_add(bytes);
            counts.bytes_per_month = counts.bytes_per_month.saturating_add(bytes);
        })
    }

    /// Returns the quotas that exist, with what is used of them.
    pub(super) fn quotas(&mut self, limits: &CallLimits, period: Period) -> Vec<Crossing> {
        self.counts.roll(period);
        let existing = self.counts.quotas(limits).into_iter();
        existing.filter_map(|(kind, used, of)| Some(Crossing { kind, used, of: of? })).collect()
    }

    /// Returns what was used here since the last time, for the database to add.
    pub(super) fn take_uses(&mut self) -> Vec<(QuotaPeriod, u64, u64)> {
        let (counts, mut shared) = (self.counts, self.shared);
        shared.roll(Period { day: counts.day, month: counts.month });
        (self.shared, self.is_unsaved) = (counts, false);
        let day = (
            QuotaPeriod::Day(counts.day),
            counts.calls_per_day.saturating_sub(shared.calls_per_day),
            counts.bytes_per_day.saturating_sub(shared.bytes_per_day),
        );
        let month = (
            QuotaPeriod::Month(counts.month),
            counts.calls_per_month.saturating_sub(shared.calls_per_month),
            counts.bytes_per_month.saturating_sub(shared.bytes_per_month),
        );
        [day, month].into_iter().filter(|(_, calls, bytes)| (*calls, *bytes) != (0, 0)).collect()
    }

    /// Puts the sum of all gateways in force, with what was used here since the last time.
    pub(super) fn absorb(&mut self, period: QuotaPeriod, calls: u64, bytes: u64) {
        let (counts, shared) = (&mut self.counts, &mut self.shared);
        let (now, then) = match period {
            QuotaPeriod::Day(day) => (Period { day, month: counts.month }, counts.day),
            QuotaPeriod::Month(month) => (Period { day: counts.day, month }, counts.month),
        };
        counts.roll(now);
        shared.roll(now);
        let (QuotaPeriod::Day(number) | QuotaPeriod::Month(number)) = period;
        if number < then {
            return;
        }
        let (known, added) = match period {
            QuotaPeriod::Day(_) => (
                [&mut counts.calls_per_day, &mut counts.bytes_per_day],
                [&mut shared.calls_per_day, &mut shared.bytes_per_day],
            ),
            QuotaPeriod::Month(_) => (
                [&mut counts.calls_per_month, &mut counts.bytes_per_month],
                [&mut shared.calls_per_month, &mut shared.bytes_per_month],
            ),
        };
        for ((known, shared), sum) in known.into_iter().zip(added).zip([calls, bytes]) {
            let own = known.saturating_sub(*shared);
            self.is_raised |= sum > *shared;
            (*shared, *known) = (sum, sum.saturating_add(own));
        }
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_idle(&self, at: &CallTime<'_>) -> bool {
        let counts = &self.counts;
        let is_over =
            counts.month < at.period.month || (counts.calls_per_month, counts.bytes_per_month) == (0, 0);
        let is_full = self.full_at.is_none_or(|full_at| full_at <= at.monotonic);
        self.in_flight == 0 && is_full && is_over
    }

    fn change_counts(&mut self, limits: &CallLimits, change: impl FnOnce(&mut QuotaCounts)) -> Vec<Crossing> {
        if !limits.has_quotas() {
            return Vec::new();
        }
        // What others used may have passed four fifths before this call.
        let was_raised = std::mem::take(&mut self.is_raised);
        let before = if was_raised { QuotaCounts::default() } else { self.counts };
        change(&mut self.counts);
        self.is_unsaved = true;
        let crossed = |((kind, used, of), earlier): (_, (_, u64, _))| {
            let of: u64 = of?;
            (is_nearly(used, of) && !is_nearly(earlier.1, of)).then_some(Crossing { kind, used, of })
        };
        self.counts.quotas(limits).into_iter().zip(before.quotas(limits)).filter_map(crossed).collect()
    }
}

/// Returns the time until a quota begins again.
fn until(kind: LimitKind, at: &CallTime<'_>) -> Duration {
    let next = resets_at(kind, at.period);
    Duration::try_from(next.duration_since(at.now)).unwrap_or(WINDOW)
}

/// Returns when a quota begins again.
pub(super) fn resets_at(kind: LimitKind, period: Period) -> Timestamp {
    match kind {
        LimitKind::CallsPerMonth | LimitKind::BytesPerMonth => period.next_month(),
        _ => period.next_day(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::base::clock::{Clock, ManualClock};

    fn clock() -> ManualClock {
        ManualClock::at("2026-11-30T23:00:00Z".parse().expect("a time"))
    }

    fn moment(clock: &ManualClock) -> CallTime<'static> {
        static ALONE: LazyLock<LiveNodes> = LazyLock::new(LiveNodes::default);
        let now = clock.now();
        CallTime { now, monotonic: clock.monotonic(), period: Period::from_time(now), nodes: &ALONE }
    }

    /// Makes a call, or returns the limit that is reached.
    fn call(allowance: &mut Allowance, limits: &CallLimits, clock: &ManualClock) -> Result<(), LimitKind> {
        let at = moment(clock);
        allowance.check(limits, &at).map_err(|(kind, ..)| kind)?;
        allowance.take(limits, &at);
        allowance.end(limits, 10, at.period);
        Ok(())
    }

    #[test]
    fn a_day_and_a_month_begin_anew() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits { calls_per_day: Some(2), calls_per_month: Some(3), ..CallLimits::default() };
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Err(LimitKind::CallsPerDay));
        let (_, of, wait) = allowance.check(&limits, &moment(&clock)).expect_err("used up");
        assert_eq!((of, wait), (2, Some(Duration::from_secs(3_600))));
        clock.advance(Duration::from_secs(3_600));
        for _ in 0..2 {
            assert_eq!(call(&mut allowance, &limits, &clock), Ok(()), "December begins");
        }
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Err(LimitKind::CallsPerMonth));
    }

    #[test]
    fn the_call_that_passes_a_limit_of_bytes_is_the_last_one() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits { bytes_per_day: Some(15), ..CallLimits::default() };
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Err(LimitKind::BytesPerDay));
    }

    #[test]
    fn calls_at_once_come_back_as_calls_end() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits { concurrent_calls: Some(1), ..CallLimits::default() };
        let at = moment(&clock);
        assert_eq!(allowance.check(&limits, &at), Ok(()));
        allowance.take(&limits, &at);
        assert_eq!(allowance.check(&limits, &at), Err((LimitKind::ConcurrentCalls, 1, None)));
        assert!(!allowance.is_idle(&at));
        allowance.end(&limits, 0, at.period);
        assert_eq!(allowance.check(&limits, &at), Ok(()));
        assert!(allowance.is_idle(&at), "there is nothing to remember");
    }

    #[test]
    fn calls_a_minute_come_back_with_time() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits { calls_per_minute: Some(2), ..CallLimits::default() };
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Err(LimitKind::CallsPerMinute));
        clock.advance(Duration::from_secs(30));
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        assert_eq!(call(&mut allowance, &limits, &clock), Err(LimitKind::CallsPerMinute));
    }

    #[test]
    fn four_fifths_are_told_once_in_a_period() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits { calls_per_day: Some(5), ..CallLimits::default() };
        let mut crossings = |count| {
            let at = moment(&clock);
            (0..count).flat_map(|_| allowance.take(&limits, &at)).collect::<Vec<_>>()
        };
        assert_eq!(crossings(3), []);
        assert_eq!(crossings(3), [Crossing { kind: LimitKind::CallsPerDay, used: 4, of: 5 }]);
    }

    #[test]
    fn each_kind_of_quota_is_told_also_if_several_are_near_at_once() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits {
            calls_per_day: Some(5),
            calls_per_month: Some(5),
            bytes_per_day: Some(50),
            bytes_per_month: Some(50),
            ..CallLimits::default()
        };
        let at = moment(&clock);
        let mut told = Vec::new();
        for _ in 0..5 {
            told.extend(allowance.take(&limits, &at));
            told.extend(allowance.end(&limits, 10, at.period));
        }
        let mut kinds: Vec<_> = told.iter().map(|crossing| crossing.kind.as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["bytes_per_day", "bytes_per_month", "calls_per_day", "calls_per_month"]);
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_new_day() {
        let (clock, mut allowance) = (clock(), Allowance::default());
        let limits = CallLimits { calls_per_day: Some(1), ..CallLimits::default() };
        assert_eq!(call(&mut allowance, &limits, &clock), Ok(()));
        let earlier = ManualClock::at("2026-11-29T10:00:00Z".parse().expect("a time"));
        assert_eq!(call(&mut allowance, &limits, &earlier), Err(LimitKind::CallsPerDay));
    }
}
