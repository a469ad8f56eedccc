//! The facts that hold on every engine.

use std::sync::Arc;

use super::grants::{acme, create_grant, new_grant, new_rotation};
use super::*;

fn beta() -> Incarnation {
    Incarnation::from_parts(&"beta".into(), acme().id())
}

fn revocation(subject: RevokedSubject) -> Revocation {
    Revocation { subject, issued_until: NOW, forget_at: NOW + 3600.seconds() }
}

fn new_key(kid: &str) -> SigningKey {
    SigningKey { kid: kid.into(), signs_from: NOW, pkcs8: vec![7] }
}

pub(super) async fn a_code_is_redeemed_once_by_concurrent_requests(database: TestDatabase) {
    let store = database.store();
    let id = create_grant(&store, "client").await;
    let incarnation = acme();
    let takers = (0..8).map(|_| store.take_code(&incarnation, new_rotation(id, 0)));
    let taken = futures_util::future::join_all(takers).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().expect("answered")).count(), 1);
    let grant = store.load_grant(&acme(), id, NOW).await.expect("read").expect("there");
    assert_eq!(grant.last_sequence, 1);
}

pub(super) async fn a_grant_is_sealed_and_exists_for_its_tenant_only(database: TestDatabase) {
    let store = database.store();
    let id = create_grant(&store, "client").await;
    let grant = store.load_grant(&acme(), id, NOW).await.expect("read").expect("there");
    assert_eq!((grant.payload.as_slice(), grant.family_key), (&b"canary details"[..], [7; 32]));
    assert!(store.load_grant(&beta(), id, NOW).await.expect("read").is_none());
    assert!(!store.take_code(&beta(), new_rotation(id, 0)).await.expect("answered"));
    assert!(!format!("{grant:?}").contains("canary"));
    assert!(!database.contains(b"canary").await);
    assert!(database.contains(b"client").await, "the search finds what is there in the clear");
}

