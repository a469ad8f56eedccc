//! What gateways share with a CA beside certificates: the account, which one of them opens, and the
//! answers to challenges, which any of them gives.

use std::time::Duration;

use super::ClusterStore;
use super::certificates::{CERTIFICATE_LEASE_SECONDS, LeaseClaim};
use super::sealed_column::SealedColumn;
use crate::base::random;
use crate::store::auth::Error;
use crate::store::auth::postgres::Value;
use crate::store::keyring::SealContext;

const ACCOUNT: &str = "acme-account";

/// The account with a CA, or who may open one.
#[derive(Debug)]
pub enum SharedAccount {
    /// There is one, as its owner serialized it. The seal tells it from one that replaced it.
    Open { account: Vec<u8>, sealed: Vec<u8> },
    /// There is one that does not open: it was sealed with another key, or changed.
    Unreadable,
    /// There is none.
    Missing,
}

/// The right to open an account; it runs out.
#[derive(Debug)]
pub struct AccountClaim {
    directory: String,
    fence: i64,
}

/// The kind of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedChallengeKind {
    TlsAlpn01,
    Http01,
}

/// The answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedChallenge {
    /// Its kind.
    pub kind: SharedChallengeKind,
    /// The token of HTTP-01, the server name of TLS-ALPN-01.
    pub key: String,
    /// The text of HTTP-01, the digest of TLS-ALPN-01.
    pub answer: Vec<u8>,
}

impl SharedChallengeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::TlsAlpn01, Self::Http01].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl SharedChallenge {
    /// Makes the answer to a TLS-ALPN-01 challenge: the digest that the certificate carries.
    pub fn new_tls_alpn01(server_name: String, digest: Vec<u8>) -> Self {
        Self { kind: SharedChallengeKind::TlsAlpn01, key: server_name, answer: digest }
    }

    /// Makes the answer to an HTTP-01 challenge: the key authorization.
    pub fn new_http01(token: String, text: &str) -> Self {
        Self { kind: SharedChallengeKind::Http01, key: token, answer: text.as_bytes().to_vec() }
    }
}

impl ClusterStore {
    /// Returns the account with a CA.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::store::auth::ErrorKind::Unavailable) if it cannot be read.
    pub async fn load_acme_account(&self, directory: &str) -> Result<SharedAccount, Error> {
        const SELECT: &str = "SELECT account FROM tenantd.acme_accounts
                              WHERE directory = $1 AND account IS NOT NULL";
        let values = [Value::Text(directory)];
        let rows: Vec<Vec<u8>> = self.query_rows(SELECT, &values, |row| Ok(row.try_get(0)?)).await?;
        let sealed = rows.into_iter().next();
        let Some(sealed) = sealed else { return Ok(SharedAccount::Missing) };
        let opened = self.keyring().open(&account_context(directory), &sealed);
        Ok(opened.map_or(SharedAccount::Unreadable, |account| SharedAccount::Open { account, sealed }))
    }

