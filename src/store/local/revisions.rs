//! The last accepted revisions of each entry of the tenants folder, which of them is live, and
//! the decisions of an operator: a pause, or a rollback to an older revision.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Statement, Transaction, params};

use super::entry_claims::{self, EntryClaims};
use super::entry_seal;
use super::stored_entry::StoredEntry;
use super::tables::LocalTables;
use crate::base::digest::Digest;
use crate::store::keyring::{Keyring, SealContext};
use crate::store::{Error, schema};

/// How many revisions of an entry are kept.
pub const REVISIONS_KEPT: u64 = 10;

/// A revision that was accepted and serves from now on.
#[derive(Debug, Clone)]
pub struct AcceptedRevision {
    /// The entry's id.
    pub entry_id: String,
    /// Counts up from 1 for each entry.
    pub number: u64,
    /// The digest of the entry's files.
    pub digest: Digest,
    /// When the revision was accepted.
    pub accepted_at: Timestamp,
    /// The files, in the clear; they are sealed before they reach the disk.
    pub documents: Vec<u8>,
}

/// A change of one entry that a pass of the reconciler made.
#[derive(Debug, Clone)]
pub enum EntryChange {
    /// A revision is live, and an older one is no longer pinned.
    Accept(AcceptedRevision),
    /// The entry's claims: what it holds, and the digest of files whose claim was refused.
    Claims(EntryClaims),
    /// The entry was removed: its revisions are deleted and what it held is free. A pause stays.
    Remove(String),
}

impl EntryChange {
    /// Returns the id of the entry that changes.
    fn entry_id(&self) -> &str {
        match self {
            Self::Accept(accepted) => &accepted.entry_id,
            Self::Claims(claims) => &claims.entry_id,
            Self::Remove(entry_id) => entry_id,
        }
    }
}

/// A revision in the history of an entry, without its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevisionInfo {
    /// Counts up from 1 for each entry.
    pub number: u64,
    /// The digest of the entry's files.
    pub digest: Digest,
    /// When the revision was accepted.
    pub accepted_at: Timestamp,
}

