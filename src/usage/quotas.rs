//! The allowances of one tenant: its own, those of its tools, and those of its callers.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::allowance::{Allowance, CallTime, Crossing, QuotaCounts, Reached, resets_at};
use super::caller::{CallerKey, UsageCaller};
use super::limit::{LimitReached, LimitScope, QuotaStatus};
use super::period::Period;
use crate::spec::{CallLimits, UsageLimits};
use crate::store::{QuotaUse, StoredQuota};

/// How many callers with a credential have an allowance of their own at one tenant.
const MAX_IDENTIFIED: usize = 20_000;
/// How many networks of anonymous callers have. They are counted apart, so that a flood of
/// addresses takes no place of a person's.
const MAX_NETWORKS: usize = 10_000;
/// How many allowances all further callers of a kind share.
const SHARED: u64 = 256;
/// How often idle allowances are looked for while all places are taken.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// The allowances of one tenant.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    tenant: Allowance,
    tools: BTreeMap<Arc<str>, Allowance>,
    identified: Callers,
    networks: Callers,
}

/// The allowances of callers of one kind.
#[derive(Debug, Default)]
struct Callers {
    allowances: HashMap<CallerKey, Allowance>,
    last_pruned: Option<Instant>,
    hasher: RandomState,
}

/// A call of a tenant that has limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitedCall<'a> {
    pub(super) limits: &'a UsageLimits,
    pub(super) tool: &'a Arc<str>,
    pub(super) caller: &'a UsageCaller,
}

/// That a call was admitted, and which of the shared allowances its caller has, if it has none of
/// its own.
#[derive(Debug)]
pub(super) struct Admission(Option<CallerKey>);

/// An allowance that a call concerns, with its limits.
struct LimitedAllowance<'a> {
    allowance: &'a mut Allowance,
    limits: &'a CallLimits,
    scope: fn(LimitedCall<'_>) -> LimitScope,
}

/// Quotas whose use has just passed four fifths.
pub(super) type Crossings = Vec<(LimitScope, Crossing)>;

impl Quotas {
    /// Takes one call from all allowances that it concerns, or from none.
    pub(super) fn admit(
        &mut self,
        call: LimitedCall<'_>,
        at: &CallTime<'_>,
    ) -> Result<(Admission, Crossings), LimitReached> {
        let admission = Admission(self.callers(&call.caller.key).find_shared(&call.caller.key, at));
        let mut limited = self.limited_allowances(call, &admission);
        for it in limited.iter_mut().flatten() {
            let checked = it.allowance.check(it.limits, at);
            checked.map_err(|reached| to_refusal((it.scope)(call), reached, at))?;
        }
        let mut crossings = Crossings::new();
        for it in limited.into_iter().flatten() {
            let crossed = it.allowance.take(it.limits, at).into_iter();
            crossings.extend(crossed.map(|crossing| ((it.scope)(call), crossing)));
        }
        Ok((admission, crossings))
    }

    /// Ends a call that was admitted under the same limits.
    pub(super) fn end(
        &mut self,
        call: LimitedCall<'_>,
        admission: &Admission,
        bytes: u64,
        period: Period,
    ) -> Crossings {
        let mut crossings = Crossings::new();
        for it in self.limited_allowances(call, admission).into_iter().flatten() {
            let crossed = it.allowance.end(it.limits, bytes, period).into_iter();
            crossings.extend(crossed.map(|crossing| ((it.scope)(call), crossing)));
        }
        crossings
    }

    /// Returns how much of the tenant's and its tools' quotas is used.
    pub(super) fn statuses(&mut self, limits: &UsageLimits, period: Period) -> Vec<QuotaStatus> {
        let status = |scope: &LimitScope, it: Crossing| QuotaStatus {
            scope: scope.to_string(),
            limit: it.kind,
            used: it.used,
            of: it.of,
            resets_at: resets_at(it.kind, period),
        };
        let own = self.tenant.quotas(&limits.tenant, period).into_iter();
        let mut statuses: Vec<_> = own.map(|it| status(&LimitScope::Tenant, it)).collect();
        for (tool, limits) in &limits.tools {
            let scope = LimitScope::Tool(Arc::clone(tool));
            let allowance = self.tools.entry(Arc::clone(tool)).or_default();
            statuses.extend(allowance.quotas(limits, period).into_iter().map(|it| status(&scope, it)));
        }
        statuses
    }

