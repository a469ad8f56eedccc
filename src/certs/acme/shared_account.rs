//! The account with a CA that several gateways share: one of them opens it.

use std::time::Duration;

use instant_acme::AccountCredentials;

use super::failure;
use super::lease::unavailable;
use super::order_attempt::{AttemptError, OrderAttempt};
use super::shared_order::SharedOrder;
use crate::base::sync::lock_unpoisoned;
use crate::certs::schedule::IssuanceFailure;
use crate::store::{AccountClaim, SharedAccount};

/// How often a gateway looks whether another one has opened the account.
const WAIT: Duration = Duration::from_millis(500);

/// Returns the shared account, and keeps a copy in the folder. `None` if there is none.
pub(super) async fn load(
    attempt: &OrderAttempt,
    shared: &SharedOrder,
) -> Result<Option<AccountCredentials>, IssuanceFailure> {
    let directory = &attempt.ca.directory;
    let found = Box::pin(shared.store.load_acme_account(directory)).await;
    match found.map_err(|error| unavailable(&error))? {
        SharedAccount::Missing => Ok(None),
        SharedAccount::Unreadable => Err(failure::new_refused(format!(
            "the account with {directory} that gateways share in the database cannot be decrypted: it was encrypted \
             with another master key, or changed. Give that key as a second line of the master key, or delete its \
             row of tenantd.acme_accounts"
        ))),
        SharedAccount::Open { account, sealed } => {
            *lock_unpoisoned(&shared.account_seal) = Some(sealed);
            let parsed = serde_json::from_slice(&account);
            let credentials = parsed.map_err(|error| {
                failure::new_refused(format!("the shared account with {directory} cannot be parsed: {error}"))
            })?;
            keep_copy(attempt, account).await;
            Ok(Some(credentials))
        }
    }
}

async fn keep_copy(attempt: &OrderAttempt, account: Vec<u8>) {
    let directory = attempt.ca.directory.clone();
    let keep = attempt.with_folder(move |folder| {
        let is_there = folder.load_account(&directory).is_some_and(|copy| copy.as_bytes() == account);
        if is_there { Ok(()) } else { folder.persist_account(&directory, &account) }
    });
    if let Err(error) = keep.await {
        tracing::debug!(%error, "the certs folder keeps no copy of the account");
    }
}

/// Waits until this gateway may open the account. `None` if another one has opened it.
pub(super) async fn claim(
    attempt: &OrderAttempt,
    shared: &SharedOrder,
) -> Result<Option<AccountClaim>, IssuanceFailure> {
    loop {
        let taken = Box::pin(shared.store.take_acme_account(&attempt.ca.directory)).await;
        if let Some(claim) = taken.map_err(|error| unavailable(&error))? {
            return Ok(Some(claim));
        }
        if load(attempt, shared).await?.is_some() {
            return Ok(None);
        }
        tokio::time::sleep(WAIT).await;
    }
}

/// Stores the account that `open` returns.
pub(super) async fn provide(
    shared: &SharedOrder,
    claim: AccountClaim,
    open: impl AsyncFnOnce() -> Result<AccountCredentials, IssuanceFailure>,
) -> Result<(), AttemptError> {
    let credentials = match open().await {
        Ok(credentials) => credentials,
        Err(failure) => {
            // Another gateway may try at once; if this fails, it may after a while.
            let _released = Box::pin(shared.store.release_acme_account(&claim)).await;
            return Err(failure.into());
        }
    };
    let text = serde_json::to_vec(&credentials).map_err(|error| failure::new_refused(error.to_string()))?;
    let saved = Box::pin(shared.store.save_acme_account(&claim, &text)).await;
    match saved.map_err(|error| unavailable(&error))? {
        true => Ok(()),
        false => Err(failure::new_refused("another gateway opens the account with the CA").into()),
    }
}

/// Forgets the account that the CA does not know.
pub(super) async fn forget(attempt: &OrderAttempt, shared: &SharedOrder) {
    let Some(seal) = lock_unpoisoned(&shared.account_seal).take() else { return };
    if let Err(error) = Box::pin(shared.store.forget_acme_account(&attempt.ca.directory, &seal)).await {
        tracing::warn!(%error, "an account that the CA does not know stays in the database");
    }
}