impl LocalTables {
    /// Returns every entry and its claims. An entry that was tampered with is returned as paused.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn load_entries(&self) -> Result<Vec<StoredEntry>, Error> {
        const ALL: &str = "
            SELECT e.stem, e.in_force, r.digest, e.paused, e.held_against,
                   (SELECT max(number) FROM revisions WHERE stem = e.stem)
            FROM entries e LEFT JOIN revisions r ON r.stem = e.stem AND r.number = e.in_force";
        let read = || -> rusqlite::Result<Vec<StoredEntry>> {
            let connection = self.database.connection();
            let tampered = self.tampered_entries(&connection)?;
            let mut claims = self.load_claims(&connection)?;
            let mut statement = connection.prepare(ALL)?;
            let entry = |row: &Row<'_>| {
                let digest = |text: Option<String>| text.and_then(|text| Digest::parse_hex(&text));
                let in_force = row.get::<_, Option<i64>>(1)?.zip(digest(row.get(2)?));
                let entry_id: String = row.get(0)?;
                let claimed = claims.remove(&entry_id).unwrap_or_default();
                // Of a row that was tampered with nothing counts but the id.
                if tampered.contains(&entry_id) {
                    tracing::error!(
                        entry = entry_id,
                        "the store's record of this entry was changed, or encrypted with another master key, \
                         so the entry is paused. Check its files, then resume it with \"tenantd tenants \
                         resume\""
                    );
                    let last = row.get::<_, Option<i64>>(5)?.unwrap_or_default().unsigned_abs();
                    return Ok(StoredEntry { entry_id, last_number: last, paused: true, ..claimed });
                }
                Ok(StoredEntry {
                    entry_id,
                    live: in_force.map(|(number, digest)| (number.unsigned_abs(), digest)),
                    paused: row.get(3)?,
                    pinned_against: digest(row.get(4)?),
                    last_number: row.get::<_, Option<i64>>(5)?.unwrap_or_default().unsigned_abs(),
                    ..claimed
                })
            };
            let entries: rusqlite::Result<Vec<_>> = statement.query_map([], entry)?.collect();
            let mut entries = entries?;
            // An entry that never had an accepted revision has nothing but a claim.
            entries.extend(claims.into_values());
            Ok(entries)
        };
        read().map_err(self.database.error())
    }

    /// Writes the changes of a pass in one transaction.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written; then nothing has changed.
    pub fn apply_changes<'c>(&self, changes: impl IntoIterator<Item = &'c EntryChange>) -> Result<(), Error> {
        let mut changes = changes.into_iter().peekable();
        let writes = changes.peek().is_some();
        let write = || -> rusqlite::Result<()> {
            let mut connection = self.database.connection();
            let transaction = connection.transaction()?;
            let mut writer = RevisionWriteTx::new(&transaction)?;
            for change in changes {
                entry_seal::pause_if_tampered(&transaction, &self.keyring, change.entry_id())?;
                match change {
                    EntryChange::Accept(accepted) => {
                        let row = accepted.number.to_string();
                        writer.accept(
                            accepted,
                            &self.keyring.seal(&seal_context(&accepted.entry_id, &row), &accepted.documents),
                        )?;
                    }
                    EntryChange::Claims(claims) => writer.write_claims(claims, &self.keyring)?,
                    EntryChange::Remove(entry_id) => writer.remove(entry_id)?,
                }
                entry_seal::seal_entry(&transaction, &self.keyring, change.entry_id())?;
            }
            drop(writer);
            transaction.commit()
        };
        let outcome = write();
        self.database.write_health.observe_outcome(&outcome, writes);
        outcome.map_err(self.database.error())
    }

    /// Makes an older revision live for as long as the files have the digest `against`.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub fn pin_revision(&self, entry_id: &str, number: u64, against: Option<Digest>) -> Result<(), Error> {
        let against = against.map(|digest| digest.to_string());
        let sql = "UPDATE entries SET in_force = ?2, held_against = ?3 WHERE stem = ?1";
        self.update_entry(entry_id, sql, params![entry_id, number.cast_signed(), against])
    }

    /// Pauses an entry, or resumes it.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub fn set_paused(&self, entry_id: &str, paused: bool) -> Result<(), Error> {
        let sql = "INSERT INTO entries (stem, paused) VALUES (?1, ?2)
                   ON CONFLICT (stem) DO UPDATE SET paused = ?2";
        self.update_entry(entry_id, sql, params![entry_id, paused])
    }

    /// Deletes everything about an entry, its pause included.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub fn delete_entry(&self, entry_id: &str) -> Result<(), Error> {
        self.apply_changes(&[EntryChange::Remove(entry_id.to_owned())])?;
        self.update_entry(entry_id, "DELETE FROM entries WHERE stem = ?1", params![entry_id])
    }

    /// Returns the revisions of an entry, newest first.
    ///
    /// # Errors
    /// [`Error::Database`] if they cannot be read.
    pub fn list_revisions(&self, entry_id: &str) -> Result<Vec<RevisionInfo>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare(
                "SELECT number, digest, accepted_at FROM revisions WHERE stem = ?1 ORDER BY number DESC",
            )?;
            let rows = statement.query_map([entry_id], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })?;
            rows.collect()
        };
        let rows = read().map_err(self.database.error())?;
        let revision = |(number, digest, accepted_at): (i64, String, String)| {
            Some(RevisionInfo {
                number: number.unsigned_abs(),
                digest: Digest::parse_hex(&digest)?,
                accepted_at: accepted_at.parse().ok()?,
            })
        };
        Ok(rows.into_iter().filter_map(revision).collect())
    }

    /// Returns the documents of a revision, if it is kept.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read, [`Error::CannotUnseal`] if it does not open.
    pub fn load_documents(&self, entry_id: &str, number: u64) -> Result<Option<Vec<u8>>, Error> {
        let read = || {
            let sql = "SELECT documents FROM revisions WHERE stem = ?1 AND number = ?2";
            let parameters = params![entry_id, number.cast_signed()];
            self.database.connection().query_row(sql, parameters, |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        let Some(sealed) = read().map_err(self.database.error())? else { return Ok(None) };
        let opened = self.keyring.open(&seal_context(entry_id, &number.to_string()), &sealed);
        opened.map(Some).ok_or(Error::CannotUnseal)
    }

    /// Opens every sealed value and returns how many entries and revisions there are.
    pub(in crate::store) fn verify_entries(&self) -> Result<(usize, usize), Error> {
        let entry_ids = self.entry_ids()?;
        let tampered = || self.tampered_entries(&self.database.connection());
        if !tampered().map_err(self.database.error())?.is_empty() {
            return Err(Error::CannotUnseal);
        }
        let mut revisions = 0;
        for entry_id in &entry_ids {
            for revision in self.list_revisions(entry_id)? {
                self.load_documents(entry_id, revision.number)?;
                revisions += 1;
            }
        }
        let claims = || self.count_unreadable_claims(&self.database.connection());
        match claims().map_err(self.database.error())? {
            0 => Ok((entry_ids.len(), revisions)),
            _ => Err(Error::CannotUnseal),
        }
    }

    /// Returns the ids of all entries; files of earlier versions have no other column that could
    /// be relied on.
    fn entry_ids(&self) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let connection = self.database.connection();
            let mut statement = connection.prepare("SELECT stem FROM entries")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        read().map_err(self.database.error())
    }

    /// Returns the entries that were tampered with. Earlier versions have no seals to tell.
    fn tampered_entries(&self, connection: &Connection) -> rusqlite::Result<HashSet<String>> {
        match schema::version(connection)? {
            version if version < schema::INCARNATIONS_VERSION => Ok(HashSet::new()),
            _ => entry_seal::tampered_entries(connection, &self.keyring),
        }
    }

    /// Changes an entry and seals it anew.
    fn update_entry(
        &self,
        entry_id: &str,
        sql: &str,
        parameters: &[&dyn rusqlite::ToSql],
    ) -> Result<(), Error> {
        let change = || -> rusqlite::Result<usize> {
            let mut connection = self.database.connection();
            let transaction = connection.transaction()?;
            entry_seal::pause_if_tampered(&transaction, &self.keyring, entry_id)?;
            let rows = transaction.execute(sql, parameters)?;
            entry_seal::seal_entry(&transaction, &self.keyring, entry_id)?;
            transaction.commit().map(|()| rows)
        };
        let outcome = change();
        self.database.write_health.observe_outcome(&outcome, outcome.as_ref().is_ok_and(|rows| *rows > 0));
        outcome.map(drop).map_err(self.database.error())
    }
}

