//! What operators ordered about entries, for every node: the last order of each kind about each
//! entry. Of two orders the one with the higher number counts, and the numbers are those of all
//! changes. What an order says is sealed, so that nobody without the master key gives one.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;

use super::ClusterStore;
use super::sealed_column::SealedColumn;
use crate::base::digest::Digest;
use crate::store::auth::postgres::{ReadError, Value};
use crate::store::keyring::SealContext;
use crate::store::{Error, Keyring};

/// The kind of the changes that orders are.
pub const ORDER_CHANGE: &str = "order";
/// The largest documents of a revision that are shared with an order.
const MAX_DOCUMENTS_BYTES: usize = 16 << 20;

/// An operator's order about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantOrder {
    /// Do not serve it, or serve it again.
    Pause(bool),
    /// Put a revision in force instead of certain files; `None` takes back an order that could not
    /// be followed.
    Rollback(Option<Replacement>),
    /// Put this change in force that is held back.
    Approve(Digest),
    /// Accept the refused claim of these files; `None` takes that back.
    Accept(Option<Digest>),
}

/// Which revision stands in for which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement {
    /// The digest of the files that are replaced.
    pub files: Digest,
    /// The digest of the revision that is in force instead. If it is that of the files, they are.
    pub revision: Digest,
}

/// All orders about one entry that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryOrders {
    /// Whether it is paused; `None` if nobody ever ordered that.
    pub paused: Option<bool>,
    /// Which revision is in force instead of which files.
    pub replacement: Option<Replacement>,
    /// The change that was approved last.
    pub approved: Option<Digest>,
    /// The files whose refused claim was accepted last.
    pub accepted: Option<Digest>,
}

impl TenantOrder {
    fn kind(&self) -> &'static str {
        match self {
            Self::Pause(_) => "pause",
            Self::Rollback(_) => "rollback",
            Self::Approve(_) => "approve",
            Self::Accept(_) => "accept",
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Pause(is_paused) => vec![u8::from(*is_paused)],
            Self::Rollback(Some(Replacement { files, revision })) => {
                [*files.as_bytes(), *revision.as_bytes()].concat()
            }
            Self::Approve(digest) | Self::Accept(Some(digest)) => digest.as_bytes().to_vec(),
            Self::Rollback(None) | Self::Accept(None) => Vec::new(),
        }
    }

    fn decode(kind: &str, details: &[u8]) -> Option<Self> {
        let digest = |bytes: &[u8]| bytes.try_into().ok().map(Digest::from_bytes);
        match (kind, details) {
            ("pause", [is_paused]) => Some(Self::Pause(*is_paused != 0)),
            ("rollback", []) => Some(Self::Rollback(None)),
            ("rollback", details) => {
                let (files, revision) = details.split_at_checked(32)?;
                Some(Self::Rollback(Some(Replacement { files: digest(files)?, revision: digest(revision)? })))
            }
            ("approve", details) => Some(Self::Approve(digest(details)?)),
            ("accept", []) => Some(Self::Accept(None)),
            ("accept", details) => Some(Self::Accept(Some(digest(details)?))),
            _ => None,
        }
    }
}

impl EntryOrders {
    /// Takes in an order.
    pub fn add(&mut self, order: TenantOrder) {
        match order {
            TenantOrder::Pause(is_paused) => self.paused = Some(is_paused),
            TenantOrder::Rollback(replacement) => self.replacement = replacement,
            TenantOrder::Approve(digest) => self.approved = Some(digest),
            TenantOrder::Accept(digest) => self.accepted = digest,
        }
    }
}

