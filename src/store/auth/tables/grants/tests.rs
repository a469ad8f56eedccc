use std::sync::Barrier;

use jiff::ToSpan;

use super::*;
use crate::base::digest::Digest;
use crate::store::KeySource;
use crate::store::testkit::{new_auth_tables, open_auth_tables};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The incarnation that all tests use.
fn acme() -> Incarnation {
    static INCARNATION: std::sync::LazyLock<Incarnation> =
        std::sync::LazyLock::new(|| Incarnation::new(&"acme".into()));
    INCARNATION.clone()
}

fn beta() -> Incarnation {
    Incarnation::from_parts(&"beta".into(), acme().id())
}

fn create_grant(store: &AuthTables, client_id: &str) -> GrantId {
    let id = GrantId::random();
    let (client_id, payload) = (client_id.to_owned(), b"canary details".to_vec());
    let grant = CreateGrant {
        id,
        client_id,
        now: NOW,
        code_expires_at: NOW + 60.seconds(),
        family_key: [7; 32],
        payload,
    };
    store.create_grant(&acme(), grant).expect("kept");
    id
}

fn new_rotation(id: GrantId, from: u32) -> RotateGrant {
    let expires = NOW + 30.seconds();
    let (client_id, payload) = ("client".to_owned(), b"canary details".to_vec());
    RotateGrant {
        id,
        from_sequence: from,
        client_id,
        now: NOW,
        expires_at: expires,
        ends_at: NOW + 90.seconds(),
        payload,
    }
}

#[test]
fn a_code_is_redeemed_once_by_concurrent_requests() {
    let (_folder, store) = new_auth_tables();
    let id = create_grant(&store, "client");
    let start = Barrier::new(8);
    let takers = || {
        start.wait();
        store.take_code(&acme(), new_rotation(id, 0)).expect("answered")
    };
    let taken = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(takers)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).filter(|taken| *taken).count()
    });
    assert_eq!(taken, 1);
    assert_eq!(store.load_grant(&acme(), id, NOW).expect("read").expect("there").last_sequence, 1);
}

#[test]
fn a_grant_is_sealed_and_exists_for_its_tenant_only() {
    let (folder, store) = new_auth_tables();
    let id = create_grant(&store, "client");
    let grant = store.load_grant(&acme(), id, NOW).expect("read").expect("there");
    assert_eq!((grant.payload.as_slice(), grant.family_key), (&b"canary details"[..], [7; 32]));
    assert!(store.load_grant(&beta(), id, NOW).expect("read").is_none());
    assert!(!store.take_code(&beta(), new_rotation(id, 0)).expect("answered"));
    assert!(!format!("{grant:?}").contains("canary"));
    drop(store);
    for file in ["tenantd.db", "tenantd.db-wal"] {
        let bytes = std::fs::read(folder.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{file}");
    }
}

#[test]
fn a_token_rotates_once_and_only_before_it_expires() {
    let (_folder, store) = new_auth_tables();
    let id = create_grant(&store, "client");
    let late = RotateGrant { now: NOW + 60.seconds(), ..new_rotation(id, 0) };
    assert!(!store.take_code(&acme(), late).expect("answered"), "the code has expired");
    assert!(store.take_code(&acme(), new_rotation(id, 0)).expect("answered"));
    let changed = RotateGrant { payload: b"later".to_vec(), ..new_rotation(id, 1) };
    assert!(store.rotate_refresh(&acme(), changed).expect("answered"));
    assert!(!store.rotate_refresh(&acme(), new_rotation(id, 1)).expect("answered"));
    let grant = store.load_grant(&acme(), id, NOW).expect("read").expect("there");
    assert_eq!((grant.last_sequence, grant.payload.as_slice()), (2, &b"later"[..]));
    assert!(store.load_grant(&acme(), id, NOW + 30.seconds()).expect("read").is_none());
}

#[test]
fn a_revocation_survives_a_restart() {
    let (folder, store) = new_auth_tables();
    let id = create_grant(&store, "client");
    let forget = NOW + 3600.seconds();
    let client = RevokedSubject::Client(Digest::of(b"client"));
    for subject in [RevokedSubject::Grant(id), client] {
        store.revoke(&acme(), Revocation { subject, issued_until: NOW, forget_at: forget }).expect("revoked");
    }
    assert!(store.load_grant(&acme(), id, NOW).expect("read").is_none());
    drop(store);
    let store = open_auth_tables(folder.path(), &KeySource::State);
    let subjects: Vec<_> =
        store.load_revocations().expect("read").known.into_iter().map(|it| it.1.subject).collect();
    assert!(subjects.contains(&RevokedSubject::Grant(id)) && subjects.contains(&client), "{subjects:?}");
    assert_eq!(store.delete_expired(forget, 10).expect("deleted"), 2);
    assert_eq!(store.load_revocations().expect("read"), StoredRevocations::default());
}

#[test]
fn expired_rows_are_deleted_in_batches() {
    let (_folder, store) = new_auth_tables();
    for _ in 0..5 {
        create_grant(&store, "client");
    }
    assert_eq!(store.delete_expired(NOW + 59.seconds(), 3).expect("deleted"), 0);
    let rounds: Vec<_> =
        (0..3).map(|_| store.delete_expired(NOW + 60.seconds(), 3).expect("deleted")).collect();
    assert_eq!(rounds, [3, 2, 0]);
}

#[test]
fn all_grants_of_a_client_are_deleted() {
    let (_folder, store) = new_auth_tables();
    let (first, second, other) =
        (create_grant(&store, "a"), create_grant(&store, "a"), create_grant(&store, "b"));
    let mut ended = store.delete_grants_of_client(&acme(), "a").expect("ended");
    ended.sort_by_key(|id| *id != first);
    assert_eq!(ended, [first, second]);
    assert!(store.load_grant(&acme(), other, NOW).expect("read").is_some());
}

#[test]
fn an_id_parses_from_its_text() {
    let id = GrantId::random();
    assert_eq!(GrantId::parse(&id.to_string()), Some(id));
    for bad in ["", "ab", &"g".repeat(32), &"A".repeat(32), &"é".repeat(16)] {
        assert_eq!(GrantId::parse(bad), None, "{bad}");
    }
}
