use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::store::testkit::{ClusterDatabase, new_store};
use crate::store::usage::StoredQuota;
use crate::store::usage_copy;

const DAY_SECONDS: i64 = 86_400;
const NOON: i64 = 20_000 * DAY_SECONDS + 12 * 3_600;

fn row(tenant: &str, starts: i64, person: &str, calls: u64) -> UsageRow {
    UsageRow {
        tenant: tenant.into(),
        starts,
        person: person.into(),
        name: person.to_uppercase(),
        client: "c\0".into(),
        tool: "search".into(),
        counts: UsageCounts { calls, errors: 1, milliseconds: 20, bytes: 300 },
    }
}

fn used(tenant: &str, period: QuotaPeriod, calls: u64) -> QuotaUse {
    QuotaUse { tenant: tenant.into(), scope: "tenant".into(), period, calls, bytes: 10 * calls }
}

fn batch(rows: Vec<UsageRow>, uses: Vec<QuotaUse>) -> UsageBatch {
    UsageBatch { rows, uses, ..UsageBatch::default() }
}

fn id(writer: u8, number: i64) -> UsageBatchId {
    UsageBatchId { writer: [writer; 16], number }
}

async fn calls_of(store: &ClusterStore, tenant: &str) -> u64 {
    let tenant = Some(tenant.to_owned());
    let query = UsageQuery { tenant, to: i64::MAX, limit: 10, ..UsageQuery::default() };
    store.query_usage(&query).await.expect("read").iter().map(|sum| sum.counts.calls).sum()
}

async fn quota_calls(store: &ClusterStore) -> u64 {
    let sums = store.load_quota_sums(0, 0, 0).await.expect("read");
    sums.uses.iter().map(|sum| sum.calls).sum()
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_is_sent() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let first = batch(vec![row("acme", NOON, "ann", 3)], vec![used("acme", QuotaPeriod::Day(20_000), 3)]);
    let sent = (0..4).map(|_| store.add_usage(id(1, 7), &first));
    futures_util::future::try_join_all(sent).await.expect("acknowledged");
    store.add_usage(id(1, 6), &first).await.expect("an earlier one that was late");
    assert_eq!((calls_of(&store, "acme").await, quota_calls(&store).await), (3, 3));
    store.add_usage(id(1, 8), &first).await.expect("the next one");
    store.add_usage(id(2, 7), &first).await.expect("that of another gateway");
    assert_eq!((calls_of(&store, "acme").await, quota_calls(&store).await), (9, 9));
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_counts_once() {
    let database = ClusterDatabase::new();
    let (store, link) = database.connect_cuttable().await;
    let first = batch(vec![row("acme", NOON, "ann", 3)], vec![used("acme", QuotaPeriod::Day(20_000), 3)]);
    link.cut(1);
    store.add_usage(id(1, 0), &first).await.expect("it is sent again by itself");
    assert_eq!((link.left(), calls_of(&store, "acme").await, quota_calls(&store).await), (0, 3, 3));
    link.cut(20);
    store.add_usage(id(1, 1), &first).await.expect_err("no answer arrives");
    link.cut(0);
    let sent_again = async || store.add_usage(id(1, 1), &first).await.ok();
    let mut acknowledged = sent_again().await;
    while acknowledged.is_none() {
        // The connector waits between attempts.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        acknowledged = sent_again().await;
    }
    assert_eq!((calls_of(&store, "acme").await, quota_calls(&store).await), (6, 6));
}

#[tokio::test]
async fn reports_are_those_of_a_file() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let (_folder, file) = new_store();
    let batches = [
        vec![row("a", NOON, "ann", 1), row("a", NOON + 3_600, "ann", 2)],
        vec![row("a", NOON, "ben", 4), row("a", NOON, "ann", 8), row("b", NOON + DAY_SECONDS, "ann", 16)],
        vec![row("a", NOON + 2 * DAY_SECONDS, OTHERS, 32)],
    ];
    for (number, rows) in (0..).zip(batches) {
        // What stands for others has no name and no client of its own.
        let rows = rows.into_iter().map(|row| match row.person == OTHERS {
            true => UsageRow { client: OTHERS.into(), name: OTHERS.into(), ..row },
            false => UsageRow { client: "c".into(), ..row },
        });
        let rows = rows.collect();
        let batch = batch(rows, Vec::new());
        store.add_usage(id(1, number), &batch).await.expect("added");
        file.local().write_usage(Arc::new(batch)).await.expect("written");
    }
    let mut answers = 0;
    for tenant in [None, Some("a".to_owned())] {
        for by in UsageBy::ALL.map(Some).into_iter().chain([None]) {
            for per in UsagePer::ALL.map(Some).into_iter().chain([None]) {
                for from in [0, NOON, NOON + 3_600, NOON + DAY_SECONDS] {
                    let query = UsageQuery { tenant: tenant.clone(), from, to: i64::MAX, by, per, limit: 3 };
                    let together = store.query_usage(&query).await.expect("read");
                    let alone = file.local().query_usage(query.clone()).await.expect("read");
                    assert_eq!(together, alone, "{query:?}");
                    answers += together.len();
                }
            }
        }
    }
    assert!(answers > 100, "{answers}");
}

