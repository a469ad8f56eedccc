use std::path::Path;

use jiff::Timestamp;

use super::*;
use crate::base::digest::Digest;
use crate::spec::{Mount, Prefix, TenantName};
use crate::store::{KeySource, Store};

fn open(folder: &Path) -> LocalStore {
    Store::open(folder, &KeySource::State).expect("opened").local().clone()
}

/// Opens a store that takes no changes: its tables are missing.
fn open_unwritable(folder: &Path) -> LocalStore {
    drop(open(folder));
    std::fs::write(folder.join("tenantd.db"), "").expect("emptied");
    Store::open_unmodified(folder, &KeySource::State).expect("opened").local().clone()
}

fn revision(entry_id: &str, number: u64) -> AcceptedRevision {
    AcceptedRevision {
        entry_id: entry_id.to_owned(),
        number,
        digest: Digest::of(&number.to_be_bytes()),
        accepted_at: Timestamp::UNIX_EPOCH,
        documents: b"{}".to_vec(),
    }
}

fn claim(name: &str) -> Arc<HeldClaim> {
    let prefix = Prefix::parse(&format!("/{name}")).expect("a prefix");
    Arc::new(HeldClaim {
        name: TenantName::parse(name).expect("a name"),
        mounts: vec![Mount { listener: None, host: None, prefix }],
        shares_hosts: false,
        since: Timestamp::UNIX_EPOCH,
    })
}

fn stored(store: &LocalStore, entry_id: &str) -> Option<StoredEntry> {
    store.tables().load_entries().expect("read").into_iter().find(|entry| entry.entry_id == entry_id)
}

#[tokio::test]
async fn what_is_queued_is_written_at_once_and_only_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let mut writer = RevisionWriter::new(Some(store.clone()), Vec::new());
    assert!(writer.is_persisted("a") && !writer.has_pending());
    writer.enqueue_revision(&"a".into(), revision("a", 1));
    writer.enqueue_claims(EntryClaims {
        entry_id: "a".into(),
        claim: Some(claim("a")),
        rejected_claim: None,
    });
    assert!(writer.is_revision_pending("a") && !writer.is_persisted("a"));
    assert_eq!(writer.write_pending().await, ["a".into()]);
    assert!(writer.is_persisted("a") && !writer.is_revision_pending("a"));
    let entry = stored(&store, "a").expect("stored");
    assert_eq!(entry.live.map(|(number, _)| number), Some(1));
    assert_eq!(entry.claim, Some(claim("a")));
    assert!(writer.write_pending().await.is_empty());
}

#[tokio::test]
async fn what_a_failing_store_does_not_take_waits_and_the_latest_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = RevisionWriter::new(Some(open_unwritable(folder.path())), Vec::new());
    writer.enqueue_revision(&"a".into(), revision("a", 1));
    assert!(writer.write_pending().await.is_empty());
    assert!(writer.is_failing() && writer.is_revision_pending("a"));
    assert_eq!(writer.pending_entries(), ["a".into()]);
    writer.enqueue_revision(&"a".into(), revision("a", 2));
    writer.store = None;
    let store = open(folder.path());
    writer.store = Some(store.clone());
    assert_eq!(writer.write_pending().await, ["a".into()]);
    assert!(!writer.is_failing() && writer.is_persisted("a"));
    let numbers: Vec<_> = store.list_revisions("a").await.expect("read").iter().map(|it| it.number).collect();
    assert_eq!(numbers, [2]);
}

#[tokio::test]
async fn without_a_store_nothing_waits_and_nothing_is_persisted() {
    let mut writer = RevisionWriter::new(None, Vec::new());
    writer.enqueue_revision(&"a".into(), revision("a", 1));
    writer.enqueue_removal(&"b".into(), false);
    assert!(!writer.has_pending() && !writer.is_persisted("a"));
    assert!(writer.write_pending().await.is_empty());
    assert!(writer.find_last_good("a").is_none());
}

#[tokio::test]
async fn an_entry_removed_while_paused_is_paused_when_it_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    store.set_paused("a", true).await.expect("written");
    let mut writer = RevisionWriter::new(Some(store.clone()), store.tables().load_entries().expect("read"));
    writer.take_persisted("a");
    assert!(writer.has_seen_all());
    writer.enqueue_revision(&"a".into(), revision("a", 1));
    writer.enqueue_removal(&"a".into(), true);
    assert!(!writer.is_revision_pending("a"), "a removal replaces what waited");
    assert_eq!(writer.write_pending().await, ["a".into()]);
    assert!(store.list_revisions("a").await.expect("read").is_empty());
    assert!(!writer.has_seen_all(), "it may come back");
    assert!(writer.remove_absent(|_| false).is_empty(), "a pause is kept without its files");
    assert_eq!(stored(&store, "a").map(|entry| entry.paused), Some(true));
}

#[tokio::test]
async fn entries_that_were_deleted_before_they_were_seen_are_forgotten_with_their_claims() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let record =
        |id: &str| StoredEntry { entry_id: id.to_owned(), claim: Some(claim(id)), ..StoredEntry::default() };
    let mut writer = RevisionWriter::new(Some(store), vec![record("a"), record("b")]);
    assert_eq!(writer.unseen_claims().count(), 2);
    assert_eq!(writer.remove_absent(|entry_id| entry_id == "b"), ["a".into()]);
    assert_eq!(writer.unseen_claims().count(), 1);
    assert_eq!(writer.pending_entries(), ["a".into()]);
    writer.forget("b");
    assert!(writer.has_seen_all());
}

#[test]
fn only_a_revision_that_was_in_force_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let digest = Digest::of(b"x");
    let entries = vec![
        StoredEntry { entry_id: "a".to_owned(), live: Some((1, digest)), ..StoredEntry::default() },
        StoredEntry { entry_id: "b".to_owned(), ..StoredEntry::default() },
    ];
    let mut writer = RevisionWriter::new(Some(open(folder.path())), entries);
    assert!(writer.find_last_good("a").is_some() && writer.find_last_good("b").is_none());
    writer.take_persisted("a");
    assert!(writer.find_last_good("a").is_none(), "it was seen");
}