pub(super) async fn a_token_rotates_once_and_only_before_it_expires(database: TestDatabase) {
    let store = database.store();
    let id = create_grant(&store, "client").await;
    let late = RotateGrant { now: NOW + 60.seconds(), ..new_rotation(id, 0) };
    assert!(!store.take_code(&acme(), late).await.expect("answered"), "the code has expired");
    let other = RotateGrant { client_id: "other".into(), ..new_rotation(id, 0) };
    assert!(!store.take_code(&acme(), other).await.expect("answered"), "another client's");
    assert!(store.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    let changed = RotateGrant { payload: b"later".to_vec(), ..new_rotation(id, 1) };
    assert!(store.rotate_refresh(&acme(), changed).await.expect("answered"));
    assert!(!store.rotate_refresh(&acme(), new_rotation(id, 1)).await.expect("answered"));
    let grant = store.load_grant(&acme(), id, NOW).await.expect("read").expect("there");
    assert_eq!((grant.last_sequence, grant.payload.as_slice()), (2, &b"later"[..]));
    assert!(store.load_grant(&acme(), id, NOW + 30.seconds()).await.expect("read").is_none());
}

pub(super) async fn who_loses_a_race_finds_what_won_it(database: TestDatabase) {
    let store = database.store();
    let id = create_grant(&store, "client").await;
    assert!(store.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
    assert!(store.confirm_last_token(&acme(), id, 1).await.expect("answered"));
    let incarnation = acme();
    let rotations = (0..8).map(|_| store.rotate_refresh(&incarnation, new_rotation(id, 1)));
    let rotated = futures_util::future::join_all(rotations).await;
    assert_eq!(rotated.into_iter().filter(|rotated| *rotated.as_ref().expect("answered")).count(), 1);
    let grant = store.load_grant(&acme(), id, NOW).await.expect("read").expect("there");
    assert_eq!((grant.last_sequence, grant.last_token.is_unconfirmed), (2, false));
    assert!(grant.last_token.age < SignedDuration::from_secs(60), "{:?}", grant.last_token);
    assert_eq!(store.settle_rotations().await, 0, "each outcome is known");
    assert!(!store.was_away_lately());
}

async fn revoked_subjects(store: &AuthStore) -> Vec<RevokedSubject> {
    let state = store.load_state().await.expect("read");
    assert_eq!(state.revocations.unreadable, 0);
    state.revocations.known.into_iter().map(|it| it.1.subject).collect()
}

pub(super) async fn a_revocation_survives_a_restart(mut database: TestDatabase) {
    let store = database.store();
    let id = create_grant(&store, "client").await;
    let client = RevokedSubject::Client(Digest::of(b"client"));
    for subject in [RevokedSubject::Grant(id), client] {
        store.revoke(&acme(), revocation(subject)).await.expect("revoked");
    }
    assert!(store.load_grant(&acme(), id, NOW).await.expect("read").is_none());
    drop(store);
    database.reopen().await;
    let store = database.store();
    let subjects = revoked_subjects(&store).await;
    assert!(subjects.contains(&RevokedSubject::Grant(id)) && subjects.contains(&client), "{subjects:?}");
    assert_eq!(store.delete_expired(NOW + 3600.seconds(), 10).await.expect("deleted"), 2);
    assert!(revoked_subjects(&store).await.is_empty());
}

pub(super) async fn several_revocations_are_written_together(database: TestDatabase) {
    let store = database.store();
    let (first, second) = (create_grant(&store, "a").await, create_grant(&store, "b").await);
    let later = Revocation { issued_until: NOW + 5.seconds(), ..revocation(RevokedSubject::Grant(first)) };
    // The same subject twice: the later one counts.
    let all = [revocation(RevokedSubject::Grant(first)), revocation(RevokedSubject::Grant(second)), later];
    store.revoke_all(all.map(|one| (acme(), one)).to_vec()).await.expect("written");
    assert!(store.load_grant(&acme(), first, NOW).await.expect("read").is_none());
    assert!(store.load_grant(&acme(), second, NOW).await.expect("read").is_none());
    let known = store.load_state().await.expect("read").revocations.known;
    assert_eq!(known.len(), 2);
    assert!(known.contains(&(acme(), later)), "{known:?}");
    store.revoke_all(Vec::new()).await.expect("nothing to write");
}

pub(super) async fn expired_rows_are_deleted_in_batches(database: TestDatabase) {
    let store = database.store();
    for _ in 0..5 {
        create_grant(&store, "client").await;
    }
    assert_eq!(store.delete_expired(NOW + 59.seconds(), 3).await.expect("deleted"), 0);
    let mut rounds = Vec::new();
    for _ in 0..3 {
        rounds.push(store.delete_expired(NOW + 60.seconds(), 3).await.expect("deleted"));
    }
    assert_eq!(rounds, [3, 2, 0]);
}

pub(super) async fn all_grants_of_a_client_are_deleted(database: TestDatabase) {
    let store = database.store();
    let first = create_grant(&store, "a").await;
    let second = create_grant(&store, "a").await;
    let other = create_grant(&store, "b").await;
    let mut ended = store.delete_grants_of_client(&acme(), "a").await.expect("ended");
    ended.sort_by_key(|id| *id != first);
    assert_eq!(ended, [first, second]);
    assert!(store.load_grant(&acme(), other, NOW).await.expect("read").is_some());
}

pub(super) async fn grants_are_listed_page_by_page(database: TestDatabase) {
    let store = database.store();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = create_grant(&store, "client").await;
        assert!(store.take_code(&acme(), new_rotation(id, 0)).await.expect("answered"));
        ids.push(id.to_string());
    }
    create_grant(&store, "client").await;
    ids.sort();
    let (mut after, mut listed) = (None, Vec::new());
    loop {
        let page = store.list_grants(None, after, NOW, 2).await.expect("read");
        let Some(last) = page.last() else { break };
        after = Some(GrantCursor { tenant: Arc::clone(last.incarnation.tenant()), id: last.id });
        assert!(page.iter().all(|grant| grant.payload.as_deref() == Some(b"canary details")));
        listed.extend(page.iter().map(|grant| grant.id.to_string()));
    }
    assert_eq!(listed, ids, "redeemed ones, in order");
    let count =
        async |tenant: &str| store.list_grants(Some(tenant.into()), None, NOW, 10).await.expect("read").len();
    assert_eq!((count("acme").await, count("beta").await), (5, 0));
    assert_eq!(store.count_grants(NOW, 10).await.expect("read"), [(acme(), 5)]);
    assert_eq!(store.count_grants(NOW, 3).await.expect("read"), [(acme(), 3)], "no more than asked for");
    assert!(
        store.count_grants(NOW + 2.hours(), 10).await.expect("read").is_empty(),
        "expired ones are not counted"
    );
}

pub(super) async fn only_the_first_signing_key_is_inserted(database: TestDatabase) {
    let store = database.store();
    let (acme, beta) = (Incarnation::new(&"acme".into()), Incarnation::new(&"beta".into()));
    let kids = async |incarnation: &Incarnation| -> Vec<_> {
        let keys = store.load_signing_keys(incarnation).await.expect("read");
        keys.into_iter().map(|key| key.kid).collect()
    };
    store.insert_first_signing_key(&acme, new_key("first")).await.expect("kept");
    let kept = store.insert_first_signing_key(&acme, new_key("second")).await.expect("passed over");
    assert_eq!(kept.into_iter().map(|key| key.kid).collect::<Vec<_>>(), ["first"]);
    store.insert_first_signing_key(&beta, new_key("second")).await.expect("kept");
    assert_eq!((kids(&acme).await, kids(&beta).await), (vec!["first".to_owned()], vec!["second".to_owned()]));
    let again = Incarnation::new(&"acme".into());
    assert!(kids(&again).await.is_empty(), "another incarnation has none");
    store.insert_first_signing_key(&again, new_key("third")).await.expect("kept");
    assert_eq!(kids(&again).await, ["third"]);
    let many: Vec<_> = (0..8).map(|number| new_key(&format!("k{number}"))).collect();
    let rival = Incarnation::new(&"rival".into());
    let inserts = many.into_iter().map(|key| store.insert_first_signing_key(&rival, key));
    let outcomes = futures_util::future::join_all(inserts).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|keys| keys.len() == 1)));
    assert_eq!(kids(&rival).await.len(), 1, "of several at once one is inserted");
}