#[tokio::test]
async fn persons_beyond_the_bound_share_a_row_and_no_call_is_lost() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let add = async |number, persons: std::ops::Range<u64>| {
        let rows = persons.map(|person| row("acme", NOON, &person.to_string(), 1)).collect();
        store.add_bounded(id(1, number), &batch(rows, Vec::new()), 4).await.expect("added");
    };
    add(0, 0..4).await;
    add(1, 2..7).await;
    add(2, 6..8).await;
    let rows = database.psql("SELECT person, calls FROM tenantd.usage WHERE period = 0 ORDER BY person");
    assert_eq!(rows.lines().collect::<Vec<_>>(), ["(others)|5", "0|1", "1|1", "2|2", "3|2"]);
    assert_eq!(calls_of(&store, "acme").await, 11);
}

#[tokio::test]
async fn only_sums_that_changed_are_read_again() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let (day, month) = (QuotaPeriod::Day(20_000), QuotaPeriod::Month(24_000));
    let uses = vec![used("acme", day, 2), used("acme", month, 2), used("beta", day, 1)];
    store.add_usage(id(1, 0), &batch(Vec::new(), uses)).await.expect("added");
    let first = store.load_quota_sums(20_000, 24_000, 0).await.expect("read");
    assert_eq!(first.uses.len(), 3);
    let none = store.load_quota_sums(20_001, 24_001, 0).await.expect("read");
    assert_eq!(none.uses, [], "an earlier day and month are over");
    store.add_usage(id(2, 0), &batch(Vec::new(), vec![used("acme", day, 5)])).await.expect("added");
    let next = store.load_quota_sums(20_000, 24_000, first.read_up_to).await.expect("read");
    assert!(next.uses.contains(&used("acme", day, 7)), "{next:?}");
    // What other transactions of the server may have changed is read again, as long as they last.
    let mut read_up_to = next.read_up_to;
    let settled = async {
        loop {
            let after = store.load_quota_sums(20_000, 24_000, read_up_to).await.expect("read");
            if after.uses.is_empty() {
                return;
            }
            read_up_to = after.read_up_to;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("nothing is read in the end");
}

#[tokio::test]
async fn sums_that_are_committed_late_are_not_missed() {
    let database = ClusterDatabase::new();
    let (store, other) = (database.connect().await, database.connect().await);
    let day = QuotaPeriod::Day(20_000);
    store.add_usage(id(1, 0), &batch(Vec::new(), vec![used("beta", day, 1)])).await.expect("added");
    // The lock keeps a batch from its end, while later ones come to theirs.
    let lock = "DO $$ BEGIN
        PERFORM FROM tenantd.quotas WHERE tenant = 'beta' FOR UPDATE;
        WHILE NOT EXISTS (SELECT FROM tenantd.told WHERE news = 'go on') LOOP PERFORM pg_sleep(0.02); END LOOP;
    END $$";
    let late = batch(Vec::new(), vec![used("acme", day, 2), used("beta", day, 2)]);
    let database = Arc::new(database);
    let holder = {
        let database = Arc::clone(&database);
        tokio::task::spawn_blocking(move || database.psql(lock))
    };
    let is_locked =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO $$%' AND wait_event = 'PgSleep'
                     AND datname = current_database()";
    while database.psql(is_locked) != "1" {}
    let mut sending = {
        let (other, late) = (other.clone(), late.clone());
        let mut sending = tokio::task::JoinSet::new();
        sending.spawn(async move { other.add_usage(id(2, 0), &late).await });
        sending
    };
    let is_waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while database.psql(is_waiting) != "1" {
        tokio::task::yield_now().await;
    }
    store.add_usage(id(1, 1), &batch(Vec::new(), vec![used("zeta", day, 1)])).await.expect("added");
    let before = store.load_quota_sums(20_000, 0, 0).await.expect("read");
    assert_eq!(before.uses.len(), 2, "the late batch is not there yet");
    database.psql("INSERT INTO tenantd.told (news, teller, forget_at) VALUES ('go on', '', 0)");
    sending.join_next().await.expect("one").expect("it ends").expect("added");
    holder.await.expect("it ends");
    let after = store.load_quota_sums(20_000, 0, before.read_up_to).await.expect("read");
    let acme = after.uses.iter().find(|sum| sum.tenant == "acme");
    assert_eq!(acme.map(|sum| sum.calls), Some(2), "{after:?}");
}

#[tokio::test]
async fn old_usage_is_deleted() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let rows = vec![row("old", NOON - 40 * DAY_SECONDS, "ann", 1), row("acme", NOON, "ann", 1)];
    let days = [19_900, 20_000].map(|day| used("acme", QuotaPeriod::Day(day), 1));
    let months = [23_999, 24_000].map(|month| used("acme", QuotaPeriod::Month(month), 1));
    store.add_usage(id(1, 0), &batch(rows, days.into_iter().chain(months).collect())).await.expect("added");
    store.prune_usage(NOON, 24_000).await.expect("deleted");
    let left = "SELECT period, tenant FROM tenantd.usage ORDER BY period, tenant";
    assert_eq!(database.psql(left).lines().collect::<Vec<_>>(), ["0|acme", "1|acme", "1|old"]);
    let left = "SELECT period, number FROM tenantd.quotas ORDER BY period";
    assert_eq!(database.psql(left).lines().collect::<Vec<_>>(), ["0|20000", "1|24000"]);
    let sizes = "SELECT tenant, detail_rows FROM tenantd.usage_sizes ORDER BY tenant";
    assert_eq!(database.psql(sizes).lines().collect::<Vec<_>>(), ["acme|2", "old|1"]);
}

