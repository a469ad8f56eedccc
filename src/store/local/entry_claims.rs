//! The claims of entries: the tenant name and mounts that an entry holds and since when, and the
//! claim that was refused. Sealed, because changing them would give one tenant's name to another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Statement, Transaction, params};
use serde::{Deserialize, Serialize};

use super::stored_entry::StoredEntry;
use super::tables::LocalTables;
use crate::base::digest::Digest;
use crate::spec::{HeldClaim, HostName, Mount, Prefix, TenantName};
use crate::store::keyring::{Keyring, SealContext};
use crate::store::schema;

/// All claims of one entry; writing them replaces those that were stored before.
#[derive(Debug, Clone)]
pub struct EntryClaims {
    /// The entry's id, as in [`StoredEntry::entry_id`].
    pub entry_id: Arc<str>,
    /// The name and mounts that the entry holds.
    pub claim: Option<Arc<HeldClaim>>,
    /// The digest of the files whose claim was refused.
    pub rejected_claim: Option<Digest>,
}

/// The claims as they are stored.
#[derive(Serialize, Deserialize)]
struct ClaimsRecord {
    #[serde(rename = "holding")]
    claim: Option<HeldClaimRecord>,
    #[serde(rename = "refused")]
    rejected_claim: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct HeldClaimRecord {
    name: String,
    /// The host (none for the gateway's own) and the prefix of each mount.
    mounts: Vec<(Option<String>, String)>,
    /// The listener of all of them, unless that is the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener: Option<SocketAddr>,
    shares_hosts: bool,
    since: Timestamp,
}

impl HeldClaimRecord {
    fn from_claim(claim: &HeldClaim) -> Self {
        let mount = |mount: &Mount| (mount.host.as_ref().map(ToString::to_string), mount.prefix.to_string());
        Self {
            name: claim.name.to_string(),
            mounts: claim.mounts.iter().map(mount).collect(),
            listener: claim.mounts.first().and_then(|mount| mount.listener),
            shares_hosts: claim.shares_hosts,
            since: claim.since,
        }
    }

    /// Returns `None` if a program wrote it that allowed other names.
    fn into_claim(self) -> Option<HeldClaim> {
        let listener = self.listener;
        let mount = |(host, prefix): (Option<String>, String)| {
            let host = match host {
                Some(host) => Some(HostName::parse(&host)?),
                None => None,
            };
            Some(Mount { listener, host, prefix: Prefix::parse(&prefix).ok()? })
        };
        Some(HeldClaim {
            name: TenantName::parse(&self.name)?,
            mounts: self.mounts.into_iter().filter_map(mount).collect(),
            shares_hosts: self.shares_hosts,
            since: self.since,
        })
    }
}

impl LocalTables {
    /// Returns the claims of each entry, as entries without any other content.
    pub(super) fn load_claims(
        &self,
        connection: &Connection,
    ) -> rusqlite::Result<HashMap<String, StoredEntry>> {
        let mut claims = HashMap::new();
        for (entry_id, sealed) in select_claims(connection)? {
            match self.open_claims(&entry_id, &sealed) {
                Some(entry) => drop(claims.insert(entry_id, entry)),
                None => tracing::error!(
                    entry = entry_id,
                    "the store's record of this entry's name and paths was changed, or encrypted with \
                     another master key: the gateway ignores it"
                ),
            }
        }
        Ok(claims)
    }

    /// Counts the claims that do not open.
    pub(super) fn count_unreadable_claims(&self, connection: &Connection) -> rusqlite::Result<usize> {
        if schema::version(connection)? < schema::CLAIMS_VERSION {
            return Ok(0);
        }
        let rows = select_claims(connection)?;
        Ok(rows.iter().filter(|(entry_id, sealed)| self.open_claims(entry_id, sealed).is_none()).count())
    }

    fn open_claims(&self, entry_id: &str, sealed: &[u8]) -> Option<StoredEntry> {
        let ClaimsRecord { claim, rejected_claim } =
            serde_json::from_slice(&self.keyring.open(&seal_context(entry_id), sealed)?).ok()?;
        let claim = claim.and_then(HeldClaimRecord::into_claim).map(Arc::new);
        let rejected_claim = rejected_claim.and_then(|digest| Digest::parse_hex(&digest));
        Some(StoredEntry { entry_id: entry_id.to_owned(), claim, rejected_claim, ..StoredEntry::default() })
    }

