//! The clients of one tenant: which clients exist, where each may be redirected to, and how each
//! authenticates.
//!
//! A client has one of four origins: it registered itself (RFC 7591; its id is its sealed metadata,
//! so that nothing is stored), its id is the URL of a document about it (Client ID Metadata
//! Document), an operator entered it, or the tenant's file lists it as a machine client.

pub(super) mod assertion;
pub(super) mod display_text;
mod documents;
mod machine_client;
pub mod preregistered;
mod redirect_uri;
pub(super) mod registered;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::registered::{ClientRegistration, IssuedClient};
use super::context::AuthContext;
use super::error::Unavailable;
use super::incarnations::TenantIncarnation;
use crate::base::digest::Digest;
use crate::spec::LoginSpec;
use crate::store::Keyring;

pub use documents::{ClientDocuments, DocumentComparison, compare_with_vendors};
pub use redirect_uri::{RedirectUri, RedirectUriError};

/// A client that may request tokens.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// The `client_id`.
    pub id: Arc<str>,
    /// The client's own name: plain text, short, never trusted.
    pub name: Option<Arc<str>>,
    /// How the client became known.
    pub origin: ClientOrigin,
    /// At least one, except for machine clients ([`ClientOrigin::Machine`]), which use no browser.
    pub redirect_uris: Vec<RedirectUri>,
    /// How the client authenticates.
    pub authentication: ClientAuthMethods,
}

/// How a client became known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOrigin {
    /// It registered itself.
    Registered,
    /// The document at the client id's URL describes it; `host` vouches for it. A `pinned` document
    /// is part of this program.
    Document { host: Arc<str>, pinned: bool },
    /// An operator entered it.
    Operator,
    /// The tenant's file lists it, for `client_credentials` only.
    Machine,
}

/// The authentication methods of a client. Several can be allowed; a request uses one.
#[derive(Debug, Clone, Default)]
pub struct ClientAuthMethods {
    /// A public client, which needs no authentication.
    pub none: bool,
    /// `client_secret_basic` with one of the secrets.
    pub basic: bool,
    /// `client_secret_post` with one of the secrets.
    pub post: bool,
    /// The SHA-256 of each valid secret.
    pub secrets: Vec<Digest>,
    /// `private_key_jwt` (RFC 7523) with one of these keys.
    pub keys: Option<ClientKeys>,
}

/// The public keys of a client.
#[derive(Debug, Clone)]
pub enum ClientKeys {
    /// A JWK set (RFC 7517).
    Inline(Arc<Value>),
    /// The URL of the set; [`ClientRegistry::load_keys`] fetches it under the rules for documents.
    Url(Arc<str>),
}

/// Why a client cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientLookupError {
    /// No client has this id, or it was removed.
    #[error("this server does not know the client")]
    Unknown,
    /// The client cannot be looked up now: its document cannot be fetched, or the store cannot be
    /// read.
    #[error("the client's data cannot be read now")]
    Unavailable,
    /// The limit on fetches is reached for this requester.
    #[error("too many clients' documents are being read now")]
    Busy { wait: Duration },
}

impl From<Unavailable> for ClientLookupError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// What a fetch is counted against: a tenant, and the requester's address.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupContext<'a> {
    tenant: &'a Arc<str>,
    source: IpAddr,
}

/// The clients of one tenant.
pub struct ClientRegistry {
    /// The life of the tenant that these clients belong to: a tenant that is removed and added
    /// again is another.
    pub(super) incarnation: TenantIncarnation,
    pub(super) login: Arc<LoginSpec>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) context: Arc<AuthContext>,
    pub(super) documents: Arc<ClientDocuments>,
}

impl ClientRegistry {
    /// Returns the client with this id, for a requester at the address `source`.
    ///
    /// # Errors
    /// Returns `ClientLookupError::Unknown` if no such client exists, `Unavailable` if it cannot be
    /// looked up now, and `Busy` if its document may not be fetched now.
    pub async fn find(&self, id: &str, source: IpAddr) -> Result<OAuthClient, ClientLookupError> {
        if id.starts_with(registered::ID_PREFIX) {
            let client = registered::unseal_client_id(&self.keyring, &self.incarnation, id)
                .ok_or(ClientLookupError::Unknown)?;
            return match self.is_removed(id).await? {
                true => Err(ClientLookupError::Unknown),
                false => Ok(client),
            };
        }
        if id.starts_with("https://") {
            let lookup_context = LookupContext { tenant: self.incarnation.current.tenant(), source };
            return self.documents.find_client(id, &self.login.registration.documents, lookup_context).await;
        }
        match machine_client::find(&self.login, id) {
            Some(client) => Ok(client),
            None => self.find_preregistered(id).await,
        }
    }

    /// Returns the JWK set of this client, whose authentication has [`ClientKeys`].
    pub(super) async fn load_keys(
        &self,
        keys: &ClientKeys,
        client: &OAuthClient,
        source: IpAddr,
    ) -> Result<Arc<Value>, ClientLookupError> {
        let lookup_context = LookupContext { tenant: self.incarnation.current.tenant(), source };
        match keys {
            ClientKeys::Inline(set) => Ok(Arc::clone(set)),
            ClientKeys::Url(at) => {
                self.documents.find_keys(at, client.is_vouched_for(), lookup_context).await
            }
        }
    }

    /// Whether clients may register themselves.
    pub(super) fn allows_registration(&self) -> bool {
        self.login.registration.dynamic
    }

    /// Issues a client id; returns `None` if the metadata are too long for one.
    pub(super) fn register(&self, registration: &ClientRegistration) -> Option<IssuedClient> {
        registration.issue(&self.keyring, &self.incarnation.current)
    }

    async fn is_removed(&self, id: &str) -> Result<bool, ClientLookupError> {
        if self.context.has_unreadable_removals(self.incarnation.current.tenant()) {
            return Err(ClientLookupError::Unavailable);
        }
        let removed = self.context.store.is_client_removed(&self.incarnation.current, id).await;
        Ok(removed.map_err(Unavailable::from_store)?)
    }

    async fn find_preregistered(&self, id: &str) -> Result<OAuthClient, ClientLookupError> {
        let document = self.context.store.load_client(&self.incarnation.current, id).await;
        let document = document.map_err(Unavailable::from_store)?;
        let document = document.ok_or(ClientLookupError::Unknown)?;
        preregistered::PreregisteredClient::from_json(&document)
            .map(|client| client.to_client(id))
            .ok_or(ClientLookupError::Unavailable)
    }
}

impl OAuthClient {
    /// Whether the client may use this redirect URI: one of the registered URIs, byte for byte,
    /// except that the port of a loopback URI is free (RFC 8252 section 7.3).
    pub fn allows_redirect_to(&self, asked: &RedirectUri) -> bool {
        self.redirect_uris.iter().any(|registered| registered.matches(asked))
    }

    /// Whether the operator or this program vouches for the client. The others introduced
    /// themselves, as anyone can.
    pub fn is_vouched_for(&self) -> bool {
        match self.origin {
            ClientOrigin::Operator | ClientOrigin::Machine => true,
            ClientOrigin::Document { pinned, .. } => pinned,
            ClientOrigin::Registered => false,
        }
    }

    /// Whether the client may have codes and refresh tokens.
    pub fn acts_for_people(&self) -> bool {
        self.origin != ClientOrigin::Machine
    }
}
