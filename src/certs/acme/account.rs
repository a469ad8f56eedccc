//! The account with a CA: the stored one, or a new one.
//!
//! CAs limit new accounts (Let's Encrypt: ten in three hours), so orders that start at the same
//! time share one.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::bad_nonce::patiently;
use super::http::AcmeHttpClient;
use super::order_attempt::{OrderAttempt, OrderError};
use super::{eab, failure};
use crate::certs::schedule::IssuanceFailure;

impl OrderAttempt {
    /// Returns the stored account, or opens one if none is stored that can be parsed.
    pub(super) async fn load_or_open_account(&self, http: &AcmeHttpClient) -> Result<Account, OrderError> {
        if let Some(credentials) = self.load_credentials().await {
            return resume_account(credentials, http).await;
        }
        let lock = self.account_locks.lock_for(&self.ca.directory);
        // Held across the CA's response on purpose: a concurrent attempt would request the same
        // account.
        let _guard = lock.lock().await;
        match self.load_credentials().await {
            Some(opened_meanwhile) => resume_account(opened_meanwhile, http).await,
            None => Ok(self.open_account(http).await?),
        }
    }

    async fn load_credentials(&self) -> Option<AccountCredentials> {
        let (directory, now) = (self.ca.directory.clone(), self.clock.now());
        self.with_folder(move |store| {
            let kept = store.load_account(&directory)?;
            let read = serde_json::from_str(&kept);
            read.inspect_err(|_| store.set_account_aside(&directory, "it cannot be understood", now)).ok()
        })
        .await
    }

    async fn open_account(&self, http: &AcmeHttpClient) -> Result<Account, IssuanceFailure> {
        let eab = self
            .ca
            .eab
            .as_ref()
            .map(eab::read_binding)
            .transpose()
            .map_err(|error| failure::new_refused(error.0))?;
        let key = eab.as_ref().map(|eab| ExternalAccountKey::new(eab.kid.clone(), &eab.key));
        let contact: Vec<String> = self.acme.contact.iter().map(|mail| format!("mailto:{mail}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: self.acme.accept_tos,
            only_return_existing: false,
        };
        let create = || {
            let builder = Account::builder_with_http(Box::new(http.clone()));
            builder.create(&wanted, self.ca.directory.clone(), key.as_ref())
        };
        let (account, credentials) =
            patiently!(create()).map_err(|error| failure::from_account_error(error, http, key.is_some()))?;
        self.persist_account(&credentials).await.map_err(failure::new_refused)?;
        tracing::info!(ca = self.ca.directory, account = account.id(), "registered with the CA");
        Ok(account)
    }

    async fn persist_account(&self, credentials: &AccountCredentials) -> Result<(), String> {
        let text = serde_json::to_vec(credentials).map_err(|error| error.to_string())?;
        let directory = self.ca.directory.clone();
        let kept = self.with_folder(move |store| store.persist_account(&directory, &text)).await;
        kept.map_err(|error| error.to_string())
    }
}

async fn resume_account(
    credentials: AccountCredentials,
    http: &AcmeHttpClient,
) -> Result<Account, OrderError> {
    let account = Account::builder_with_http(Box::new(http.clone())).from_credentials(credentials).await;
    account.map_err(|error| failure::from_acme_error(error, http).into())
}