impl ClusterStore {
    /// Gives an order about an entry, which all nodes hear of. The documents are those of the
    /// revision of a rollback; they are shared if they are not too large.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used; then nothing was ordered.
    pub async fn give_order(
        &self,
        entry_id: &str,
        order: TenantOrder,
        documents: Option<&[u8]>,
    ) -> Result<(), Error> {
        const GIVE: &str = "
            WITH change AS (SELECT tenantd.record_change('order', $1, convert_to($2, 'UTF8')) AS number)
            INSERT INTO tenantd.tenant_orders AS old (entry_id, kind, number, details, documents)
            SELECT $1, $2, number, $3, $4 FROM change
            ON CONFLICT (entry_id, kind) DO UPDATE
            SET number = excluded.number, details = excluded.details, documents = excluded.documents
            WHERE old.number < excluded.number";
        let kind = order.kind();
        let details = self.keyring().seal(&details_context(entry_id, kind), &order.encode());
        let documents = documents.filter(|documents| documents.len() <= MAX_DOCUMENTS_BYTES);
        let documents =
            documents.map(|documents| self.keyring().seal(&documents_context(entry_id), documents));
        let values = [
            Value::Text(entry_id),
            Value::Text(kind),
            Value::Bytes(&details),
            Value::MaybeBytes(documents.as_deref()),
        ];
        Ok(self.query(GIVE, &values).await.map(drop)?)
    }

    /// Gives an order unless there is one of this kind about the entry: what an operator ordered
    /// before the gateway was one of several. Returns whether it was given.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn adopt_order(
        &self,
        entry_id: &str,
        order: TenantOrder,
        documents: Option<&[u8]>,
    ) -> Result<bool, Error> {
        const SELECT: &str = "SELECT FROM tenantd.tenant_orders WHERE entry_id = $1 AND kind = $2";
        let known = self.query(SELECT, &[Value::Text(entry_id), Value::Text(order.kind())]).await?;
        if known.is_empty() {
            self.give_order(entry_id, order, documents).await?;
        }
        Ok(known.is_empty())
    }

    /// Returns the orders about these entries, or about all.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn load_orders(
        &self,
        entry_ids: Option<&[Arc<str>]>,
    ) -> Result<HashMap<Arc<str>, EntryOrders>, Error> {
        const SELECT: &str = "SELECT entry_id, kind, details FROM tenantd.tenant_orders";
        const SELECT_SOME: &str =
            "SELECT entry_id, kind, details FROM tenantd.tenant_orders WHERE entry_id = ANY ($1)";
        let rows = match entry_ids {
            None => self.query_rows(SELECT, &[], read_order).await?,
            Some(entry_ids) => {
                let entry_ids = entry_ids.iter().map(|entry_id| &**entry_id).collect();
                self.query_rows(SELECT_SOME, &[Value::Texts(entry_ids)], read_order).await?
            }
        };
        let mut orders: HashMap<Arc<str>, EntryOrders> = HashMap::new();
        for (entry_id, kind, details) in rows {
            if let Some(order) = open_order(self.keyring(), &entry_id, &kind, &details) {
                orders.entry(entry_id.into()).or_default().add(order);
            }
        }
        Ok(orders)
    }

    /// Seals orders anew that an older master key sealed, so that its line can be removed.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used; the next start tries again.
    pub async fn reseal_orders(&self) -> Result<(), Error> {
        const SELECT: &str = "SELECT entry_id, kind, details, number, documents FROM tenantd.tenant_orders";
        // An order that was given meanwhile is sealed as it should be.
        const RESEAL: &str = "
            UPDATE tenantd.tenant_orders SET details = $4, documents = $5
            WHERE entry_id = $1 AND kind = $2 AND number = $3";
        let read = |row: &Row| -> Result<_, ReadError> {
            let (number, documents): (i64, Option<Vec<u8>>) = (row.try_get(3)?, row.try_get(4)?);
            Ok((read_order(row)?, number, documents))
        };
        for ((entry_id, kind, details), number, documents) in self.query_rows(SELECT, &[], read).await? {
            if self.keyring().is_current(&details) {
                continue;
            }
            let reseal = |context: &SealContext<'_>, sealed: &[u8]| {
                self.keyring().open(context, sealed).map(|opened| self.keyring().seal(context, &opened))
            };
            let Some(details) = reseal(&details_context(&entry_id, &kind), &details) else { continue };
            let documents = documents.and_then(|sealed| reseal(&documents_context(&entry_id), &sealed));
            let values = [
                Value::Text(&entry_id),
                Value::Text(&kind),
                Value::Number(number),
                Value::Bytes(&details),
                Value::MaybeBytes(documents.as_deref()),
            ];
            self.query(RESEAL, &values).await?;
        }
        Ok(())
    }

    /// Returns the documents of the revision of an entry's rollback, if they are shared.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used, [`Error::CannotUnseal`] if they do not
    /// open.
    pub async fn load_order_documents(&self, entry_id: &str) -> Result<Option<Vec<u8>>, Error> {
        const SELECT: &str = "
            SELECT documents FROM tenantd.tenant_orders
            WHERE entry_id = $1 AND kind = 'rollback' AND documents IS NOT NULL";
        let read = |row: &Row| -> Result<Vec<u8>, ReadError> { Ok(row.try_get(0)?) };
        let rows = self.query_rows(SELECT, &[Value::Text(entry_id)], read).await?;
        let Some(sealed) = rows.into_iter().next() else { return Ok(None) };
        let opened = self.keyring().open(&documents_context(entry_id), &sealed);
        opened.map(Some).ok_or(Error::CannotUnseal)
    }

    /// Forgets all orders about an entry that an operator removed, unless another node has it.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the database cannot be used.
    pub async fn forget_orders(&self, entry_id: &str) -> Result<(), Error> {
        const FORGET: &str = "
            DELETE FROM tenantd.tenant_orders WHERE entry_id = $1 AND NOT EXISTS (
                SELECT FROM tenantd.node_entries WHERE entry_id = $1 AND node <> $2)";
        let values = [Value::Text(entry_id), Value::Bytes(self.node_id())];
        Ok(self.query(FORGET, &values).await.map(drop)?)
    }
}