    /// Returns the counts that differ from those in the store, and takes them for stored.
    pub(super) fn take_unsaved(&mut self, tenant: &Arc<str>) -> Vec<StoredQuota> {
        let unsaved = self.allowances_mut().filter(|(_, it)| it.is_unsaved);
        unsaved
            .map(|(scope, allowance)| {
                allowance.is_unsaved = false;
                to_stored(tenant, scope, &allowance.counts)
            })
            .collect()
    }

    /// Returns what was used here since the last time, for the database to add.
    pub(super) fn take_uses(&mut self, tenant: &Arc<str>) -> Vec<QuotaUse> {
        let unsent = self.allowances_mut().filter(|(_, it)| it.is_unsaved);
        let uses = unsent.flat_map(|(scope, allowance)| {
            allowance.take_uses().into_iter().map(move |(period, calls, bytes)| {
                let (tenant, scope) = (tenant.to_string(), scope.clone());
                QuotaUse { tenant, scope, period, calls, bytes }
            })
        });
        uses.collect()
    }

    /// Puts the sum of all gateways in force. A caller for whom there is no place is not counted
    /// here.
    pub(super) fn absorb(&mut self, sum: &QuotaUse) {
        let allowance = match sum.scope.split_once(':') {
            None => &mut self.tenant,
            Some(("tool", name)) => self.tools.entry(name.into()).or_default(),
            Some((_, key)) => {
                let Some(key) = CallerKey::parse(key) else { return };
                let callers = self.callers(&key);
                if !callers.has_place(&key) && !matches!(key, CallerKey::Shared(_)) {
                    return;
                }
                callers.allowances.entry(key).or_default()
            }
        };
        allowance.absorb(sum.period, sum.calls, sum.bytes);
    }

    /// Puts the counts of an earlier process in force. What it does not understand counts nothing.
    pub(super) fn restore(&mut self, stored: &StoredQuota) {
        let allowance = Allowance::restored(from_stored(stored));
        match stored.scope.split_once(':') {
            None => self.tenant = allowance,
            Some(("tool", name)) => _ = self.tools.insert(name.into(), allowance),
            Some((_, key)) => {
                if let Some(key) = CallerKey::parse(key) {
                    self.callers(&key).allowances.insert(key, allowance);
                }
            }
        }
    }

    /// Returns all allowances with their scopes, as the store names them.
    fn allowances_mut(&mut self) -> impl Iterator<Item = (String, &mut Allowance)> {
        let own = std::iter::once(("tenant".to_owned(), &mut self.tenant));
        let tools = self.tools.iter_mut().map(|(name, it)| (format!("tool:{name}"), it));
        let callers = self.identified.allowances.iter_mut().chain(&mut self.networks.allowances);
        own.chain(tools).chain(callers.map(|(key, it)| (format!("caller:{key}"), it)))
    }

    fn callers(&mut self, key: &CallerKey) -> &mut Callers {
        Callers::choose(&mut self.identified, &mut self.networks, key)
    }

    /// Returns the allowances that a call concerns and that have a limit: each is looked up once.
    fn limited_allowances<'a>(
        &'a mut self,
        call: LimitedCall<'a>,
        admission: &Admission,
    ) -> [Option<LimitedAllowance<'a>>; 3] {
        let LimitedCall { limits, tool, caller } = call;
        let callers = Callers::choose(&mut self.identified, &mut self.networks, &caller.key);
        let own = (!limits.tenant.is_empty()).then_some(LimitedAllowance {
            allowance: &mut self.tenant,
            limits: &limits.tenant,
            scope: |_| LimitScope::Tenant,
        });
        let tool = limits.tool(tool).map(|limits| LimitedAllowance {
            allowance: self.tools.entry(Arc::clone(tool)).or_default(),
            limits,
            scope: |call| LimitScope::Tool(Arc::clone(call.tool)),
        });
        let caller = (!limits.per_caller.is_empty()).then(|| LimitedAllowance {
            allowance: callers
                .allowances
                .entry(admission.0.as_ref().unwrap_or(&caller.key).clone())
                .or_default(),
            limits: &limits.per_caller,
            scope: |call| LimitScope::Caller(call.caller.display_name()),
        });
        [own, tool, caller]
    }
}

