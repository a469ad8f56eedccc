//! The claims of entries: the tenant name and mounts that an entry holds and since when, and the
//! claim that was refused. Sealed, because changing them would give one tenant's name to another.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Statement, Transaction, params};
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::key::Keyring;
use super::seal::Place;
use super::{Store, schema};
use crate::base::digest::Digest;
use crate::spec::{Holding, HostName, Mount, Prefix, TenantName};

/// All claims of one entry; writing them replaces those that were stored before.
#[derive(Debug, Clone)]
pub struct Claims {
    /// The entry's stem, as in [`Entry::stem`].
    pub stem: Arc<str>,
    /// The name and mounts that the entry holds.
    pub holding: Option<Arc<Holding>>,
    /// The digest of the files whose claim was refused.
    pub refused: Option<Digest>,
}

/// The claims as they are stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    holding: Option<KeptHolding>,
    refused: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptHolding {
    name: String,
    /// The host (none for the gateway's own) and the prefix of each mount.
    mounts: Vec<(Option<String>, String)>,
    shares_hosts: bool,
    since: Timestamp,
}

impl KeptHolding {
    fn of(holding: &Holding) -> Self {
        let mount = |mount: &Mount| (mount.host.as_ref().map(ToString::to_string), mount.prefix.to_string());
        Self {
            name: holding.name.to_string(),
            mounts: holding.mounts.iter().map(mount).collect(),
            shares_hosts: holding.shares_hosts,
            since: holding.since,
        }
    }

    /// Returns `None` if a program wrote it that allowed other names.
    fn read(self) -> Option<Holding> {
        let mount = |(host, prefix): (Option<String>, String)| {
            let host = match host {
                Some(host) => Some(HostName::parse(&host)?),
                None => None,
            };
            Some(Mount { host, prefix: Prefix::parse(&prefix).ok()? })
        };
        Some(Holding {
            name: TenantName::parse(&self.name)?,
            mounts: self.mounts.into_iter().filter_map(mount).collect(),
            shares_hosts: self.shares_hosts,
            since: self.since,
        })
    }
}

impl Store {
    /// Returns the claims of each entry, as entries without any other content.
    pub(super) fn all_claims(&self, connection: &Connection) -> rusqlite::Result<HashMap<String, Entry>> {
        let mut claims = HashMap::new();
        for (stem, about) in all(connection)? {
            match self.open_claims(&stem, &about) {
                Some(entry) => drop(claims.insert(stem, entry)),
                None => tracing::error!(
                    entry = stem,
                    "what the store says about who holds this entry's name and paths was changed, or sealed with another master key: it counts for nothing"
                ),
            }
        }
        Ok(claims)
    }

    /// Counts the claims that do not open.
    pub(super) fn unreadable_claims(&self, connection: &Connection) -> rusqlite::Result<usize> {
        if schema::version(connection)? < schema::CLAIMS {
            return Ok(0);
        }
        let all = all(connection)?;
        Ok(all.iter().filter(|(stem, about)| self.open_claims(stem, about).is_none()).count())
    }

    fn open_claims(&self, stem: &str, about: &[u8]) -> Option<Entry> {
        let Kept { holding, refused } = serde_json::from_slice(&self.keys.open(&place(stem), about)?).ok()?;
        let holding = holding.and_then(KeptHolding::read).map(Arc::new);
        let refused = refused.and_then(|digest| Digest::parse_hex(&digest));
        Some(Entry { stem: stem.to_owned(), holding, refused, ..Entry::default() })
    }

    /// Seals claims anew that an older master key sealed, so that its line can be removed.
    pub(super) fn renew_claims(&self, connection: &Connection) -> rusqlite::Result<()> {
        for (stem, about) in all(connection)? {
            let opened = self.keys.open(&place(&stem), &about).filter(|_| !self.keys.is_current(&about));
            if let Some(opened) = opened {
                let sealed = self.keys.seal(&place(&stem), &opened);
                connection.execute("UPDATE claims SET about = ?2 WHERE stem = ?1", params![stem, sealed])?;
            }
        }
        Ok(())
    }
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let mut all = connection.prepare("SELECT stem, about FROM claims")?;
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn place(stem: &str) -> Place<'_> {
    Place { purpose: "claims", tenant: stem, row: "" }
}