/// What `tenantd store check` opens.
pub(super) const SEALED: &[SealedColumn] = &[
    SealedColumn {
        name: "details",
        select: "SELECT entry_id, kind, details FROM tenantd.tenant_orders",
        is_intact: |keyring, row| {
            let context = details_context(row.try_get(0)?, row.try_get(1)?);
            Ok(keyring.open(&context, row.try_get(2)?).is_some())
        },
    },
    SealedColumn {
        name: "documents",
        select: "SELECT entry_id, documents FROM tenantd.tenant_orders WHERE documents IS NOT NULL",
        is_intact: |keyring, row| {
            Ok(keyring.open(&documents_context(row.try_get(0)?), row.try_get(1)?).is_some())
        },
    },
];

/// Opens an order. A pause that was changed, or sealed with another key, pauses the entry; other
/// orders like that do not count, and those of a newer version are none of ours.
fn open_order(keyring: &Keyring, entry_id: &str, kind: &str, details: &[u8]) -> Option<TenantOrder> {
    let Some(details) = keyring.open(&details_context(entry_id, kind), details) else {
        tracing::error!(
            entry = entry_id,
            kind,
            "an operator's order about this entry was changed in the database, or encrypted with another master \
             key. A pause counts all the same; check the entry's files, then give the order again"
        );
        return (kind == "pause").then_some(TenantOrder::Pause(true));
    };
    TenantOrder::decode(kind, &details)
}

fn details_context<'a>(entry_id: &'a str, kind: &'a str) -> SealContext<'a> {
    SealContext { purpose: "order", tenant: entry_id, row: kind }
}

fn documents_context(entry_id: &str) -> SealContext<'_> {
    SealContext { purpose: "order documents", tenant: entry_id, row: "rollback" }
}

fn read_order(row: &Row) -> Result<(String, String, Vec<u8>), ReadError> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}
