//! Clients that an operator enters (`tenantd clients add`), for applications that require a client
//! id and secret.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::display_text::{self, LONGEST_NAME};
use super::{ClientAuthMethods, ClientOrigin, ClientRegistry, OAuthClient, RedirectUri, RedirectUriError};
use crate::base::digest::Digest;
use crate::base::random;
use crate::base::secret::Secret;
use crate::store::auth;

const MOST_REDIRECT_URIS: usize = 20;
/// The limit per tenant, which needs a handful.
const MOST: usize = 100;

/// The operator's description of a client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClient {
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
pub struct CreatedClient {
    /// The client's id.
    pub id: String,
    /// The client's secret; `None` for a public client.
    pub secret: Option<Secret>,
}

/// A client in the operator's list.
#[derive(Debug, Clone, Serialize)]
pub struct ClientListing {
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
pub enum ClientAdminError {
    #[error("a client needs a name of one to {LONGEST_NAME} characters")]
    InvalidName,
    #[error("a client needs one to {MOST_REDIRECT_URIS} redirect URIs")]
    RedirectUriCount,
    #[error("{uri:?} is not a valid redirect URI: {fault}")]
    InvalidRedirectUri { uri: String, fault: RedirectUriError },
    #[error("the tenant already has {MOST} clients; remove the unused ones")]
    TooManyClients,
    #[error("the tenant has no such client; `tenantd clients list` lists the clients that were added")]
    UnknownClient,
    #[error("the client cannot be stored: {0}")]
    Store(auth::Error),
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

impl From<auth::Error> for ClientAdminError {
    fn from(error: auth::Error) -> Self {
        match error.kind() {
            auth::ErrorKind::Interrupted => Self::ShuttingDown,
            auth::ErrorKind::Unavailable | auth::ErrorKind::Corrupt => Self::Store(error),
        }
    }
}

/// The stored form of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PreregisteredClient {
    name: String,
    redirect_uris: Vec<String>,
    /// The SHA-256 of the secret in hexadecimal digits; `None` for a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret_sha256: Option<String>,
    entered_at: Timestamp,
}

impl ClientRegistry {
    /// Adds a client, with a new id and secret.
    ///
    /// # Errors
    /// Returns what is wrong with the entry, `ClientAdminError::TooManyClients` if the tenant has
    /// too many clients, or why the store cannot be written.
    pub async fn create(&self, entry: NewClient, now: Timestamp) -> Result<CreatedClient, ClientAdminError> {
        let secret = (!entry.public).then(|| Secret::new(format!("cs_{}", random::hex::<32>())));
        let entered = PreregisteredClient::new(entry, secret.as_ref(), now)?;
        let id = format!("op_{}", random::hex::<8>());
        let (store, incarnation) = (&self.context.store, &self.incarnation.current);
        if store.count_clients(incarnation).await? >= MOST {
            return Err(ClientAdminError::TooManyClients);
        }
        store.insert_client(incarnation, &id, entered.to_json()).await?;
        Ok(CreatedClient { id, secret })
    }

    /// Returns the clients that the operator entered.
    ///
    /// # Errors
    /// Returns why the store cannot be read.
    pub async fn list(&self) -> Result<Vec<ClientListing>, ClientAdminError> {
        let clients = self.context.store.load_clients(&self.incarnation.current).await?;
        let listing = |(id, document): (String, Vec<u8>)| {
            Some(PreregisteredClient::from_json(&document)?.into_listing(id))
        };
        Ok(clients.into_iter().filter_map(listing).collect())
    }

    /// Removes an entered client, or denies a registered one permanently. The caller must end its
    /// grants.
    ///
    /// # Errors
    /// Returns `ClientAdminError::UnknownClient` if the tenant has no such client, or why the store
    /// cannot be written.
    pub async fn remove(&self, id: &str, now: Timestamp) -> Result<(), ClientAdminError> {
        let (store, incarnation) = (&self.context.store, &self.incarnation.current);
        if super::registered::unseal_client_id(&self.keyring, &self.incarnation, id).is_some() {
            return Ok(store.mark_client_removed(incarnation, id, now).await?);
        }
        match store.delete_client(incarnation, id).await? {
            true => Ok(()),
            false => Err(ClientAdminError::UnknownClient),
        }
    }
}

impl PreregisteredClient {
    fn new(entry: NewClient, secret: Option<&Secret>, now: Timestamp) -> Result<Self, ClientAdminError> {
        if entry.redirect_uris.is_empty() || entry.redirect_uris.len() > MOST_REDIRECT_URIS {
            return Err(ClientAdminError::RedirectUriCount);
        }
        for uri in &entry.redirect_uris {
            RedirectUri::parse_trusted(uri)
                .map_err(|fault| ClientAdminError::InvalidRedirectUri { uri: uri.clone(), fault })?;
        }
        Ok(Self {
            name: display_text::sanitize_name(&entry.name).ok_or(ClientAdminError::InvalidName)?,
            redirect_uris: entry.redirect_uris,
            secret_sha256: secret.map(|secret| Digest::of(secret.expose().as_bytes()).to_string()),
            entered_at: now,
        })
    }

    pub(super) fn from_json(document: &[u8]) -> Option<Self> {
        serde_json::from_slice(document).ok()
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data can be written")
    }

    fn into_listing(self, client_id: String) -> ClientListing {
        let Self { name, redirect_uris, secret_sha256, entered_at } = self;
        ClientListing { client_id, name, redirect_uris, public: secret_sha256.is_none(), entered_at }
    }

    pub(super) fn to_client(&self, id: &str) -> OAuthClient {
        let secrets: Vec<_> = self.secret_sha256.iter().filter_map(|text| Digest::parse_hex(text)).collect();
        let has_secret = self.secret_sha256.is_some();
        OAuthClient {
            id: id.into(),
            name: Some(Arc::from(self.name.as_str())),
            origin: ClientOrigin::Operator,
            redirect_uris: self
                .redirect_uris
                .iter()
                .filter_map(|uri| RedirectUri::parse_trusted(uri).ok())
                .collect(),
            authentication: ClientAuthMethods {
                none: !has_secret,
                basic: has_secret,
                post: has_secret,
                secrets,
                keys: None,
            },
        }
    }
}
