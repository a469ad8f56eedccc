//! The seals of entries. Whether an entry is paused, pinned to an older revision, and which one is
//! live are decisions of an operator, so a seal covers them. An entry that was tampered with
//! counts as paused until an operator resumes it.

use std::collections::HashSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::keyring::{Keyring, SealContext};

/// Seals an entry anew after a change.
pub(super) fn seal_entry(connection: &Connection, keys: &Keyring, entry_id: &str) -> rusqlite::Result<()> {
    let Some((columns, _)) = read_columns(connection, entry_id)? else { return Ok(()) };
    let sealed = keys.seal_row(&seal_context(entry_id), &columns, b"");
    let update = "UPDATE entries SET seal = ?2 WHERE stem = ?1";
    connection.prepare_cached(update)?.execute(params![entry_id, sealed]).map(drop)
}

/// Returns whether an entry is as it was written; also if there is no such entry.
pub(super) fn is_intact(connection: &Connection, keys: &Keyring, entry_id: &str) -> rusqlite::Result<bool> {
    let Some((columns, seal)) = read_columns(connection, entry_id)? else { return Ok(true) };
    Ok(keys.open_row(&seal_context(entry_id), &columns, &seal).is_some())
}

/// Pauses an entry that was tampered with, and drops the rest of what its row says: an operator has
/// decided none of it.
pub(super) fn pause_if_tampered(
    connection: &Connection,
    keys: &Keyring,
    entry_id: &str,
) -> rusqlite::Result<()> {
    if is_intact(connection, keys, entry_id)? {
        return Ok(());
    }
    let update = "UPDATE entries SET paused = 1, in_force = NULL, held_against = NULL WHERE stem = ?1";
    connection.execute(update, [entry_id])?;
    seal_entry(connection, keys, entry_id)
}

/// Seals all entries after a step of the schema, except those in `tampered`.
pub(in crate::store) fn seal_all_except(
    connection: &Connection,
    keys: &Keyring,
    tampered: &HashSet<String>,
) -> rusqlite::Result<()> {
    let entry_ids = entry_ids(connection)?;
    entry_ids
        .iter()
        .filter(|entry_id| !tampered.contains(*entry_id))
        .try_for_each(|entry_id| seal_entry(connection, keys, entry_id))
}

/// Seals entries anew that an older master key sealed, so that its line can be removed.
pub(in crate::store) fn reseal_entries(connection: &Connection, keys: &Keyring) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT stem, seal FROM entries")?;
    let entry_ids = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (entry_id, seal) in entry_ids.collect::<Result<Vec<(String, Vec<u8>)>, _>>()? {
        if !keys.is_current(&seal) && is_intact(connection, keys, &entry_id)? {
            self::seal_entry(connection, keys, &entry_id)?;
        }
    }
    Ok(())
}

/// Returns the entries that were tampered with.
pub(in crate::store) fn tampered_entries(
    connection: &Connection,
    keys: &Keyring,
) -> rusqlite::Result<HashSet<String>> {
    let mut tampered = HashSet::new();
    for entry_id in entry_ids(connection)? {
        if !is_intact(connection, keys, &entry_id)? {
            tampered.insert(entry_id);
        }
    }
    Ok(tampered)
}

fn entry_ids(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare("SELECT stem FROM entries")?.query_map([], |row| row.get(0))?.collect()
}

/// Columns and seal.
type EntryColumns = (Vec<Vec<u8>>, Vec<u8>);

/// Returns all columns of an entry, each preceded by its name, and the seal.
fn read_columns(connection: &Connection, entry_id: &str) -> rusqlite::Result<Option<EntryColumns>> {
    let mut select = connection.prepare_cached("SELECT * FROM entries WHERE stem = ?1")?;
    let read = |row: &Row<'_>| {
        // Ask for the names after the statement runs: a cached statement learns of a new column
        // only then.
        let names = row.as_ref().column_names();
        let (mut columns, mut seal) = (Vec::new(), Vec::new());
        for (index, name) in names.enumerate() {
            match row.get_ref(index)? {
                ValueRef::Blob(bytes) if name == "seal" => seal = bytes.to_vec(),
                value => columns.extend([name.as_bytes().to_vec(), encode_value(value)]),
            }
        }
        Ok((columns, seal))
    };
    select.query_row([entry_id], read).optional()
}