pub(super) async fn signing_keys_are_replaced_together(database: TestDatabase) {
    let store = database.store();
    store.insert_first_signing_key(&acme(), new_key("old")).await.expect("kept");
    let next = SigningKey { signs_from: NOW + 60.seconds(), ..new_key("next") };
    let keys = store.replace_signing_keys(&acme(), Some(next), vec![]).await.expect("added");
    assert_eq!(keys.into_iter().map(|key| key.kid).collect::<Vec<_>>(), ["old", "next"]);
    let gone = vec!["old".to_owned(), "next".to_owned()];
    let keys = store.replace_signing_keys(&acme(), Some(new_key("new")), gone).await.expect("replaced");
    assert_eq!(keys.into_iter().map(|key| key.kid).collect::<Vec<_>>(), ["new"]);
    let keys = store.replace_signing_keys(&acme(), None, vec!["new".into()]).await.expect("deleted");
    assert!(keys.is_empty());
    let keys = store.insert_first_signing_key(&acme(), new_key("again")).await.expect("kept");
    assert_eq!(keys.len(), 1);
}

pub(super) async fn a_block_is_sealed_and_one_that_was_changed_is_reported(mut database: TestDatabase) {
    let store = database.store();
    let [one, two] = [(); 2].map(|()| BlockId::random());
    store.save_block(one, b"canary person".to_vec()).await.expect("saved");
    store.save_block(two, b"canary other".to_vec()).await.expect("saved");
    store.save_block(one, b"canary person again".to_vec()).await.expect("saved");
    let known = store.load_state().await.expect("read").blocks.known;
    assert!(known.len() == 2 && known.contains(&(one, b"canary person again".to_vec())), "{known:?}");
    assert!(!database.contains(b"canary").await);
    drop(store);
    // A row that was moved does not open.
    database.change("UPDATE blocks SET details = (SELECT details FROM blocks ORDER BY id LIMIT 1)").await;
    let store = database.store();
    let unreadable = store.load_state().await.expect("read").blocks.unreadable;
    assert_eq!(unreadable.len(), 1);
    store.delete_block(unreadable[0]).await.expect("deleted");
    let blocks = store.load_state().await.expect("read").blocks;
    assert_eq!((blocks.known.len(), blocks.unreadable.len()), (1, 0));
}