/// The prepared statements of one transaction, for any number of changes.
struct RevisionWriteTx<'a> {
    upsert_entry: Statement<'a>,
    insert_revision: Statement<'a>,
    prune_revisions: Statement<'a>,
    claims: entry_claims::ClaimsWriteTx<'a>,
    remove_entry: [Statement<'a>; 3],
}

impl<'a> RevisionWriteTx<'a> {
    fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            upsert_entry: transaction.prepare(
                "INSERT INTO entries (stem, in_force) VALUES (?1, ?2)
                 ON CONFLICT (stem) DO UPDATE SET in_force = ?2, held_against = NULL",
            )?,
            insert_revision: transaction.prepare(
                "INSERT OR REPLACE INTO revisions (stem, number, digest, accepted_at, documents)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            prune_revisions: transaction
                .prepare("DELETE FROM revisions WHERE stem = ?1 AND number <= ?2 - ?3")?,
            claims: entry_claims::ClaimsWriteTx::new(transaction)?,
            remove_entry: [
                transaction.prepare("DELETE FROM entries WHERE stem = ?1 AND NOT paused")?,
                transaction
                    .prepare("UPDATE entries SET in_force = NULL, held_against = NULL WHERE stem = ?1")?,
                transaction.prepare("DELETE FROM revisions WHERE stem = ?1")?,
            ],
        })
    }

    fn accept(&mut self, accepted: &AcceptedRevision, sealed: &[u8]) -> rusqlite::Result<()> {
        let AcceptedRevision { entry_id, digest, accepted_at, .. } = accepted;
        let number = accepted.number.cast_signed();
        self.upsert_entry.execute(params![entry_id, number])?;
        self.insert_revision.execute(params![
            entry_id,
            number,
            digest.to_string(),
            accepted_at.to_string(),
            sealed
        ])?;
        self.prune_revisions.execute(params![entry_id, number, REVISIONS_KEPT.cast_signed()]).map(drop)
    }

    fn write_claims(&mut self, claims: &EntryClaims, keys: &Keyring) -> rusqlite::Result<()> {
        self.claims.replace(claims, keys)
    }

    fn remove(&mut self, entry_id: &str) -> rusqlite::Result<()> {
        self.remove_entry.iter_mut().try_for_each(|statement| statement.execute([entry_id]).map(drop))?;
        self.claims.delete(entry_id)
    }
}

