//! Certificates that gateways obtain together: one row for each name, with the certificate, what
//! its schedule remembers, the order under way, and the lease of the node that orders.
//!
//! Each write of a holder compares its fencing number, so one that was frozen until its lease ran
//! out and was taken writes nothing any more.

use tokio_postgres::Row;

use super::ClusterStore;
use super::sealed_column::SealedColumn;
use crate::base::random;
use crate::store::auth::Error;
use crate::store::auth::postgres::{ReadError, Value};
use crate::store::keyring::{Keyring, SealContext};

/// How long a lease lasts that its holder does not extend, in seconds.
pub const CERTIFICATE_LEASE_SECONDS: i64 = 15;

const COLUMNS: &str = "name, version, not_before, bundle, renewal, pending_order, fence, holder, is_ordering,
    greatest(0, extract(epoch FROM until - clock_timestamp()))::float8";

/// The kind of the changes of certificates, whose key is the name.
pub const CERTIFICATE_CHANGE: &str = "certificate";

/// What gateways share about the certificate for one name.
#[derive(Debug, Default)]
pub struct SharedCertificate {
    /// The host name or address.
    pub name: String,
    /// Grows with each change.
    pub version: i64,
    /// PEM of key and chain.
    pub bundle: Option<Vec<u8>>,
    /// What is remembered for the schedule, as its owner serializes it.
    pub renewal: Option<Vec<u8>>,
    /// The order under way.
    pub pending_order: Option<Vec<u8>>,
    /// The node that has the lease now.
    pub holder: Option<LeaseHolder>,
    /// A value of the row does not open: it was sealed with another key, or changed.
    pub is_unreadable: bool,
    fence: i64,
}

/// The node that has the lease of a certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseHolder {
    /// Its name, for people.
    pub node: String,
    /// Whether it orders, rather than only asking the CA when to renew.
    pub is_ordering: bool,
    /// How many seconds the lease lasts if it is not extended.
    pub seconds_left: f64,
}

/// A lease that was taken, as its writes name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseClaim {
    name: String,
    fence: i64,
}

impl LeaseClaim {
    /// Returns the name that the certificate is for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the fencing number.
    pub fn fence(&self) -> i64 {
        self.fence
    }
}

/// A certificate that a node has in its folder from before it shared any.
#[derive(Debug)]
pub struct LocalCertificate<'a> {
    /// The host name or address.
    pub name: &'a str,
    /// PEM of key and chain, and when it begins to be valid.
    pub bundle: Option<(&'a [u8], jiff::Timestamp)>,
    /// What is remembered for the schedule.
    pub renewal: &'a [u8],
}

/// A row as it is stored.
struct CertificateRow {
    shared: SharedCertificate,
    not_before: Option<i64>,
}

