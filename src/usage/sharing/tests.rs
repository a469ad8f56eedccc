use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::TryRecvError;

use super::*;
use crate::base::clock::{ManualClock, SystemClock};
use crate::spec::{CallLimits, TenantName, UsageLimits};
use crate::store::UsageQuery;
use crate::store::testkit::ClusterDatabase;
use crate::usage::traffic::CallEnd;
use crate::usage::{CallerKey, LimitKind, UsageCaller, UsageMeter, UsageStore};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at("2026-11-30T23:59:00Z".parse().expect("a time")))
}

/// Starts a gateway's counters on a database.
async fn start(clock: &Arc<ManualClock>, store: ClusterStore) -> Arc<Usage> {
    let clock: Arc<ManualClock> = Arc::clone(clock);
    Usage::start(clock, Some(UsageStore::Database(store))).await.expect("read")
}

fn a_day(calls: u64) -> UsageLimits {
    let tenant = CallLimits { calls_per_day: Some(calls), ..CallLimits::default() };
    UsageLimits { tenant, ..UsageLimits::default() }
}

fn meter(usage: &Arc<Usage>, limits: UsageLimits) -> UsageMeter {
    usage.meter(&TenantName::parse("acme").expect("a name"), limits)
}

/// Makes up to so many calls, and returns how many were admitted.
fn call(meter: &UsageMeter, calls: usize) -> usize {
    let admitted = (0..calls).filter(|_| {
        let caller = UsageCaller { key: CallerKey::User("ann".into()), name: None, client: None };
        let mut call = meter.begin(SystemClock::shared().monotonic(), caller, "search".into());
        let is_admitted = call.admit().is_ok();
        if is_admitted {
            call.finish(CallEnd::Answered, 10);
        }
        is_admitted
    });
    admitted.count()
}

async fn ledger_calls(usage: &Usage) -> u64 {
    let query = UsageQuery { to: i64::MAX, limit: 10, ..UsageQuery::default() };
    usage.report(query).await.expect("read").iter().map(|sum| sum.counts.calls).sum()
}

#[tokio::test]
async fn a_quota_is_passed_by_what_is_admitted_between_two_exchanges_at_most() {
    let (database, clock) = (ClusterDatabase::new(), clock());
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(start(&clock, database.connect().await).await);
    }
    let meters: Vec<_> = gateways.iter().map(|usage| meter(usage, a_day(100))).collect();
    let (mut admitted, mut between) = (0, 0);
    for _ in 0..20 {
        between = meters.iter().map(|meter| call(meter, 5)).sum();
        admitted += between;
        for usage in &gateways {
            assert!(usage.flush().await);
        }
        // A gateway that exchanged first learns of the others at its next turn.
        for usage in &gateways {
            assert!(usage.flush().await);
        }
    }
    assert_eq!(between, 0, "the day is used up everywhere");
    assert!((100..=100 + 2 * 5).contains(&admitted), "{admitted}");
    let used: Vec<_> = meters.iter().map(|meter| meter.quotas()[0].used).collect();
    assert_eq!(used, [admitted as u64; 3]);
    assert_eq!(ledger_calls(&gateways[2]).await, admitted as u64);
    clock.advance(Duration::from_secs(60));
    assert_eq!(call(&meters[0], 1), 1, "a day and a month begin");
    assert!(gateways[0].flush().await && gateways[1].flush().await);
    assert_eq!(meters[1].quotas()[0].used, 1);
}

#[tokio::test]
async fn a_gateway_that_is_killed_loses_what_it_had_not_sent() {
    let (database, clock) = (ClusterDatabase::new(), clock());
    let killed = start(&clock, database.connect().await).await;
    let of_killed = meter(&killed, a_day(10));
    assert_eq!(call(&of_killed, 4), 4);
    assert!(killed.flush().await);
    assert_eq!(call(&of_killed, 3), 3);
    drop((of_killed, killed));
    let next = start(&clock, database.connect().await).await;
    let of_next = meter(&next, a_day(10));
    assert_eq!(of_next.quotas()[0].used, 4);
    assert_eq!(call(&of_next, 10), 6);
    assert_eq!(ledger_calls(&next).await, 10);
}