#[tokio::test]
async fn a_ledger_that_is_too_long_drops_its_oldest_hours() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let rows = (0..4).map(|hour| row("acme", NOON + hour * 3_600, "ann", 1)).collect();
    store.add_usage(id(1, 0), &batch(rows, Vec::new())).await.expect("added");
    database.psql("SELECT tenantd.prune_usage(0, 0, 0, 0, 0, 3)");
    let left = format!("SELECT period, (starts - {NOON}) / 3600 FROM tenantd.usage ORDER BY period, starts");
    assert_eq!(database.psql(&left).lines().collect::<Vec<_>>(), ["0|2", "0|3", "1|-12"]);
}

#[tokio::test]
async fn news_are_told_by_one_gateway() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let news = |keys: &[&str]| -> Vec<_> {
        keys.iter().map(|key| SharedNews { key: (*key).to_owned(), forget_at: NOON }).collect()
    };
    let mine = store.claim_news([1; 16], &news(&["a", "b", "a"])).await.expect("claimed");
    assert_eq!(mine, ["a", "b"]);
    let again = store.claim_news([1; 16], &news(&["b"])).await.expect("claimed");
    assert_eq!(again, ["b"], "since the first answer may have been lost");
    let yours = store.claim_news([2; 16], &news(&["b", "c"])).await.expect("claimed");
    assert_eq!(yours, ["c"]);
    store.prune_usage(NOON + 1, 0).await.expect("deleted");
    let later = store.claim_news([2; 16], &news(&["b"])).await.expect("claimed");
    assert_eq!(later, ["b"]);
}