    /// Takes the right to open an account with a CA; `None` while another node has it, or if there
    /// is an account.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn take_acme_account(&self, directory: &str) -> Result<Option<AccountClaim>, Error> {
        const TAKE: &str = "
            INSERT INTO tenantd.acme_accounts AS shared (directory, lease, fence, until)
            VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3::bigint))
            ON CONFLICT (directory) DO UPDATE
            SET lease = $2, fence = shared.fence + (shared.lease IS DISTINCT FROM $2)::int,
                until = excluded.until
            WHERE shared.account IS NULL AND (shared.lease = $2 OR shared.until < clock_timestamp())
            RETURNING fence";
        // An exchange with a CA may take longer than a lease of an order, which is extended.
        let (id, seconds) = (random::bytes::<16>(), 4 * CERTIFICATE_LEASE_SECONDS);
        let values = [Value::Text(directory), Value::Bytes(&id), Value::Number(seconds)];
        let fences = self.query_rows(TAKE, &values, |row| Ok(row.try_get(0)?)).await?;
        Ok(fences.first().map(|&fence| AccountClaim { directory: directory.to_owned(), fence }))
    }

    /// Stores an account, and returns whether the right to open it was still held.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn save_acme_account(&self, claim: &AccountClaim, account: &[u8]) -> Result<bool, Error> {
        const SAVE: &str = "UPDATE tenantd.acme_accounts SET account = $3, until = 'epoch'
                            WHERE directory = $1 AND fence = $2 RETURNING directory";
        let sealed = self.keyring().seal(&account_context(&claim.directory), account);
        let values = [Value::Text(&claim.directory), Value::Number(claim.fence), Value::Bytes(&sealed)];
        Ok(!self.query(SAVE, &values).await?.is_empty())
    }

    /// Gives the right to open an account back.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn release_acme_account(&self, claim: &AccountClaim) -> Result<(), Error> {
        const RELEASE: &str = "UPDATE tenantd.acme_accounts SET until = 'epoch'
                               WHERE directory = $1 AND fence = $2";
        let values = [Value::Text(&claim.directory), Value::Number(claim.fence)];
        Ok(self.query(RELEASE, &values).await.map(drop)?)
    }

    /// Forgets an account that the CA does not know, unless another one has replaced it.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn forget_acme_account(&self, directory: &str, sealed: &[u8]) -> Result<(), Error> {
        const FORGET: &str =
            "UPDATE tenantd.acme_accounts SET account = NULL WHERE directory = $1 AND account = $2";
        let values = [Value::Text(directory), Value::Bytes(sealed)];
        Ok(self.query(FORGET, &values).await.map(drop)?)
    }

    /// Has every node answer a challenge for a while, or until it is removed. Returns `false` if the
    /// lease of the order was lost; a dry run has none.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn publish_challenge(
        &self,
        claim: Option<&LeaseClaim>,
        challenge: &SharedChallenge,
        time: Duration,
    ) -> Result<bool, Error> {
        const PUBLISH: &str = "
            WITH gone AS (DELETE FROM tenantd.acme_challenges WHERE until < clock_timestamp()
                          AND NOT (kind = $1 AND key = $2))
            INSERT INTO tenantd.acme_challenges (kind, key, answer, until)
            SELECT $1, $2, $3, clock_timestamp() + make_interval(secs => $4::bigint)
            WHERE $5::text IS NULL OR EXISTS (
                SELECT FROM tenantd.certificates
                WHERE name = $5 AND fence = $6 AND until > clock_timestamp()
            )
            ON CONFLICT (kind, key) DO UPDATE SET answer = excluded.answer, until = excluded.until
            RETURNING key";
        let context = challenge_context(challenge.kind, &challenge.key);
        let answer = self.keyring().seal(&context, &challenge.answer);
        let values = [
            Value::Text(challenge.kind.as_str()),
            Value::Text(&challenge.key),
            Value::Bytes(&answer),
            Value::Number(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
            Value::MaybeText(claim.map(LeaseClaim::name)),
            Value::MaybeNumber(claim.map(LeaseClaim::fence)),
        ];
        Ok(!self.query(PUBLISH, &values).await?.is_empty())
    }

    /// Ends an answer.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn remove_challenge(&self, kind: SharedChallengeKind, key: &str) -> Result<(), Error> {
        const REMOVE: &str = "DELETE FROM tenantd.acme_challenges WHERE kind = $1 AND key = $2";
        Ok(self.query(REMOVE, &[Value::Text(kind.as_str()), Value::Text(key)]).await.map(drop)?)
    }

    /// Returns the answers to all challenges that are under way.
    ///
    /// # Errors
    /// As [`ClusterStore::load_acme_account`].
    pub async fn load_challenges(&self) -> Result<Vec<SharedChallenge>, Error> {
        const SELECT: &str =
            "SELECT kind, key, answer FROM tenantd.acme_challenges WHERE until > clock_timestamp()";
        let read = |row: &tokio_postgres::Row| {
            let (kind, key, answer): (String, String, Vec<u8>) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok((kind, key, answer))
        };
        let rows = self.query_rows(SELECT, &[], read).await?;
        // What another key sealed is no answer of ours.
        let open = |(kind, key, answer): (String, String, Vec<u8>)| {
            let kind = SharedChallengeKind::parse(&kind)?;
            let answer = self.keyring().open(&challenge_context(kind, &key), &answer)?;
            Some(SharedChallenge { kind, key, answer })
        };
        Ok(rows.into_iter().filter_map(open).collect())
    }
}

/// What `tenantd store check` opens.
pub(super) const SEALED_ACCOUNTS: &[SealedColumn] = &[SealedColumn {
    name: "account",
    select: "SELECT directory, account FROM tenantd.acme_accounts WHERE account IS NOT NULL",
    is_intact: |keyring, row| Ok(keyring.open(&account_context(row.try_get(0)?), row.try_get(1)?).is_some()),
}];

/// The same of answers. Those of a kind that this version does not know are none of ours.
pub(super) const SEALED_CHALLENGES: &[SealedColumn] = &[SealedColumn {
    name: "answer",
    select: "SELECT kind, key, answer FROM tenantd.acme_challenges WHERE until > clock_timestamp()",
    is_intact: |keyring, row| {
        let Some(kind) = SharedChallengeKind::parse(row.try_get(0)?) else { return Ok(true) };
        Ok(keyring.open(&challenge_context(kind, row.try_get(1)?), row.try_get(2)?).is_some())
    },
}];

fn account_context(directory: &str) -> SealContext<'_> {
    SealContext { purpose: ACCOUNT, tenant: "", row: directory }
}

fn challenge_context(kind: SharedChallengeKind, key: &str) -> SealContext<'_> {
    let purpose = match kind {
        SharedChallengeKind::TlsAlpn01 => "acme-challenge-tls-alpn-01",
        SharedChallengeKind::Http01 => "acme-challenge-http-01",
    };
    SealContext { purpose, tenant: "", row: key }
}

#[cfg(test)]
mod tests;