impl ClusterStore {
    /// Returns the certificates of these names whose version is another than the given one. The names
    /// are wanted from then on: what no gateway asked for in 30 days is deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::store::auth::ErrorKind::Unavailable) if they cannot be
    /// read.
    pub async fn load_certificates(&self, known: &[(&str, i64)]) -> Result<Vec<SharedCertificate>, Error> {
        // Once an hour is enough, by whichever gateway comes first.
        let select = format!(
            "WITH wanted AS (
             UPDATE tenantd.certificates SET wanted_at = clock_timestamp() WHERE name IN (
                 SELECT name FROM tenantd.certificates
                 WHERE name = ANY ($1) AND wanted_at < clock_timestamp() - interval '1 hour'
                 FOR UPDATE SKIP LOCKED)
             )
             SELECT {COLUMNS} FROM tenantd.certificates AS shared
             JOIN unnest($1::text[], $2::bigint[]) AS known (known_name, known_version)
             ON known_name = name AND known_version <> version"
        );
        let (names, versions) = known.iter().copied().unzip();
        let values = [Value::Texts(names), Value::Numbers(versions)];
        let rows = self.query_rows(&select, &values, read_row).await?;
        Ok(rows.into_iter().map(|row| self.open_row(row)).collect())
    }

    /// Stores a certificate from a node's folder, unless there is one that is as new. Returns
    /// whether it was stored.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn import_certificate(&self, local: &LocalCertificate<'_>) -> Result<bool, Error> {
        const IMPORT: &str = "
            WITH imported AS (
            INSERT INTO tenantd.certificates AS shared (name, version, not_before, bundle, renewal)
            VALUES ($1, 1, $2, $3, $4)
            ON CONFLICT (name) DO UPDATE
            SET version = shared.version + 1, not_before = $2, bundle = $3, renewal = $4
            WHERE (shared.not_before IS NULL AND $2 IS NOT NULL) OR shared.not_before < $2
            RETURNING name
            )
            SELECT tenantd.record_change('certificate', '', convert_to(name, 'UTF8')) FROM imported";
        let not_before = local.bundle.map(|(_, at)| at.as_second());
        let bundle = local.bundle.map(|(pem, at)| self.seal_bundle(local.name, at.as_second(), pem));
        let renewal = self.seal(RENEWAL, local.name, local.renewal);
        let values = [
            Value::Text(local.name),
            Value::MaybeNumber(not_before),
            Value::MaybeBytes(bundle.as_deref()),
            Value::Bytes(&renewal),
        ];
        Ok(!self.query(IMPORT, &values).await?.is_empty())
    }

    /// Takes the lease of a certificate if it is free or has run out, and returns it with what is
    /// shared now; `None` while another holder has it.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn take_certificate(
        &self,
        name: &str,
        is_ordering: bool,
    ) -> Result<Option<(LeaseClaim, SharedCertificate)>, Error> {
        // Whoever asks again because the answer was lost finds its own lease by the id.
        let take = format!(
            "WITH taken AS (
             INSERT INTO tenantd.certificates AS shared (name, version, lease, holder, is_ordering, fence, until)
             VALUES ($1, 1, $2, $3, $4 = 1, 1, clock_timestamp() + make_interval(secs => $5::bigint))
             ON CONFLICT (name) DO UPDATE
             SET version = shared.version + 1, lease = $2, holder = $3, is_ordering = $4 = 1,
                 fence = shared.fence + (shared.lease IS DISTINCT FROM $2)::int, until = excluded.until
             WHERE shared.lease = $2 OR shared.until < clock_timestamp()
             RETURNING {COLUMNS}
             )
             SELECT *, tenantd.record_change('certificate', '', convert_to(name, 'UTF8')) FROM taken"
        );
        let id = random::bytes::<16>();
        let values = [
            Value::Text(name),
            Value::Bytes(&id),
            Value::Text(self.node_name()),
            Value::Number(i64::from(is_ordering)),
            Value::Number(CERTIFICATE_LEASE_SECONDS),
        ];
        let rows = self.query_rows(&take, &values, read_row).await?;
        let taken = rows.into_iter().next().map(|row| self.open_row(row));
        Ok(taken.map(|shared| (LeaseClaim { name: name.to_owned(), fence: shared.fence }, shared)))
    }

    /// Extends a lease. Returns `false` if it has run out or was taken by another holder.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn extend_lease(&self, claim: &LeaseClaim) -> Result<bool, Error> {
        const EXTEND: &str = "
            UPDATE tenantd.certificates SET until = clock_timestamp() + make_interval(secs => $3::bigint)
            WHERE name = $1 AND fence = $2 AND until > clock_timestamp() RETURNING name";
        let seconds = Value::Number(CERTIFICATE_LEASE_SECONDS);
        self.write(EXTEND, claim, seconds).await
    }

    /// Stores what is remembered for the schedule, while the lease is held. Returns `false` if it
    /// is not held any more.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn save_renewal(&self, claim: &LeaseClaim, renewal: &[u8]) -> Result<bool, Error> {
        const SAVE: &str = "
            UPDATE tenantd.certificates SET renewal = $3, version = version + 1
            WHERE name = $1 AND fence = $2 AND until > clock_timestamp() RETURNING name";
        self.write(SAVE, claim, Value::Bytes(&self.seal(RENEWAL, &claim.name, renewal))).await
    }

    /// Stores the order that is under way, or that none is. Returns `false` if the lease was taken
    /// by another holder.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn save_pending_order(&self, claim: &LeaseClaim, order: Option<&[u8]>) -> Result<bool, Error> {
        const SAVE: &str = "UPDATE tenantd.certificates SET pending_order = $3
                            WHERE name = $1 AND fence = $2 RETURNING name";
        let sealed = order.map(|order| self.seal(PENDING_ORDER, &claim.name, order));
        self.write(SAVE, claim, Value::MaybeBytes(sealed.as_deref())).await
    }

    /// Stores a new certificate; its order is over. Returns `false` if the lease was taken by
    /// another holder.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn save_bundle(
        &self,
        claim: &LeaseClaim,
        pem: &[u8],
        not_before: jiff::Timestamp,
    ) -> Result<bool, Error> {
        const SAVE: &str = "
            UPDATE tenantd.certificates
            SET bundle = $3, not_before = $4, pending_order = NULL, version = version + 1
            WHERE name = $1 AND fence = $2
            RETURNING tenantd.record_change('certificate', '', convert_to(name, 'UTF8'))";
        let not_before = not_before.as_second();
        let bundle = self.seal_bundle(&claim.name, not_before, pem);
        let values = [
            Value::Text(&claim.name),
            Value::Number(claim.fence),
            Value::Bytes(&bundle),
            Value::Number(not_before),
        ];
        Ok(!self.query(SAVE, &values).await?.is_empty())
    }

    /// Gives a lease back, and stores what is remembered for the schedule if that has changed.
    /// Returns `false` if the lease was taken by another holder.
    ///
    /// # Errors
    /// As [`ClusterStore::load_certificates`].
    pub async fn release_certificate(
        &self,
        claim: &LeaseClaim,
        renewal: Option<&[u8]>,
    ) -> Result<bool, Error> {
        const RELEASE: &str = "
            UPDATE tenantd.certificates
            SET renewal = coalesce($3, renewal), until = 'epoch', version = version + 1
            WHERE name = $1 AND fence = $2
            RETURNING tenantd.record_change('certificate', '', convert_to(name, 'UTF8'))";
        let sealed = renewal.map(|renewal| self.seal(RENEWAL, &claim.name, renewal));
        self.write(RELEASE, claim, Value::MaybeBytes(sealed.as_deref())).await
    }

    /// Sends a write of a lease's holder; `value` is its third parameter.
    async fn write(&self, sql: &str, claim: &LeaseClaim, value: Value<'_>) -> Result<bool, Error> {
        let values = [Value::Text(&claim.name), Value::Number(claim.fence), value];
        Ok(!self.query(sql, &values).await?.is_empty())
    }

    fn seal(&self, purpose: &str, row: &str, value: &[u8]) -> Vec<u8> {
        self.keyring().seal(&SealContext { purpose, tenant: "", row }, value)
    }

    fn seal_bundle(&self, name: &str, not_before: i64, pem: &[u8]) -> Vec<u8> {
        self.keyring().seal_row(&bundle_context(name), &[not_before.to_be_bytes()], pem)
    }

    fn open_row(&self, row: CertificateRow) -> SharedCertificate {
        let CertificateRow { mut shared, not_before } = row;
        let keyring = self.keyring();
        let mut is_unreadable = false;
        let mut checked = |sealed: Option<Vec<u8>>, opened: Option<Vec<u8>>| {
            is_unreadable |= sealed.is_some() && opened.is_none();
            opened
        };
        let open = |purpose, sealed: &Option<Vec<u8>>| {
            keyring.open(&SealContext { purpose, tenant: "", row: &shared.name }, sealed.as_deref()?)
        };
        let clear = [not_before.unwrap_or_default().to_be_bytes()];
        let bundle = shared
            .bundle
            .as_deref()
            .and_then(|sealed| keyring.open_row(&bundle_context(&shared.name), &clear, sealed));
        let (renewal, order) = (open(RENEWAL, &shared.renewal), open(PENDING_ORDER, &shared.pending_order));
        shared.bundle = checked(shared.bundle.take(), bundle);
        shared.renewal = checked(shared.renewal.take(), renewal);
        shared.pending_order = checked(shared.pending_order.take(), order);
        SharedCertificate { is_unreadable, ..shared }
    }
}