fn seal_context<'a>(entry_id: &'a str, number: &'a str) -> SealContext<'a> {
    SealContext { purpose: "revision", tenant: entry_id, row: number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testkit::new_local_tables;

    fn accept(store: &LocalTables, entry_id: &str, number: u64) {
        let documents = format!("{entry_id} {number}").into_bytes();
        let digest = Digest::of(&documents);
        let accepted = AcceptedRevision {
            entry_id: entry_id.into(),
            number,
            digest,
            accepted_at: Timestamp::UNIX_EPOCH,
            documents,
        };
        store.apply_changes(&[EntryChange::Accept(accepted)]).expect("written");
    }

    fn entry(store: &LocalTables, entry_id: &str) -> Option<StoredEntry> {
        store.load_entries().expect("read").into_iter().find(|entry| entry.entry_id == entry_id)
    }

    #[test]
    fn the_last_ten_revisions_are_kept_sealed() {
        let (folder, store) = new_local_tables();
        (1..=12).for_each(|number| accept(&store, "acme", number));
        let numbers: Vec<_> =
            store.list_revisions("acme").expect("read").iter().map(|revision| revision.number).collect();
        assert_eq!(numbers, (3..=12).rev().collect::<Vec<_>>());
        assert_eq!(store.load_documents("acme", 12).expect("opened").as_deref(), Some(&b"acme 12"[..]));
        assert_eq!(store.load_documents("acme", 2).expect("read"), None);
        drop(store);
        let bytes = std::fs::read(folder.path().join("tenantd.db")).expect("read");
        assert!(!bytes.windows(7).any(|window| window == b"acme 12"));
    }

    #[test]
    fn a_pin_lasts_until_another_revision_is_accepted() {
        let (_folder, store) = new_local_tables();
        (1..=3).for_each(|number| accept(&store, "acme", number));
        let against = Digest::of(b"acme 3");
        store.pin_revision("acme", 1, Some(against)).expect("held");
        let held = entry(&store, "acme").expect("there");
        assert_eq!(
            (held.live.map(|it| it.0), held.pinned_against, held.last_number),
            (Some(1), Some(against), 3)
        );
        accept(&store, "acme", 4);
        let after = entry(&store, "acme").expect("there");
        assert_eq!((after.live.map(|it| it.0), after.pinned_against), (Some(4), None));
    }

    #[test]
    fn only_the_pause_survives_the_removal_of_an_entry() {
        let (_folder, store) = new_local_tables();
        for entry_id in ["acme", "beta"] {
            accept(&store, entry_id, 1);
        }
        store.set_paused("acme", true).expect("paused");
        store
            .apply_changes(&[EntryChange::Remove("acme".into()), EntryChange::Remove("beta".into())])
            .expect("written");
        assert_eq!(entry(&store, "beta"), None);
        let acme = entry(&store, "acme").expect("there");
        assert_eq!((acme.paused, acme.live), (true, None));
        assert_eq!(store.list_revisions("acme").expect("read"), []);
        store.delete_entry("acme").expect("forgotten");
        assert_eq!(entry(&store, "acme"), None);
    }
}