impl Callers {
    /// Returns those among whom a caller with this key counts.
    fn choose<'a>(identified: &'a mut Self, networks: &'a mut Self, key: &CallerKey) -> &'a mut Self {
        if key.is_identified() { identified } else { networks }
    }

    /// Whether a caller has an allowance of its own, or may get one.
    fn has_place(&self, key: &CallerKey) -> bool {
        let bound = if key.is_identified() { MAX_IDENTIFIED } else { MAX_NETWORKS };
        self.allowances.len() < bound || self.allowances.contains_key(key)
    }

    /// Returns the key of the allowance that a caller shares once all places are taken; `None` if it
    /// has one of its own.
    fn find_shared(&mut self, key: &CallerKey, at: &CallTime<'_>) -> Option<CallerKey> {
        if self.has_place(key) {
            return None;
        }
        let is_due = |last: Instant| at.monotonic.saturating_duration_since(last) >= PRUNE_INTERVAL;
        if self.last_pruned.is_none_or(is_due) {
            self.last_pruned = Some(at.monotonic);
            self.allowances.retain(|_, allowance| !allowance.is_idle(at));
            if self.has_place(key) {
                return None;
            }
        }
        let number = self.hasher.hash_one(key) % SHARED;
        Some(CallerKey::Shared(u16::try_from(number).expect("below 256")))
    }
}

fn to_refusal(scope: LimitScope, (kind, of, wait): Reached, at: &CallTime<'_>) -> LimitReached {
    let resets_at = kind.is_quota().then(|| resets_at(kind, at.period));
    LimitReached { scope, kind, of, wait, resets_at }
}

fn to_stored(tenant: &Arc<str>, scope: String, counts: &QuotaCounts) -> StoredQuota {
    StoredQuota {
        tenant: tenant.to_string(),
        scope,
        day: counts.day,
        month: counts.month,
        calls_per_day: counts.calls_per_day,
        calls_per_month: counts.calls_per_month,
        bytes_per_day: counts.bytes_per_day,
        bytes_per_month: counts.bytes_per_month,
    }
}