#[tokio::test]
async fn one_gateway_at_a_time_tells_what_all_see_alike() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let holds = async |teller: u8| store.hold_telling([teller; 16]).await.expect("answered");
    assert!(holds(1).await && !holds(2).await && holds(1).await);
    database.psql("UPDATE tenantd.told SET forget_at = forget_at - 20");
    assert!(holds(2).await && !holds(1).await, "nothing was heard of the first");
}

#[tokio::test]
async fn the_ledger_and_the_counts_survive_a_copy_in_both_directions() {
    let database = ClusterDatabase::new();
    let store = database.connect().await;
    let (_folder, file) = new_store();
    let rows: Vec<_> = [("a", "ann", 3), ("a", OTHERS, 4), ("b", "ben", 5)]
        .map(|(tenant, person, calls)| UsageRow { client: "c".into(), ..row(tenant, NOON, person, calls) })
        .into();
    let quota = StoredQuota {
        tenant: "a".into(),
        scope: "caller:user:ann".into(),
        day: 20_000,
        month: 24_000,
        calls_per_day: 2,
        calls_per_month: 3,
        bytes_per_day: 4,
        bytes_per_month: 5,
    };
    let written = UsageBatch { rows, quotas: vec![quota.clone()], uses: Vec::new() };
    file.local().write_usage(Arc::new(written)).await.expect("written");
    let by_hour = UsageQuery {
        to: i64::MAX,
        limit: 100,
        by: Some(UsageBy::Person),
        per: Some(UsagePer::Hour),
        ..UsageQuery::default()
    };
    let by_day = UsageQuery { per: Some(UsagePer::Day), ..by_hour.clone() };
    let before = file.local().query_usage(by_hour.clone()).await.expect("read");
    let tables = UsageTables::new(&store.engine);
    for _ in 0..2 {
        let copied = usage_copy::to_database(file.local().tables(), &tables).await.expect("copied");
        assert_eq!(copied, 6, "hours and days");
    }
    assert_eq!(store.query_usage(&by_hour).await.expect("read"), before);
    assert_eq!(store.query_usage(&by_day).await.expect("read").len(), 3);
    assert_eq!(database.psql("SELECT tenant, detail_rows FROM tenantd.usage_sizes ORDER BY 1"), "a|2\nb|2");
    let more = batch(vec![row("b", NOON, "eve", 1)], vec![used("a", QuotaPeriod::Month(24_000), 1)]);
    store.add_usage(id(1, 0), &more).await.expect("added");
    for _ in 0..2 {
        assert_eq!(usage_copy::to_file(&tables, file.local().tables()).await.expect("copied"), 8);
    }
    let after = file.local().query_usage(by_hour.clone()).await.expect("read");
    assert_eq!((after.len(), after == store.query_usage(&by_hour).await.expect("read")), (4, true));
    let mut quotas = file.local().load_quotas(24_000).await.expect("read");
    quotas.sort_by(|a, b| a.scope.cmp(&b.scope));
    let scopes: Vec<_> = quotas.iter().map(|it| (&*it.scope, it.calls_per_day, it.calls_per_month)).collect();
    assert_eq!(scopes, [("caller:user:ann", 2, 3), ("tenant", 0, 1)]);
    assert_eq!(quotas[0], quota);
}
