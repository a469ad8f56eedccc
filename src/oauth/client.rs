//! The clients of one tenant: which clients exist, where each may be redirected to, and how each
//! authenticates.
//!
//! A client has one of four origins: it registered itself (RFC 7591; its id is its sealed metadata,
//! so that nothing is stored), its id is the URL of a document about it (Client ID Metadata
//! Document), an operator entered it, or the tenant's file lists it as a machine client.

mod documents;
pub mod entered;
mod machine;
mod redirect_uri;
pub(super) mod registered;
pub(super) mod text;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::registered::{Issued, Registration};
use super::ledger::Ledger;
use super::lives::Lived;
use crate::base::digest::Digest;
use crate::spec::LoginSpec;
use crate::store::{self, Life, Store};

pub use documents::{Comparison, Documents, compare_with_vendors};
pub use redirect_uri::{RedirectFault, RedirectUri};

/// A client that may request tokens.
#[derive(Debug, Clone)]
pub struct Client {
    /// The `client_id`.
    pub id: Arc<str>,
    /// The client's own name: plain text, short, never trusted.
    pub name: Option<Arc<str>>,
    /// How the client became known.
    pub origin: Origin,
    /// At least one, except for machine clients ([`Origin::Machine`]), which use no browser.
    pub redirect_uris: Vec<RedirectUri>,
    /// How the client authenticates.
    pub authentication: Authentication,
}

/// How a client became known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
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
pub struct Authentication {
    /// A public client, which needs no authentication.
    pub none: bool,
    /// `client_secret_basic` with one of the secrets.
    pub basic: bool,
    /// `client_secret_post` with one of the secrets.
    pub post: bool,
    /// The SHA-256 of each valid secret.
    pub secrets: Vec<Digest>,
    /// `private_key_jwt` (RFC 7523) with one of these keys.
    pub keys: Option<Keys>,
}

/// The public keys of a client.
#[derive(Debug, Clone)]
pub enum Keys {
    /// A JWK set (RFC 7517).
    Set(Arc<Value>),
    /// The URL of the set; [`Clients::keys`] fetches it under the rules for documents.
    At(Arc<str>),
}

/// Why a client cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// No client has this id, or it was removed.
    #[error("the client is unknown here")]
    Unknown,
    /// The client cannot be looked up now: its document cannot be fetched, or the store cannot be
    /// read.
    #[error("what is known of the client cannot be read now")]
    Unavailable,
    /// The limit on fetches is reached for this requester.
    #[error("too much is being read of clients now")]
    Busy { wait: Duration },
}

/// The party that a fetch is counted against: a tenant, and the requester's address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    tenant: &'a Arc<str>,
    source: IpAddr,
}

/// The clients of one tenant.
pub struct Clients {
    pub(super) lived: Lived,
    pub(super) login: Arc<LoginSpec>,
    pub(super) store: Arc<Store>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) documents: Arc<Documents>,
}

impl Clients {
    /// Returns the client with this id, for a requester at the address `source`.
    ///
    /// # Errors
    /// Returns `ClientFault::Unknown` if no such client exists, `Unavailable` if it cannot be
    /// looked up now, and `Busy` if its document may not be fetched now.
    pub async fn find(&self, id: &str, source: IpAddr) -> Result<Client, ClientFault> {
        if id.starts_with(registered::MARK) {
            let client = registered::client(&self.store, &self.lived, id).ok_or(ClientFault::Unknown)?;
            return match self.is_denied(id).await? {
                true => Err(ClientFault::Unknown),
                false => Ok(client),
            };
        }
        if id.starts_with("https://") {
            let asker = Asker { tenant: self.lived.life.tenant(), source };
            return self.documents.find(id, &self.login.registration.documents, asker).await;
        }
        match machine::client(&self.login, id) {
            Some(client) => Ok(client),
            None => self.found(id).await,
        }
    }

    /// Returns the JWK set of this client, whose authentication has [`Keys`].
    pub(super) async fn keys(
        &self,
        keys: &Keys,
        client: &Client,
        source: IpAddr,
    ) -> Result<Arc<Value>, ClientFault> {
        let asker = Asker { tenant: self.lived.life.tenant(), source };
        match keys {
            Keys::Set(set) => Ok(Arc::clone(set)),
            Keys::At(at) => self.documents.keys(at, client.is_vouched_for(), asker).await,
        }
    }

    /// Whether clients may register themselves.
    pub(super) fn registers(&self) -> bool {
        self.login.registration.dynamic
    }

    /// Issues a client id; returns `None` if the metadata are too long for one.
    pub(super) fn register(&self, registration: &Registration) -> Option<Issued> {
        registration.issue(&self.store, &self.lived.life)
    }

    async fn is_denied(&self, id: &str) -> Result<bool, ClientFault> {
        if self.ledger.doubts_denials(self.lived.life.tenant()) {
            return Err(ClientFault::Unavailable);
        }
        let id = id.to_owned();
        self.ask(move |store, life| store.is_denied(life, &id)).await
    }

    async fn found(&self, id: &str) -> Result<Client, ClientFault> {
        let wanted = id.to_owned();
        let document = self.ask(move |store, life| store.client(life, &wanted)).await?;
        let document = document.ok_or(ClientFault::Unknown)?;
        entered::Entered::read(&document).map(|entered| entered.client(id)).ok_or(ClientFault::Unavailable)
    }

    /// Queries the store about this tenant.
    async fn ask<T, Q>(&self, question: Q) -> Result<T, ClientFault>
    where
        T: Send + 'static,
        Q: FnOnce(&Store, &Life) -> Result<T, store::Error> + Send + 'static,
    {
        let life = self.lived.life.clone();
        let asked = self.ledger.ask(move |store| question(store, &life)).await;
        asked.map_err(|_| ClientFault::Unavailable)
    }
}

impl Client {
    /// Whether the client may use this redirect URI: one of the registered URIs, byte for byte,
    /// except that the port of a loopback URI is free (RFC 8252 section 7.3).
    pub fn may_return_to(&self, asked: &RedirectUri) -> bool {
        self.redirect_uris.iter().any(|registered| registered.admits(asked))
    }

    /// Whether the operator or this program vouches for the client. The others introduced
    /// themselves, as anyone can.
    pub fn is_vouched_for(&self) -> bool {
        match self.origin {
            Origin::Operator | Origin::Machine => true,
            Origin::Document { pinned, .. } => pinned,
            Origin::Registered => false,
        }
    }

    /// Whether the client may have codes and refresh tokens.
    pub fn acts_for_people(&self) -> bool {
        self.origin != Origin::Machine
    }
}