/// Encodes a value with its type in front.
fn encode_value(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Null => b"0".to_vec(),
        ValueRef::Integer(number) => [b"i", &number.to_be_bytes()[..]].concat(),
        ValueRef::Real(number) => [b"r", &number.to_be_bytes()[..]].concat(),
        ValueRef::Text(bytes) => [b"t", bytes].concat(),
        ValueRef::Blob(bytes) => [b"b", bytes].concat(),
    }
}

fn seal_context(entry_id: &str) -> SealContext<'_> {
    SealContext { purpose: "entry", tenant: entry_id, row: "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;
    use crate::store::testkit::{new_local_tables, open_local_tables};
    use crate::store::{AcceptedRevision, EntryChange, LocalTables};

    fn accept(store: &LocalTables, number: u64) {
        let documents = format!("acme {number}").into_bytes();
        let digest = Digest::of(&documents);
        let accepted = AcceptedRevision {
            entry_id: "acme".into(),
            number,
            digest,
            accepted_at: jiff::Timestamp::UNIX_EPOCH,
            documents,
        };
        store.apply_changes(&[EntryChange::Accept(accepted)]).expect("written");
    }

    fn tamper(store: &LocalTables, sql: &str) {
        assert_eq!(store.database.connection().execute(sql, []).expect("changed"), 1, "{sql}");
    }

    #[test]
    fn a_tampered_entry_is_paused_until_an_operator_resumes_it() {
        for sql in [
            "UPDATE entries SET paused = 0",
            "UPDATE entries SET in_force = 1",
            "UPDATE entries SET held_against = NULL",
            "UPDATE entries SET seal = x'00'",
        ] {
            let (_folder, store) = new_local_tables();
            (1..=3).for_each(|number| accept(&store, number));
            store.pin_revision("acme", 2, Some(Digest::of(b"x"))).expect("held");
            store.set_paused("acme", true).expect("paused");
            let as_written = store.load_entries().expect("read").remove(0);
            assert_eq!((as_written.paused, as_written.live.map(|it| it.0)), (true, Some(2)));
            tamper(&store, sql);
            let found = store.load_entries().expect("read").remove(0);
            assert_eq!(
                (found.paused, found.live, found.pinned_against, found.last_number),
                (true, None, None, 3),
                "{sql}"
            );
            store.set_paused("acme", false).expect("resumed");
            let resumed = store.load_entries().expect("read").remove(0);
            assert_eq!((resumed.paused, resumed.live, resumed.pinned_against), (false, None, None), "{sql}");
            accept(&store, 4);
            assert_eq!(store.load_entries().expect("read")[0].live.map(|it| it.0), Some(4), "{sql}");
        }
    }

    #[test]
    fn a_migration_that_adds_a_column_keeps_intact_and_tampered_entries_so() {
        let (_folder, store) = new_local_tables();
        accept(&store, 1);
        store.set_paused("other", true).expect("paused");
        tamper(&store, "UPDATE entries SET paused = 0 WHERE stem = 'other'");
        let connection = store.database.connection();
        let tampered = tampered_entries(&connection, &store.keyring).expect("read");
        connection.execute_batch("ALTER TABLE entries ADD COLUMN later TEXT").expect("altered");
        assert!(
            !is_intact(&connection, &store.keyring, "acme").expect("read"),
            "a column is not passed over"
        );
        seal_all_except(&connection, &store.keyring, &tampered).expect("sealed");
        assert!(is_intact(&connection, &store.keyring, "acme").expect("read"));
        assert!(!is_intact(&connection, &store.keyring, "other").expect("read"));
    }

    #[test]
    fn an_older_master_key_can_be_removed_after_a_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = |lines: &[&str]| {
            crate::store::KeySource::Variable(crate::base::secret::Secret::new(lines.join("\n")))
        };
        let (old, new) = ("ab".repeat(32), "cd".repeat(32));
        let store = open_local_tables(folder.path(), &key(&[&old]));
        accept(&store, 1);
        drop(store);
        let store = open_local_tables(folder.path(), &key(&[&new, &old]));
        let (_, seal) = read_columns(&store.database.connection(), "acme").expect("read").expect("there");
        assert!(store.keyring.is_current(&seal));
        assert!(!store.load_entries().expect("read")[0].paused);
    }
}