pub(super) async fn clients_are_entered_once_and_removed(database: TestDatabase) {
    let store = database.store();
    assert!(store.insert_client(&acme(), "b", b"canary".to_vec()).await.expect("answered"));
    assert!(!store.insert_client(&acme(), "b", b"other".to_vec()).await.expect("answered"));
    assert!(store.insert_client(&acme(), "a", b"second".to_vec()).await.expect("answered"));
    assert_eq!(store.load_client(&acme(), "b").await.expect("read").as_deref(), Some(&b"canary"[..]));
    assert_eq!(store.load_client(&beta(), "b").await.expect("read"), None);
    let all = store.load_clients(&acme()).await.expect("read");
    assert_eq!(all, [("a".to_owned(), b"second".to_vec()), ("b".to_owned(), b"canary".to_vec())]);
    assert_eq!(store.count_clients(&acme()).await.expect("read"), 2);
    assert!(!database.contains(b"canary").await);
    assert!(store.delete_client(&acme(), "b").await.expect("answered"));
    assert!(!store.delete_client(&acme(), "b").await.expect("answered"));
    assert_eq!(store.load_client(&acme(), "b").await.expect("read"), None);
}

pub(super) async fn a_removed_client_stays_removed(mut database: TestDatabase) {
    let store = database.store();
    for _ in 0..2 {
        store.mark_client_removed(&acme(), "client", NOW).await.expect("written");
    }
    assert!(store.is_client_removed(&acme(), "client").await.expect("read"));
    assert!(!store.is_client_removed(&beta(), "client").await.expect("read"));
    let unreadable =
        async |store: &AuthStore| store.load_state().await.expect("read").tenants_with_unreadable_removals;
    assert!(unreadable(&store).await.is_empty());
    drop(store);
    database.change("UPDATE denied_clients SET denied_at = denied_at + 1").await;
    assert_eq!(unreadable(&database.store()).await, ["acme".into()]);
}

fn begin(incarnation: &Incarnation, entry_id: &str) -> IncarnationChange {
    let (incarnation, entry_id) = (incarnation.clone(), Some(entry_id.into()));
    IncarnationChange::Begin(IncarnationRecord { incarnation, entry_id, payload: b"about".to_vec() })
}

/// Stores an item of every kind. Returns the ids of the grant and of the client.
async fn fill(store: &AuthStore, incarnation: &Incarnation) -> (GrantId, String) {
    let grant = new_grant("client");
    let id = grant.id;
    store.create_grant(incarnation, grant).await.expect("kept");
    store.insert_first_signing_key(incarnation, new_key("k")).await.expect("kept");
    let client = format!("op-{}", incarnation.id());
    assert!(store.insert_client(incarnation, &client, b"document".to_vec()).await.expect("kept"));
    store.mark_client_removed(incarnation, "denied", NOW).await.expect("kept");
    let revoked = revocation(RevokedSubject::Grant(GrantId::random()));
    store.revoke(incarnation, revoked).await.expect("kept");
    (id, client)
}

