//! Clients that an operator enters (`tenantd clients add`), for applications that require a client
//! id and secret.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text::{self, LONGEST_NAME};
use super::{Authentication, Client, Clients, Origin, RedirectFault, RedirectUri};
use crate::base::digest::Digest;
use crate::base::random;
use crate::base::secret::Secret;
use crate::store::{self, Life, Store};

const MOST_REDIRECT_URIS: usize = 20;
/// The limit per tenant, which needs a handful.
const MOST: usize = 100;

/// The operator's description of a client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that people see.
    pub name: String,
    /// Where the client may be redirected to.
    pub redirect_uris: Vec<String>,
    /// Whether the client gets no secret, because it could not keep one.
    #[serde(default)]
    pub public: bool,
}

/// The credentials of a new client. The secret is shown this once.
#[derive(Debug)]
pub struct Added {
    /// The client's id.
    pub id: String,
    /// The client's secret; `None` for a public client.
    pub secret: Option<Secret>,
}

/// A client in the operator's list.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The client's id.
    pub client_id: String,
    /// The name that people see.
    pub name: String,
    /// Where the client may be redirected to.
    pub redirect_uris: Vec<String>,
    /// Whether the client has no secret.
    pub public: bool,
    /// When the operator entered it.
    pub entered_at: Timestamp,
}

/// Why a client is not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("a client needs a name of one to {LONGEST_NAME} characters")]
    Name,
    #[error("a client needs one to {MOST_REDIRECT_URIS} redirect URIs")]
    Number,
    #[error("{uri:?} is no redirect URI: {fault}")]
    RedirectUri { uri: String, fault: RedirectFault },
    #[error("the tenant has {MOST} clients already; remove those that nobody uses")]
    Many,
    #[error("the tenant has no such client; `tenantd clients list` names those that were entered")]
    Unknown,
    #[error("the client cannot be kept: {0}")]
    Store(#[from] store::Error),
    #[error("the gateway is shutting down")]
    Ending,
}

/// The stored form of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entered {
    name: String,
    redirect_uris: Vec<String>,
    /// The SHA-256 of the secret in hexadecimal digits; `None` for a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret_sha256: Option<String>,
    entered_at: Timestamp,
}

impl Clients {
    /// Adds a client, with a new id and secret.
    ///
    /// # Errors
    /// Returns what is wrong with the entry, `Refused::Many` if the tenant has too many clients, or
    /// why the store cannot be written.
    pub async fn enter(&self, entry: Entry, now: Timestamp) -> Result<Added, Refused> {
        let secret = (!entry.public).then(|| Secret::new(format!("cs_{}", random::hex::<32>())));
        let entered = Entered::new(entry, secret.as_ref(), now)?;
        let id = format!("op_{}", random::hex::<8>());
        let kept = id.clone();
        self.change(move |store, life| {
            if store.client_ids(life)?.len() >= MOST {
                return Err(Refused::Many);
            }
            store.add_client(life, &kept, &entered.written())?;
            Ok(())
        })
        .await?;
        Ok(Added { id, secret })
    }

    /// Returns the clients that the operator entered.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub async fn entered(&self) -> Result<Vec<Listed>, Refused> {
        self.change(|store, life| {
            let read = |id: String| {
                let document = store.client(life, &id)?;
                Ok(document.and_then(|document| Some(Entered::read(&document)?.listed(id))))
            };
            let ids = store.client_ids(life)?;
            ids.into_iter().filter_map(|id| read(id).transpose()).collect()
        })
        .await
    }

    /// Removes an entered client, or denies a registered one permanently. The caller must end its
    /// grants.
    ///
    /// # Errors
    /// Returns `Refused::Unknown` if the tenant has no such client, or why the store cannot be
    /// written.
    pub async fn remove(&self, id: &str, now: Timestamp) -> Result<(), Refused> {
        let registered = super::registered::client(&self.store, &self.lived, id).is_some();
        let id = id.to_owned();
        self.change(move |store, life| match registered {
            true => Ok(store.deny_client(life, &id, now)?),
            false if store.remove_client(life, &id)? => Ok(()),
            false => Err(Refused::Unknown),
        })
        .await
    }

    async fn change<T, C>(&self, change: C) -> Result<T, Refused>
    where
        T: Send + 'static,
        C: FnOnce(&Store, &Life) -> Result<T, Refused> + Send + 'static,
    {
        let (store, life) = (Arc::clone(&self.store), self.lived.life.clone());
        let changed = tokio::task::spawn_blocking(move || change(&store, &life));
        changed.await.map_err(|_| Refused::Ending)?
    }
}

impl Entered {
    fn new(entry: Entry, secret: Option<&Secret>, now: Timestamp) -> Result<Self, Refused> {
        if entry.redirect_uris.is_empty() || entry.redirect_uris.len() > MOST_REDIRECT_URIS {
            return Err(Refused::Number);
        }
        for uri in &entry.redirect_uris {
            RedirectUri::parse_entered(uri)
                .map_err(|fault| Refused::RedirectUri { uri: uri.clone(), fault })?;
        }
        Ok(Self {
            name: text::name(&entry.name).ok_or(Refused::Name)?,
            redirect_uris: entry.redirect_uris,
            secret_sha256: secret.map(|secret| Digest::of(secret.expose().as_bytes()).to_string()),
            entered_at: now,
        })
    }

    pub(super) fn read(document: &[u8]) -> Option<Self> {
        serde_json::from_slice(document).ok()
    }

    fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data can be written")
    }

    fn listed(self, client_id: String) -> Listed {
        let Self { name, redirect_uris, secret_sha256, entered_at } = self;
        Listed { client_id, name, redirect_uris, public: secret_sha256.is_none(), entered_at }
    }

    pub(super) fn client(&self, id: &str) -> Client {
        let secrets: Vec<_> = self.secret_sha256.iter().filter_map(|text| Digest::parse_hex(text)).collect();
        let has_secret = self.secret_sha256.is_some();
        Client {
            id: id.into(),
            name: Some(Arc::from(self.name.as_str())),
            origin: Origin::Operator,
            redirect_uris: self
                .redirect_uris
                .iter()
                .filter_map(|uri| RedirectUri::parse_entered(uri).ok())
                .collect(),
            authentication: Authentication {
                none: !has_secret,
                basic: has_secret,
                post: has_secret,
                secrets,
                keys: None,
            },
        }
    }
}