/// What `tenantd store check` opens.
pub(super) const SEALED: &[SealedColumn] = &[
    SealedColumn {
        name: "bundle",
        select: "SELECT name, coalesce(not_before, 0), bundle FROM tenantd.certificates WHERE bundle IS NOT NULL",
        is_intact: |keyring, row| {
            let (name, not_before): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
            let clear = [not_before.to_be_bytes()];
            Ok(keyring.open_row(&bundle_context(name), &clear, row.try_get(2)?).is_some())
        },
    },
    SealedColumn {
        name: "renewal",
        select: "SELECT name, renewal FROM tenantd.certificates WHERE renewal IS NOT NULL",
        is_intact: |keyring, row| is_intact(keyring, RENEWAL, row),
    },
    SealedColumn {
        name: "pending_order",
        select: "SELECT name, pending_order FROM tenantd.certificates WHERE pending_order IS NOT NULL",
        is_intact: |keyring, row| is_intact(keyring, PENDING_ORDER, row),
    },
];

fn is_intact(keyring: &Keyring, purpose: &str, row: &Row) -> Result<bool, ReadError> {
    let context = SealContext { purpose, tenant: "", row: row.try_get(0)? };
    Ok(keyring.open(&context, row.try_get(1)?).is_some())
}

const RENEWAL: &str = "certificate-renewal";
const PENDING_ORDER: &str = "certificate-order";

fn bundle_context(name: &str) -> SealContext<'_> {
    SealContext { purpose: "certificate", tenant: "", row: name }
}

fn read_row(row: &Row) -> Result<CertificateRow, ReadError> {
    let seconds_left: f64 = row.try_get(9)?;
    let node: Option<String> = row.try_get(7)?;
    let is_ordering = row.try_get(8)?;
    let holder = node.filter(|_| seconds_left > 0.0);
    let shared = SharedCertificate {
        name: row.try_get(0)?,
        version: row.try_get(1)?,
        bundle: row.try_get(3)?,
        renewal: row.try_get(4)?,
        pending_order: row.try_get(5)?,
        fence: row.try_get(6)?,
        holder: holder.map(|node| LeaseHolder { node, is_ordering, seconds_left }),
        is_unreadable: false,
    };
    Ok(CertificateRow { shared, not_before: row.try_get(2)? })
}

#[cfg(test)]
mod tests;