    /// Seals claims anew that an older master key sealed, so that its line can be removed.
    pub(in crate::store) fn reseal_claims(&self, connection: &Connection) -> rusqlite::Result<()> {
        for (entry_id, sealed) in select_claims(connection)? {
            let opened = self
                .keyring
                .open(&seal_context(&entry_id), &sealed)
                .filter(|_| !self.keyring.is_current(&sealed));
            if let Some(opened) = opened {
                let sealed = self.keyring.seal(&seal_context(&entry_id), &opened);
                connection
                    .execute("UPDATE claims SET about = ?2 WHERE stem = ?1", params![entry_id, sealed])?;
            }
        }
        Ok(())
    }
}

fn select_claims(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let mut rows = connection.prepare("SELECT stem, about FROM claims")?;
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn seal_context(entry_id: &str) -> SealContext<'_> {
    SealContext { purpose: "claims", tenant: entry_id, row: "" }
}

/// The prepared statements that write claims.
pub(super) struct ClaimsWriteTx<'a> {
    upsert: Statement<'a>,
    delete: Statement<'a>,
}

impl<'a> ClaimsWriteTx<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            upsert: transaction.prepare(
                "INSERT INTO claims (stem, about) VALUES (?1, ?2) ON CONFLICT (stem) DO UPDATE SET about = ?2",
            )?,
            delete: transaction.prepare("DELETE FROM claims WHERE stem = ?1")?,
        })
    }

    pub(super) fn replace(&mut self, claims: &EntryClaims, keys: &Keyring) -> rusqlite::Result<()> {
        let EntryClaims { entry_id, claim, rejected_claim } = claims;
        if claim.is_none() && rejected_claim.is_none() {
            return self.delete(entry_id);
        }
        let claim = claim.as_deref().map(HeldClaimRecord::from_claim);
        let rejected_claim = rejected_claim.map(|digest| digest.to_string());
        let record =
            serde_json::to_vec(&ClaimsRecord { claim, rejected_claim }).expect("claims are plain data");
        self.upsert.execute(params![&**entry_id, keys.seal(&seal_context(entry_id), &record)]).map(drop)
    }

    pub(super) fn delete(&mut self, entry_id: &str) -> rusqlite::Result<()> {
        self.delete.execute([entry_id]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EntryChange;
    use crate::store::testkit::new_local_tables;

    fn any_claim() -> HeldClaim {
        let mount = |host: Option<&str>, prefix| Mount {
            listener: None,
            host: host.map(|host| HostName::parse(host).expect("a host")),
            prefix: Prefix::parse(prefix).expect("a prefix"),
        };
        HeldClaim {
            name: TenantName::parse("acme").expect("a name"),
            mounts: vec![
                mount(None, "/Acme/x"),
                mount(Some("h.example"), "/"),
                mount(Some("[2001:db8::1]"), "/a"),
            ],
            shares_hosts: true,
            since: Timestamp::from_second(1_700_000_000).expect("a moment"),
        }
    }

    fn write_claims(store: &LocalTables, claim: Option<HeldClaim>, rejected_claim: Option<Digest>) {
        let claims = EntryClaims { entry_id: "Acme".into(), claim: claim.map(Arc::new), rejected_claim };
        store.apply_changes(&[EntryChange::Claims(claims)]).expect("written");
    }

    fn entry(store: &LocalTables) -> Option<StoredEntry> {
        store.load_entries().expect("read").pop()
    }

    #[test]
    fn claims_load_as_they_were_written() {
        let (_folder, store) = new_local_tables();
        let rejected_claim = Digest::of(b"files");
        write_claims(&store, Some(any_claim()), Some(rejected_claim));
        let stored = entry(&store).expect("there");
        assert_eq!(
            (stored.claim.as_deref(), stored.rejected_claim),
            (Some(&any_claim()), Some(rejected_claim))
        );
        store.set_paused("Acme", true).expect("written");
        let stored = entry(&store).expect("there");
        assert_eq!((stored.claim.as_deref(), stored.paused), (Some(&any_claim()), true));
        write_claims(&store, None, None);
        let stored = entry(&store).expect("it is paused");
        assert_eq!((stored.claim, stored.rejected_claim), (None, None));
    }

    #[test]
    fn a_removed_or_deleted_entry_has_no_claim() {
        let (_folder, store) = new_local_tables();
        for paused in [true, false] {
            store.set_paused("Acme", paused).expect("written");
            write_claims(&store, Some(any_claim()), Some(Digest::of(b"files")));
            store.apply_changes(&[EntryChange::Remove("Acme".into())]).expect("written");
            let stored = entry(&store);
            assert_eq!(stored.is_some(), paused);
            assert!(stored.is_none_or(|stored| stored.claim.is_none() && stored.rejected_claim.is_none()));
        }
        write_claims(&store, Some(any_claim()), None);
        store.delete_entry("Acme").expect("written");
        assert_eq!(entry(&store), None);
    }

    #[test]
    fn claims_moved_to_another_entry_are_ignored() {
        let (_folder, store) = new_local_tables();
        write_claims(&store, Some(any_claim()), None);
        let moved =
            store.database.connection().execute("UPDATE claims SET stem = 'evil'", []).expect("changed");
        assert_eq!((moved, entry(&store)), (1, None));
        assert_eq!(store.count_unreadable_claims(&store.database.connection()).expect("read"), 1);
    }
}
