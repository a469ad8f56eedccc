use std::sync::Barrier;

use jiff::ToSpan;

use super::super::KeySource;
use super::*;
use crate::store::sample::store;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The life that all tests use.
fn acme() -> Life {
    static LIFE: std::sync::LazyLock<Life> = std::sync::LazyLock::new(|| Life::begin(&"acme".into()));
    LIFE.clone()
}

fn beta() -> Life {
    Life::of(&"beta".into(), acme().id())
}

fn begin(store: &Store, client_id: &str) -> GrantId {
    let id = GrantId::random();
    let (client_id, details) = (client_id.to_owned(), b"canary details".to_vec());
    let grant = Beginning { id, client_id, now: NOW, expires: NOW + 60.seconds(), family: [7; 32], details };
    store.begin_grant(&acme(), grant).expect("kept");
    id
}

fn step(id: GrantId, from: u32) -> Step {
    let expires = NOW + 30.seconds();
    let (client_id, details) = ("client".to_owned(), b"canary details".to_vec());
    Step { id, from, client_id, now: NOW, expires, ends: NOW + 90.seconds(), details }
}

#[test]
fn of_many_that_take_a_code_one_succeeds() {
    let (_folder, store) = store();
    let id = begin(&store, "client");
    let start = Barrier::new(8);
    let takers = || {
        start.wait();
        store.take_code(&acme(), step(id, 0)).expect("answered")
    };
    let taken = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(takers)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).filter(|taken| *taken).count()
    });
    assert_eq!(taken, 1);
    assert_eq!(store.grant(&acme(), id, NOW).expect("read").expect("there").number, 1);
}

#[test]
fn a_grant_is_its_tenants_alone_and_sealed() {
    let (folder, store) = store();
    let id = begin(&store, "client");
    let grant = store.grant(&acme(), id, NOW).expect("read").expect("there");
    assert_eq!((grant.details.as_slice(), grant.family), (&b"canary details"[..], [7; 32]));
    assert!(store.grant(&beta(), id, NOW).expect("read").is_none());
    assert!(!store.take_code(&beta(), step(id, 0)).expect("answered"));
    assert!(!format!("{grant:?}").contains("canary"));
    drop(store);
    for file in ["tenantd.db", "tenantd.db-wal"] {
        let bytes = std::fs::read(folder.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{file}");
    }
}

#[test]
fn a_step_counts_once_and_in_time_only() {
    let (_folder, store) = store();
    let id = begin(&store, "client");
    let late = Step { now: NOW + 60.seconds(), ..step(id, 0) };
    assert!(!store.take_code(&acme(), late).expect("answered"), "the code has expired");
    assert!(store.take_code(&acme(), step(id, 0)).expect("answered"));
    let changed = Step { details: b"later".to_vec(), ..step(id, 1) };
    assert!(store.rotate_refresh(&acme(), changed).expect("answered"));
    assert!(!store.rotate_refresh(&acme(), step(id, 1)).expect("answered"));
    let grant = store.grant(&acme(), id, NOW).expect("read").expect("there");
    assert_eq!((grant.number, grant.details.as_slice()), (2, &b"later"[..]));
    assert!(store.grant(&acme(), id, NOW + 30.seconds()).expect("read").is_none());
}

#[test]
fn what_is_revoked_outlives_the_process() {
    let (folder, store) = store();
    let id = begin(&store, "client");
    let forget = NOW + 3600.seconds();
    let client = Subject::Client(Digest::of(b"client"));
    for subject in [Subject::Grant(id), client] {
        store.revoke(&acme(), Revoked { subject, issued_until: NOW, forget }).expect("revoked");
    }
    assert!(store.grant(&acme(), id, NOW).expect("read").is_none());
    drop(store);
    let store = Store::open(folder.path(), &KeySource::State).expect("opened");
    let subjects: Vec<_> = store.revoked().expect("read").known.into_iter().map(|it| it.1.subject).collect();
    assert!(subjects.contains(&Subject::Grant(id)) && subjects.contains(&client), "{subjects:?}");
    assert_eq!(store.delete_expired(forget, 10).expect("deleted"), 2);
    assert_eq!(store.revoked().expect("read"), Revocations::default());
}

#[test]
fn housekeeping_is_bounded() {
    let (_folder, store) = store();
    for _ in 0..5 {
        begin(&store, "client");
    }
    assert_eq!(store.delete_expired(NOW + 59.seconds(), 3).expect("deleted"), 0);
    let rounds: Vec<_> =
        (0..3).map(|_| store.delete_expired(NOW + 60.seconds(), 3).expect("deleted")).collect();
    assert_eq!(rounds, [3, 2, 0]);
}

#[test]
fn the_grants_of_a_client_end_together() {
    let (_folder, store) = store();
    let (first, second, other) = (begin(&store, "a"), begin(&store, "a"), begin(&store, "b"));
    let mut ended = store.end_grants_of(&acme(), "a").expect("ended");
    ended.sort_by_key(|id| *id != first);
    assert_eq!(ended, [first, second]);
    assert!(store.grant(&acme(), other, NOW).expect("read").is_some());
}

#[test]
fn an_id_reads_back() {
    let id = GrantId::random();
    assert_eq!(GrantId::parse(&id.to_string()), Some(id));
    for bad in ["", "ab", &"g".repeat(32), &"A".repeat(32), &"é".repeat(16)] {
        assert_eq!(GrantId::parse(bad), None, "{bad}");
    }
}
