//! The account with a CA: the stored one, or a new one.
//!
//! CAs limit new accounts (Let's Encrypt: ten in three hours), so orders that start at the same
//! time share one.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::attempt::{Attempt, Trouble};
use super::http::Http;
use super::patience::patiently;
use super::{eab, fault};
use crate::certs::schedule::Failure;

impl Attempt {
    /// Returns the stored account, or opens one if none is stored that can be parsed.
    pub(super) async fn account(&self, http: &Http) -> Result<Account, Trouble> {
        if let Some(credentials) = self.kept_credentials().await {
            return resume(credentials, http).await;
        }
        let lock = self.account_locks.of(&self.ca.directory);
        // Held across the CA's response on purpose: a concurrent attempt would request the same
        // account.
        let _guard = lock.lock().await;
        match self.kept_credentials().await {
            Some(opened_meanwhile) => resume(opened_meanwhile, http).await,
            None => Ok(self.open_account(http).await?),
        }
    }

    async fn kept_credentials(&self) -> Option<AccountCredentials> {
        let (directory, now) = (self.ca.directory.clone(), self.clock.now());
        self.on_disk(move |store| {
            let kept = store.account(&directory)?;
            let read = serde_json::from_str(&kept);
            read.inspect_err(|_| store.drop_account(&directory, "it cannot be understood", now)).ok()
        })
        .await
    }

    async fn open_account(&self, http: &Http) -> Result<Account, Failure> {
        let eab = self.ca.eab.as_ref().map(eab::read).transpose().map_err(|error| fault::refused(error.0))?;
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
            patiently!(create()).map_err(|error| fault::of_account(error, http, key.is_some()))?;
        self.keep_account(&credentials).await.map_err(fault::refused)?;
        tracing::info!(ca = self.ca.directory, account = account.id(), "registered with the CA");
        Ok(account)
    }

    async fn keep_account(&self, credentials: &AccountCredentials) -> Result<(), String> {
        let text = serde_json::to_vec(credentials).map_err(|error| error.to_string())?;
        let directory = self.ca.directory.clone();
        let kept = self.on_disk(move |store| store.keep_account(&directory, &text)).await;
        kept.map_err(|error| error.to_string())
    }
}

async fn resume(credentials: AccountCredentials, http: &Http) -> Result<Account, Trouble> {
    let account = Account::builder_with_http(Box::new(http.clone())).from_credentials(credentials).await;
    account.map_err(|error| fault::of(error, http).into())
}