async fn has_all(
    store: &AuthStore,
    incarnation: &Incarnation,
    (id, client): &(GrantId, String),
) -> [bool; 5] {
    let revoked = store.load_state().await.expect("read").revocations.known;
    [
        store.load_grant(incarnation, *id, NOW).await.expect("read").is_some(),
        !store.load_signing_keys(incarnation).await.expect("read").is_empty(),
        store.load_client(incarnation, client).await.expect("read").is_some(),
        store.is_client_removed(incarnation, "denied").await.expect("read"),
        revoked.iter().any(|revoked| revoked.0 == *incarnation),
    ]
}

pub(super) async fn rows_of_an_incarnation_exist_for_it_only_and_are_deleted_when_it_ends(
    database: TestDatabase,
) {
    let store = database.store();
    let [first, second, other] = ["acme", "acme", "beta"].map(|tenant| Incarnation::new(&tenant.into()));
    let changes = vec![begin(&first, "a"), begin(&other, "b")];
    store.apply_incarnation_changes(changes).await.expect("kept");
    let (of_first, of_other) = (fill(&store, &first).await, fill(&store, &other).await);
    assert_eq!(has_all(&store, &first, &of_first).await, [true; 5]);
    assert_eq!(has_all(&store, &second, &of_first).await, [false; 5]);
    store.apply_incarnation_changes(vec![begin(&second, "z")]).await.expect("kept");
    assert_eq!(has_all(&store, &first, &of_first).await, [false; 5], "it was deleted");
    assert_eq!(has_all(&store, &other, &of_other).await, [true; 5], "a neighbour's was not");
    let kept = store.load_state().await.expect("read").incarnations;
    let kept = kept.current.iter().find(|kept| **kept.incarnation.tenant() == *"acme").expect("there");
    let (entry_id, payload) = (kept.entry_id.as_deref(), &kept.payload[..]);
    assert_eq!((&kept.incarnation, entry_id, payload), (&second, Some("z"), &b"about"[..]));
    let of_second = fill(&store, &second).await;
    store.apply_incarnation_changes(vec![IncarnationChange::End("acme".into())]).await.expect("kept");
    assert_eq!(has_all(&store, &second, &of_second).await, [false; 5]);
    assert_eq!(store.load_state().await.expect("read").incarnations.current.len(), 1);
}

pub(super) async fn several_changes_of_incarnations_act_in_order(database: TestDatabase) {
    let store = database.store();
    let [first, second, gone] = ["acme", "acme", "beta"].map(|tenant| Incarnation::new(&tenant.into()));
    let end = |tenant: &str| IncarnationChange::End(tenant.into());
    let changes = vec![begin(&first, "a"), begin(&gone, "b"), end("acme"), begin(&second, "c"), end("beta")];
    store.apply_incarnation_changes(changes).await.expect("kept");
    store.apply_incarnation_changes(Vec::new()).await.expect("nothing to write");
    let kept = store.load_state().await.expect("read").incarnations;
    let kept: Vec<_> =
        kept.current.iter().map(|kept| (&kept.incarnation, kept.entry_id.as_deref())).collect();
    assert_eq!(kept, [(&second, Some("c"))]);
}

pub(super) async fn errors_have_the_kind_of_their_cause(mut database: TestDatabase) {
    let id = create_grant(&database.store(), "client").await;
    for (sql, kind) in [
        ("UPDATE grants SET client_id = 'other'", ErrorKind::Corrupt),
        ("DROP TABLE grants", ErrorKind::Unavailable),
    ] {
        database.change(sql).await;
        let error = database.store().load_grant(&acme(), id, NOW).await.expect_err(sql);
        assert_eq!(error.kind(), kind, "{sql}: {error}");
    }
}

pub(super) async fn a_probe_shows_that_the_store_can_be_written(database: TestDatabase) {
    let store = database.store();
    store.probe_write().await.expect("written");
    store.probe_write().await.expect("written again");
    assert!(store.is_writable());
}