/// The prepared statements that write claims.
pub(super) struct Pen<'a> {
    set: Statement<'a>,
    forget: Statement<'a>,
}

impl<'a> Pen<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            set: transaction.prepare(
                "INSERT INTO claims (stem, about) VALUES (?1, ?2) ON CONFLICT (stem) DO UPDATE SET about = ?2",
            )?,
            forget: transaction.prepare("DELETE FROM claims WHERE stem = ?1")?,
        })
    }

    pub(super) fn write(&mut self, claims: &Claims, keys: &Keyring) -> rusqlite::Result<()> {
        let Claims { stem, holding, refused } = claims;
        if holding.is_none() && refused.is_none() {
            return self.forget(stem);
        }
        let holding = holding.as_deref().map(KeptHolding::of);
        let refused = refused.map(|digest| digest.to_string());
        let kept = serde_json::to_vec(&Kept { holding, refused }).expect("claims are plain data");
        self.set.execute(params![&**stem, keys.seal(&place(stem), &kept)]).map(drop)
    }

    pub(super) fn forget(&mut self, stem: &str) -> rusqlite::Result<()> {
        self.forget.execute([stem]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Change;
    use crate::store::sample::store;

    fn holding() -> Holding {
        let mount = |host: Option<&str>, prefix| Mount {
            host: host.map(|host| HostName::parse(host).expect("a host")),
            prefix: Prefix::parse(prefix).expect("a prefix"),
        };
        Holding {
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

    fn write(store: &Store, holding: Option<Holding>, refused: Option<Digest>) {
        let claims = Claims { stem: "Acme".into(), holding: holding.map(Arc::new), refused };
        store.write(&[Change::Claims(claims)]).expect("written");
    }

    fn entry(store: &Store) -> Option<Entry> {
        store.entries().expect("read").pop()
    }

    #[test]
    fn what_is_held_and_refused_is_read_as_it_was_written() {
        let (_folder, store) = store();
        let refused = Digest::of(b"files");
        write(&store, Some(holding()), Some(refused));
        let kept = entry(&store).expect("there");
        assert_eq!((kept.holding.as_deref(), kept.refused), (Some(&holding()), Some(refused)));
        store.set_paused("Acme", true).expect("written");
        let kept = entry(&store).expect("there");
        assert_eq!((kept.holding.as_deref(), kept.paused), (Some(&holding()), true));
        write(&store, None, None);
        let kept = entry(&store).expect("it is paused");
        assert_eq!((kept.holding, kept.refused), (None, None));
    }

    #[test]
    fn an_entry_that_is_gone_or_forgotten_holds_nothing() {
        let (_folder, store) = store();
        for paused in [true, false] {
            store.set_paused("Acme", paused).expect("written");
            write(&store, Some(holding()), Some(Digest::of(b"files")));
            store.write(&[Change::Gone("Acme".into())]).expect("written");
            let kept = entry(&store);
            assert_eq!(kept.is_some(), paused);
            assert!(kept.is_none_or(|kept| kept.holding.is_none() && kept.refused.is_none()));
        }
        write(&store, Some(holding()), None);
        store.forget("Acme").expect("written");
        assert_eq!(entry(&store), None);
    }

    #[test]
    fn claims_that_somebody_moved_to_another_entry_count_for_nothing() {
        let (_folder, store) = store();
        write(&store, Some(holding()), None);
        let moved = store.connection().execute("UPDATE claims SET stem = 'evil'", []).expect("changed");
        assert_eq!((moved, entry(&store)), (1, None));
        assert_eq!(store.unreadable_claims(&store.connection()).expect("read"), 1);
    }
}
