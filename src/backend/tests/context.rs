//! The semantic context: cached, fetched once for concurrent callers, kept while the backend is
//! down, restored after a restart.

use super::super::client::backend_fingerprint;
use super::super::{ContextRefresher, SemanticContext};
use super::*;
use crate::base::budget::Budget;
use crate::base::json::JsonDocument;
use crate::base::task::Tasks;
use crate::spec::TenantName;
use crate::store::{KeySource, Store};

const PATH: &str = "/nlp-context";

fn reply(version: u32) -> Reply {
    Reply::Json(json!({ "version": version }))
}

impl BackendTestkit {
    async fn context(&self, client: &BackendClient) -> Result<Value, Error> {
        client.context(&self.call(Duration::from_secs(10))).await.map(|context| context.document().to_value())
    }

    fn another_tenants_client(&self) -> Arc<BackendClient> {
        self.client_of(&self.backend.url(PATH), Arc::default())
    }

    fn fetch_count(&self) -> usize {
        self.backend.counts().requests
    }

    /// Waits until the client has this version.
    async fn knows(&self, client: &BackendClient, version: u32) {
        let known = async {
            while client
                .cached_context()
                .is_none_or(|known| known.document().to_value() != json!({ "version": version }))
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known).await.expect("it comes to know it");
    }
}

#[test]
fn another_key_is_another_backend() {
    let with_key = |key| CallSpec {
        headers: [(HeaderName::from_static("x-api-key"), Secret::new(key))].into(),
        ..search("http://backend.example/nlp-context")
    };
    let print = |key| backend_fingerprint(&with_key(key));
    assert_eq!(print("a"), print("a"));
    assert_ne!(print("a"), print("b"));
}

fn acme() -> TenantName {
    TenantName::parse("acme").expect("a name")
}

#[tokio::test]
async fn concurrent_requests_share_one_fetch() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer(PATH, Reply::Held(Box::new(reply(1))));
    let client = bench.client();
    let release = async {
        bench.backend.until(|counts| counts.in_flight == 1).await;
        bench.backend.release();
    };
    let (a, b, c, ()) =
        tokio::join!(bench.context(&client), bench.context(&client), bench.context(&client), release);
    let expected = Ok(json!({"version": 1}));
    assert_eq!((&a, &b, &c), (&expected, &expected, &expected));
    assert_eq!(bench.fetch_count(), 1);
    assert_eq!(
        bench.backend.requests()[0].header("x-user"),
        None,
        "one context for all: nobody's in particular"
    );
}

#[tokio::test]
async fn concurrent_requests_share_one_failure() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer(PATH, Reply::Held(Box::new(Reply::Status(500, json!({})))));
    let client = bench.client();
    let release = async {
        bench.backend.until(|counts| counts.in_flight == 1).await;
        bench.backend.release();
    };
    let (a, b, ()) = tokio::join!(bench.context(&client), bench.context(&client), release);
    let expected = Err(Error::Failed { status: 500 });
    assert_eq!((a, b, bench.fetch_count()), (expected.clone(), expected, 1));
}

#[tokio::test]
async fn a_cancelled_fetch_is_taken_over_by_a_waiting_request() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer_next(Reply::Hang);
    bench.backend.answer(PATH, reply(2));
    let client = bench.client();
    let follower = async {
        bench.backend.until(|counts| counts.in_flight == 1).await;
        bench.context(&client).await
    };
    let mut leader = Box::pin(bench.context(&client));
    let mut follower = Box::pin(follower);
    tokio::select! {
        _ = &mut leader => panic!("the backend is silent"),
        _ = &mut follower => panic!("the leader still waits"),
        _ = bench.backend.until(|counts| counts.in_flight == 1) => {}
    }
    drop(leader);
    assert_eq!(follower.await, Ok(json!({"version": 2})));
}

#[tokio::test]
async fn the_last_good_context_stays_while_the_backend_is_down() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer(PATH, reply(1));
    let client = bench.client();
    bench.context(&client).await.expect("a context");
    bench.context(&client).await.expect("the same");
    assert_eq!(bench.fetch_count(), 1, "fresh for an hour");

    bench.clock.advance(Duration::from_secs(3600));
    bench.backend.answer(PATH, Reply::Status(503, json!({})));
    assert_eq!(bench.context(&client).await, Ok(json!({"version": 1})));
    assert_eq!(
        client.degradation().map(|degradation| degradation.reason).as_deref(),
        Some("the search service failed (HTTP 503)")
    );

    bench.backend.answer(PATH, reply(2));
    assert_eq!(bench.context(&client).await, Ok(json!({"version": 2})));
    assert_eq!((client.degradation(), bench.fetch_count()), (None, 3));
}