#[tokio::test]
async fn calls_go_on_while_the_database_is_away_and_count_once_afterwards() {
    let (database, clock) = (ClusterDatabase::new(), clock());
    let (store, link) = database.connect_cuttable().await;
    let (usage, other) = (start(&clock, store).await, start(&clock, database.connect().await).await);
    let (here, there) = (meter(&usage, a_day(20)), meter(&other, a_day(20)));
    assert_eq!(call(&there, 5), 5);
    assert!(other.flush().await && usage.flush().await);
    assert_eq!(call(&here, 2), 2);
    // The batch arrives, and its answers do not.
    link.cut(u32::MAX);
    assert!(!usage.flush().await);
    assert_eq!(call(&here, 20), 13, "from the last sum on, with its own calls");
    database.set_reachable(false);
    assert!(!usage.flush().await && !other.flush().await);
    assert_eq!(call(&there, 3), 3);
    database.set_reachable(true);
    link.cut(0);
    while !(usage.flush().await && other.flush().await && usage.flush().await) {
        // The connector waits between attempts.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!([&here, &there].map(|meter| meter.quotas()[0].used), [23, 23]);
    assert_eq!(ledger_calls(&other).await, 23);
    assert_eq!((call(&here, 1), call(&there, 1)), (0, 0));
}

#[tokio::test]
async fn one_gateway_tells_that_a_quota_is_nearly_used_up() {
    let (database, clock) = (ClusterDatabase::new(), clock());
    let (first, second) =
        (start(&clock, database.connect().await).await, start(&clock, database.connect().await).await);
    let mut heard = [first.subscribe_warnings(), second.subscribe_warnings()];
    let mut told = || heard.iter_mut().map(|warnings| warnings.try_recv()).filter(Result::is_ok).count();
    let (here, there) = (meter(&first, a_day(20)), meter(&second, a_day(20)));
    assert_eq!((call(&here, 9), call(&there, 9)), (9, 9));
    assert!(first.flush().await && second.flush().await && first.flush().await);
    assert_eq!(told(), 0, "neither has passed four fifths by itself");
    assert_eq!((call(&here, 1), call(&there, 1)), (1, 1));
    assert!(first.flush().await && second.flush().await);
    assert_eq!(told(), 1);
    assert!(first.flush().await);
    let raised = meter(&second, a_day(24));
    assert_eq!((call(&here, 1), call(&raised, 2)), (0, 2));
    assert!(first.flush().await && second.flush().await);
    assert_eq!(told(), 1, "of a limit that was raised it is told again");
    let mut silent = first.subscribe_warnings();
    assert!(first.flush().await);
    assert_eq!(silent.try_recv().err(), Some(TryRecvError::Empty));
}

#[tokio::test]
async fn each_gateway_tells_for_itself_while_the_database_is_away() {
    let (database, clock) = (ClusterDatabase::new(), clock());
    let usage = start(&clock, database.connect().await).await;
    let mut heard = usage.subscribe_warnings();
    database.set_reachable(false);
    assert_eq!(call(&meter(&usage, a_day(10)), 9), 9);
    assert!(!usage.flush().await);
    assert_eq!(heard.try_recv().map(|warning| warning.used), Ok(8));
    database.set_reachable(true);
}

#[tokio::test]
async fn rates_are_shared_among_the_gateways_that_live() {
    let clock = clock();
    let usage = Usage::new(clock.clone());
    let limits = |per_minute| {
        let tenant = CallLimits { calls_per_minute: Some(per_minute), ..CallLimits::default() };
        meter(&usage, UsageLimits { tenant, ..UsageLimits::default() })
    };
    let a_minute_later = || clock.advance(Duration::from_secs(60));
    assert_eq!(call(&limits(9), 20), 9);
    a_minute_later();
    usage.live_nodes().set(3);
    assert_eq!(call(&limits(9), 20), 3);
    a_minute_later();
    usage.live_nodes().set(2);
    assert_eq!(call(&limits(9), 20), 4, "one has died");
    clock.advance(Duration::from_secs(300));
    usage.live_nodes().set(3);
    let smaller = limits(1);
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let admitted = call(&smaller, 5);
            a_minute_later();
            admitted
        })
        .collect();
    assert_eq!(calls, [1, 0, 0, 1, 0, 0], "one in three minutes, so that three gateways allow one a minute");
}

#[test]
fn calls_at_once_are_shared_among_the_gateways_that_live() {
    let usage = Usage::new(clock());
    let per_caller = CallLimits { concurrent_calls: Some(4), ..CallLimits::default() };
    let meter = meter(&usage, UsageLimits { per_caller, ..UsageLimits::default() });
    let begin = || {
        let caller = UsageCaller { key: CallerKey::User("ann".into()), name: None, client: None };
        let mut call = meter.begin(SystemClock::shared().monotonic(), caller, "search".into());
        call.admit().map(|()| call)
    };
    usage.live_nodes().set(2);
    let under_way = [begin(), begin()];
    assert!(under_way.iter().all(Result::is_ok));
    let refused = begin().expect_err("two of four are for the other gateway");
    assert_eq!((refused.kind, refused.of), (LimitKind::ConcurrentCalls, 2));
    usage.live_nodes().set(1);
    assert!(begin().is_ok(), "the other one has died");
}

#[tokio::test]
async fn ten_thousand_tenants_take_three_statements_an_exchange() {
    const TENANTS: usize = 10_000;
    let (database, clock) = (ClusterDatabase::new(), clock());
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(start(&clock, database.connect().await).await);
    }
    let names: Vec<_> =
        (0..TENANTS).map(|number| TenantName::parse(&format!("t{number}")).expect("a name")).collect();
    let call_all =
        |usage: &Arc<Usage>| names.iter().map(|name| call(&usage.meter(name, a_day(100)), 1)).sum::<usize>();
    for (round, usage) in gateways.iter().chain(&gateways).enumerate() {
        assert_eq!(call_all(usage), TENANTS);
        let (ticking, started) = (SystemClock::shared(), SystemClock::shared().monotonic());
        assert!(usage.flush().await);
        println!("exchange {round}: {} ms", (ticking.monotonic() - started).as_millis());
    }
    // Each batch is one statement, and each exchange reads with another one.
    assert_eq!(database.psql("SELECT sum(batch + 1) FROM tenantd.usage_writers"), "12");
    assert!(gateways[0].flush().await);
    let last = gateways[0].meter(&names[TENANTS - 1], a_day(100));
    assert_eq!(last.quotas()[0].used, 6);
    assert_eq!(database.psql("SELECT count(*) FROM tenantd.usage"), (2 * TENANTS).to_string());
}
