//! The account with a CA: the stored one, or a new one.
//!
//! CAs limit new accounts (Let's Encrypt: ten in three hours), so orders that start at the same
//! time share one.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::bad_nonce::retry_bad_nonce;
use super::certs_folder::CertsFolder;
use super::http::AcmeHttpClient;
use super::order_attempt::{AttemptError, OrderAttempt};
use super::{eab, failure, shared_account};
use crate::certs::schedule::IssuanceFailure;

/// Returns the stored account, or opens one if none is stored that can be parsed.
pub(super) async fn load_or_open(
    attempt: &OrderAttempt,
    http: &AcmeHttpClient,
) -> Result<Account, AttemptError> {
    if let Some(credentials) = load_credentials(attempt).await? {
        return resume(credentials, http).await;
    }
    let lock = attempt.account_locks.lock_for(&attempt.ca.directory);
    // Held across the CA's response on purpose: a concurrent attempt would request the same
    // account.
    let _guard = lock.lock().await;
    if let Some(opened_meanwhile) = load_credentials(attempt).await? {
        return resume(opened_meanwhile, http).await;
    }
    match &attempt.shared {
        None => Ok(open(attempt, http).await?.0),
        Some(shared) => {
            if let Some(claim) = shared_account::claim(attempt, shared).await? {
                // One that was used before the gateways shared theirs goes on.
                let open = async || match load_copy(attempt).await {
                    Some(local) => Ok(local),
                    None => Ok(open(attempt, http).await?.1),
                };
                shared_account::provide(shared, claim, open).await?;
            }
            let provided = load_credentials(attempt).await?;
            resume(provided.ok_or_else(|| failure::new_refused("the shared account is gone"))?, http).await
        }
    }
}

/// Sets the stored account aside, which the CA does not know any more.
pub(super) async fn set_aside(attempt: &OrderAttempt, why: String) {
    if let Some(shared) = &attempt.shared {
        shared_account::forget(attempt, shared).await;
    }
    let (directory, now) = (attempt.ca.directory.clone(), attempt.clock.now());
    attempt.with_folder(move |folder| folder.set_account_aside(&directory, &why, now)).await;
}

async fn load_credentials(attempt: &OrderAttempt) -> Result<Option<AccountCredentials>, IssuanceFailure> {
    match &attempt.shared {
        Some(shared) => shared_account::load(attempt, shared).await,
        None => Ok(load_copy(attempt).await),
    }
}

/// Returns the account in the certs folder.
pub(super) async fn load_copy(attempt: &OrderAttempt) -> Option<AccountCredentials> {
    let (directory, now) = (attempt.ca.directory.clone(), attempt.clock.now());
    let load = move |folder: &CertsFolder| {
        let stored = folder.load_account(&directory)?;
        let parsed = serde_json::from_str(&stored);
        parsed.inspect_err(|_| folder.set_account_aside(&directory, "it cannot be parsed", now)).ok()
    };
    attempt.with_folder(load).await
}

async fn resume(credentials: AccountCredentials, http: &AcmeHttpClient) -> Result<Account, AttemptError> {
    let account = Account::builder_with_http(Box::new(http.clone())).from_credentials(credentials).await;
    account.map_err(|error| failure::from_acme_error(error, http).into())
}

async fn open(
    attempt: &OrderAttempt,
    http: &AcmeHttpClient,
) -> Result<(Account, AccountCredentials), IssuanceFailure> {
    let OrderAttempt { ca, acme, .. } = attempt;
    let eab =
        ca.eab.as_ref().map(eab::read_binding).transpose().map_err(|error| failure::new_refused(error.0))?;
    let key = eab.as_ref().map(|eab| ExternalAccountKey::new(eab.kid.clone(), &eab.key));
    let contact: Vec<String> = acme.contact.iter().map(|mail| format!("mailto:{mail}")).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: acme.accept_tos,
        only_return_existing: false,
    };
    let create = || {
        let builder = Account::builder_with_http(Box::new(http.clone()));
        builder.create(&wanted, ca.directory.clone(), key.as_ref())
    };
    let (account, credentials) = retry_bad_nonce!(create())
        .map_err(|error| failure::from_account_error(error, http, key.is_some()))?;
    if attempt.shared.is_none() {
        persist(attempt, &credentials).await.map_err(failure::new_refused)?;
    }
    tracing::info!(ca = ca.directory, account = account.id(), "registered with the CA");
    Ok((account, credentials))
}

async fn persist(attempt: &OrderAttempt, credentials: &AccountCredentials) -> Result<(), String> {
    let text = serde_json::to_vec(credentials).map_err(|error| error.to_string())?;
    let directory = attempt.ca.directory.clone();
    let written = attempt.with_folder(move |folder| folder.persist_account(&directory, &text)).await;
    written.map_err(|error| error.to_string())
}