#[tokio::test]
async fn a_reload_keeps_the_context_of_the_same_backend_only() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer(PATH, reply(1));
    let before = bench.client();
    bench.context(&before).await.expect("a context");
    assert!(bench.client().cached_context().is_some());
    let another = bench.client_to(&bench.backend.url("/cassandra-context"));
    assert!(another.cached_context().is_none());
    assert!(before.cached_context().is_none(), "what lasts is about the new one now");
}

#[tokio::test]
async fn a_context_above_a_mebibyte_is_not_kept() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer(PATH, Reply::Huge((1 << 20) + 1));
    let client = bench.client();
    assert_eq!(bench.context(&client).await, Err(Error::TooLarge { limit: 1 << 20 }));
    assert!(client.degradation().is_some(), "its tenant has no context, which its operator should see");
}

#[tokio::test]
async fn a_refresh_is_retried_until_the_backend_answers() {
    let bench = BackendTestkit::new().await;
    let tasks = Tasks::new();
    let refresher = ContextRefresher::start(&tasks, bench.clock.clone(), None);
    let mut health = bench.pool.subscribe_health();
    bench.backend.answer(PATH, Reply::Status(500, json!({})));
    let client = bench.client();
    refresher.register(acme(), &client);
    health.changed().await.expect("the pool lives");
    assert!(client.degradation().is_some());

    bench.backend.answer(PATH, reply(1));
    while refresher.pending_count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((client.cached_context().is_some(), bench.fetch_count()), (false, 1), "not before its time");
    bench.clock.advance(Duration::from_secs(5));
    refresher.recheck_due();
    bench.knows(&client, 1).await;
    assert_eq!(client.degradation(), None);

    // A stale context is returned at once and refreshed in the background.
    bench.backend.answer(PATH, Reply::Held(Box::new(reply(2))));
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(bench.context(&client).await, Ok(json!({"version": 1})));
    bench.backend.until(|counts| counts.in_flight == 1).await;
    bench.backend.release();
    bench.knows(&client, 2).await;
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn refreshes_are_bounded_and_end_with_their_tenants() {
    let bench = BackendTestkit::new().await;
    let tasks = Tasks::new();
    let refresher = ContextRefresher::start(&tasks, bench.clock.clone(), None);
    bench.backend.answer(PATH, Reply::Hang);
    let clients: Vec<_> = (0..12).map(|_| bench.another_tenants_client()).collect();
    for (number, client) in clients.iter().enumerate() {
        refresher.register(TenantName::parse(&format!("t{number}")).expect("a name"), client);
    }
    bench.backend.until(|counts| counts.in_flight == 8).await;
    drop(clients);
    bench.backend.until(|counts| counts.cancelled == 8 && counts.in_flight == 0).await;
    assert_eq!(bench.backend.counts().requests, 8, "the others are gone before their turn");
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_context_survives_a_restart_for_a_backend_that_is_down() {
    let bench = BackendTestkit::new().await;
    let state = tempfile::tempdir().expect("a folder");
    let store = Store::open(state.path(), &KeySource::State).expect("opened").contexts();
    bench.backend.answer(PATH, reply(1));
    for restart in [false, true] {
        let tasks = Tasks::new();
        let refresher = ContextRefresher::start(&tasks, bench.clock.clone(), Some(store.clone()));
        let client = bench.another_tenants_client();
        assert!(client.cached_context().is_none());
        refresher.register(acme(), &client);
        bench.knows(&client, 1).await;
        if !restart {
            let stored = state.path().join("contexts/acme.sealed");
            while !stored.exists() {
                tokio::task::yield_now().await;
            }
            bench.backend.answer(PATH, Reply::Status(503, json!({})));
        }
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn a_backend_that_hangs_keeps_no_others_first_context_waiting() {
    let (bench, hanging) = (BackendTestkit::new().await, FakeBackend::start().await);
    bench.backend.answer(PATH, reply(1));
    hanging.answer(PATH, Reply::Hang);
    let tasks = Tasks::new();
    let refresher = ContextRefresher::start(&tasks, bench.clock.clone(), None);
    let hung: Vec<_> = (0..100).map(|_| bench.client_of(&hanging.url(PATH), Arc::default())).collect();
    for client in &hung {
        refresher.register(acme(), client);
    }
    hanging.until(|counts| counts.in_flight == 8).await;
    let good: Vec<_> = (0..20).map(|_| bench.another_tenants_client()).collect();
    for client in &good {
        refresher.register(acme(), client);
    }
    for client in &good {
        bench.knows(client, 1).await;
    }
    assert_eq!(hanging.counts().most_in_flight, 8, "half of the places");
    assert_eq!(refresher.pending_count(), 92);
    drop(hung);
    let emptied = async {
        while refresher.pending_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), emptied)
        .await
        .expect("those that are gone leave the queue");
    tasks.abort_signal().cancel();
}

#[tokio::test]
async fn a_slow_fetch_frees_its_slot_and_completes() {
    let bench = BackendTestkit::new().await;
    bench.backend.answer(PATH, Reply::Held(Box::new(reply(1))));
    let tasks = Tasks::new();
    let refresher = ContextRefresher::start(&tasks, bench.clock.clone(), None);
    let clients: Vec<_> = (0..12).map(|_| bench.another_tenants_client()).collect();
    for client in &clients {
        refresher.register(acme(), client);
    }
    bench.backend.until(|counts| counts.in_flight == 12).await;
    bench.backend.release();
    for client in &clients {
        bench.knows(client, 1).await;
    }
    tasks.abort_signal().cancel();
}

/// Returns a context of about so many bytes.
fn sized(bytes: usize) -> Value {
    json!({ "text": "x".repeat(bytes) })
}

#[tokio::test]
async fn a_context_without_room_is_returned_and_not_kept() {
    let mut bench = BackendTestkit::new().await;
    let budget = Budget::new(64 << 10);
    bench.pool = bench.pool.with_context_budget(Arc::clone(&budget));
    let small = bench.another_tenants_client();
    bench.backend.answer(PATH, Reply::Json(sized(20 << 10)));
    bench.context(&small).await.expect("a context");

    bench.backend.answer(PATH, Reply::Held(Box::new(Reply::Json(sized(50 << 10)))));
    let large = bench.client();
    let release = async {
        bench.backend.until(|counts| counts.in_flight == 1).await;
        bench.backend.release();
    };
    let call = bench.call(Duration::from_secs(10));
    let (one, two, ()) = tokio::join!(large.context(&call), large.context(&call), release);
    let (one, two) = (one.expect("a context"), two.expect("a context"));
    assert!(Arc::ptr_eq(&one, &two) && !one.was_kept(), "those who ask at once share it");
    assert!(large.cached_context().is_none() && small.cached_context().is_some());
    let gone: std::sync::Weak<SemanticContext> = Arc::downgrade(&one);
    drop((one, two));
    assert!(gone.upgrade().is_none(), "nobody has it any more");

    bench.backend.answer(PATH, Reply::Json(sized(50 << 10)));
    bench.context(&large).await.expect("another fetch");
    assert_eq!(bench.fetch_count(), 3);
    bench.context(&small).await.expect("the same as before");
    assert_eq!(bench.fetch_count(), 3, "a small context stays");
    assert!((20 << 10..30 << 10).contains(&budget.held()), "{}", budget.held());
}

#[tokio::test]
async fn a_context_is_fetched_again_in_the_background_once_there_is_room() {
    let mut bench = BackendTestkit::new().await;
    bench.pool = bench.pool.with_context_budget(Budget::new(64 << 10));
    let tasks = Tasks::new();
    let refresher = ContextRefresher::start(&tasks, bench.clock.clone(), None);
    let (small, large) = (bench.another_tenants_client(), bench.client());
    bench.backend.answer(PATH, Reply::Json(sized(20 << 10)));
    bench.context(&small).await.expect("a context");
    bench.backend.answer(PATH, Reply::Json(sized(50 << 10)));
    refresher.register(acme(), &large);
    bench.backend.until(|counts| counts.requests == 2 && counts.in_flight == 0).await;
    for _ in 0..10 {
        assert!(large.cached_context().is_none());
        tokio::task::yield_now().await;
    }
    drop(small);
    let kept = async {
        while large.cached_context().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), kept).await.expect("it is kept now");
    assert_eq!(bench.fetch_count(), 3, "not before there was room");
    tasks.abort_signal().cancel();
}

#[tokio::test]
async fn a_restored_context_counts_like_a_fetched_one() {
    let mut bench = BackendTestkit::new().await;
    let budget = Budget::new(64 << 10);
    bench.pool = bench.pool.with_context_budget(Arc::clone(&budget));
    let restored = || JsonDocument::from_value(&sized(40 << 10));
    let (one, two) = (bench.another_tenants_client(), bench.another_tenants_client());
    one.restore_context(restored());
    two.restore_context(restored());
    assert_eq!((one.cached_context().is_some(), two.cached_context().is_some()), (true, false));
    assert!((40 << 10..64 << 10).contains(&budget.held()), "{}", budget.held());
}