fn from_stored(stored: &StoredQuota) -> QuotaCounts {
    QuotaCounts {
        day: stored.day,
        month: stored.month,
        calls_per_day: stored.calls_per_day,
        calls_per_month: stored.calls_per_month,
        bytes_per_day: stored.bytes_per_day,
        bytes_per_month: stored.bytes_per_month,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::LazyLock;

    use super::*;
    use crate::base::clock::{Clock, ManualClock};
    use crate::base::live_nodes::LiveNodes;
    use crate::usage::limit::LimitKind;

    fn alone() -> &'static LiveNodes {
        static ALONE: LazyLock<LiveNodes> = LazyLock::new(LiveNodes::default);
        &ALONE
    }

    fn at() -> CallTime<'static> {
        let clock = ManualClock::at("2026-11-26T10:00:00Z".parse().expect("a time"));
        CallTime {
            now: clock.now(),
            monotonic: clock.monotonic(),
            period: Period::from_time(clock.now()),
            nodes: alone(),
        }
    }

    fn caller(key: CallerKey) -> UsageCaller {
        UsageCaller { key, name: None, client: None }
    }

    fn person(name: &str) -> UsageCaller {
        caller(CallerKey::User(name.into()))
    }

    fn network(number: u32) -> UsageCaller {
        caller(CallerKey::from_address(IpAddr::V4(Ipv4Addr::from(number))))
    }

    fn a_day(calls: u64) -> CallLimits {
        CallLimits { calls_per_day: Some(calls), ..CallLimits::default() }
    }

    fn admit(
        quotas: &mut Quotas,
        limits: &UsageLimits,
        tool: &str,
        caller: &UsageCaller,
    ) -> Option<LimitScope> {
        let tool = tool.into();
        let call = LimitedCall { limits, tool: &tool, caller };
        quotas.admit(call, &at()).err().map(|reached| reached.scope)
    }

    #[test]
    fn people_and_tools_have_allowances_of_their_own() {
        let mut quotas = Quotas::default();
        let tools = vec![("search".into(), a_day(3))];
        let limits = UsageLimits { tenant: a_day(7), per_caller: a_day(2), tools };
        let search = |quotas: &mut _, who| admit(quotas, &limits, "search", &person(who));
        assert_eq!((search(&mut quotas, "ann"), search(&mut quotas, "ann")), (None, None));
        assert!(matches!(search(&mut quotas, "ann"), Some(LimitScope::Caller(_))));
        assert_eq!(search(&mut quotas, "ben"), None);
        assert_eq!(search(&mut quotas, "ben"), Some(LimitScope::Tool("search".into())));
        let other = |quotas: &mut _, who| admit(quotas, &limits, "get_context", &person(who));
        assert_eq!(other(&mut quotas, "ben"), None, "another tool, and what was refused took nothing");
        assert!(matches!(other(&mut quotas, "ben"), Some(LimitScope::Caller(_))));
        assert_eq!((other(&mut quotas, "cat"), other(&mut quotas, "dan")), (None, None), "five and six");
        assert_eq!(other(&mut quotas, "eve"), None, "the limit of one tool is not that of the other");
        assert_eq!(other(&mut quotas, "fay"), Some(LimitScope::Tenant));
    }

    #[test]
    fn a_flood_of_networks_takes_no_place_of_a_person() {
        let mut quotas = Quotas::default();
        let limits = UsageLimits { per_caller: a_day(1), ..UsageLimits::default() };
        assert_eq!(admit(&mut quotas, &limits, "search", &person("ann")), None);
        let bound = u32::try_from(MAX_NETWORKS).expect("small");
        let refused = (0..bound + 2_000)
            .filter(|&number| admit(&mut quotas, &limits, "search", &network(number)).is_some())
            .count();
        assert!((1_700..2_000).contains(&refused), "those beyond the bound share few places: {refused}");
        assert!(quotas.networks.allowances.len() <= MAX_NETWORKS + SHARED as usize);
        assert!(admit(&mut quotas, &limits, "search", &person("ann")).is_some(), "her day is still used up");
        assert_eq!(admit(&mut quotas, &limits, "search", &person("ben")), None);
    }

    #[test]
    fn counts_are_the_same_after_a_restart() {
        let mut quotas = Quotas::default();
        let tools = vec![("search".into(), a_day(5))];
        let limits = UsageLimits { tenant: a_day(9), per_caller: a_day(1), tools };
        assert_eq!(admit(&mut quotas, &limits, "search", &person("ann")), None);
        let stored = quotas.take_unsaved(&"acme".into());
        assert_eq!(stored.len(), 3);
        assert_eq!(quotas.take_unsaved(&"acme".into()), [], "they are stored");
        let mut again = Quotas::default();
        stored.iter().for_each(|quota| again.restore(quota));
        assert!(matches!(admit(&mut again, &limits, "search", &person("ann")), Some(LimitScope::Caller(_))));
        let used = again.statuses(&limits, at().period);
        let used: Vec<_> = used.iter().map(|it| (&*it.scope, it.limit, it.used, it.of)).collect();
        let day = LimitKind::CallsPerDay;
        assert_eq!(used, [("tenant", day, 1, 9), ("tool search", day, 1, 5)]);
    }

    #[test]
    fn only_an_idle_allowance_gives_its_place_to_another_caller() {
        let a_minute = CallLimits { calls_per_minute: Some(1), ..CallLimits::default() };
        for (per_caller, is_idle_later) in [(a_minute, true), (a_day(1), false)] {
            let limits = UsageLimits { per_caller, ..UsageLimits::default() };
            let clock = ManualClock::at("2026-11-26T10:00:00Z".parse().expect("a time"));
            let mut quotas = Quotas::default();
            let call = |quotas: &mut Quotas, number: usize| {
                let now = clock.now();
                let period = Period::from_time(now);
                let at = CallTime { now, monotonic: clock.monotonic(), period, nodes: alone() };
                let caller = network(u32::try_from(number).expect("small"));
                let call = LimitedCall { limits: &limits, tool: &"search".into(), caller: &caller };
                if let Ok((admission, _)) = quotas.admit(call, &at) {
                    quotas.end(call, &admission, 0, period);
                }
                quotas.networks.allowances.contains_key(&caller.key)
            };
            assert!((0..MAX_NETWORKS).all(|number| call(&mut quotas, number)));
            assert!(!call(&mut quotas, MAX_NETWORKS), "all places are taken");
            clock.advance(PRUNE_INTERVAL + Duration::from_secs(60));
            assert_eq!(call(&mut quotas, MAX_NETWORKS + 1), is_idle_later);
        }
    }
}
