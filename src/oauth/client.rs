//! The clients of one tenant: which there are, where each may be sent back to, and how it proves who it is.
//!
//! A client comes through one of four doors: it registered itself (RFC 7591; its id is its metadata, sealed, so that
//! nothing is stored), it names a document about itself (Client ID Metadata Document), an operator entered it, or the
//! tenant's file lists it as a machine client.

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

/// A client that may ask for tokens.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: Arc<str>,
    /// What it calls itself: plain text, short, never trusted.
    pub name: Option<Arc<str>>,
    pub origin: Origin,
    /// At least one, unless it never sends a browser anywhere ([`Origin::Machine`]).
    pub redirect_uris: Vec<RedirectUri>,
    pub authentication: Authentication,
}

/// How a client came to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It registered itself.
    Registered,
    /// It is described by the document that its id is the URL of; `host` vouches for it. A `pinned` one is part of this
    /// program.
    Document { host: Arc<str>, pinned: bool },
    /// An operator entered it.
    Operator,
    /// The tenant's file lists it: `client_credentials`, and nothing else.
    Machine,
}

/// By what a client may prove who it is. Several may be open; it uses one at a time.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// It need not prove anything: a public client.
    pub none: bool,
    /// `client_secret_basic` with one of the secrets.
    pub basic: bool,
    /// `client_secret_post` with one of the secrets.
    pub post: bool,
    /// SHA-256 of each secret that counts.
    pub secrets: Vec<Digest>,
    /// `private_key_jwt` (RFC 7523) with one of these keys.
    pub keys: Option<Keys>,
}

/// Public keys of a client.
#[derive(Debug, Clone)]
pub enum Keys {
    /// A JWK set (RFC 7517).
    Set(Arc<Value>),
    /// Where the set is; [`Clients::keys`] fetches it under the same rules as documents.
    At(Arc<str>),
}

/// Why a client cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// There is none with this id, or no more.
    #[error("the client is unknown here")]
    Unknown,
    /// We cannot tell now: a document cannot be fetched, the store cannot be read.
    #[error("what is known of the client cannot be read now")]
    Unavailable,
    /// So much is being read of clients that nothing more is read for whoever asks.
    #[error("too much is being read of clients now")]
    Busy { wait: Duration },
}

/// Who asks about a client: for a tenant, from somewhere.
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
    /// The client with this id, for somebody at this address.
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

    /// The public keys of this client, whose authentication has [`Keys`]: a JWK set.
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

    /// Gives a client its id, unless its metadata are too long to be one.
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

    /// Asks the store about this tenant.
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
    /// Whether this may be its redirect URI: one of those it registered, byte for byte; the port of a loopback one is
    /// free (RFC 8252 section 7.3).
    pub fn may_return_to(&self, asked: &RedirectUri) -> bool {
        self.redirect_uris.iter().any(|registered| registered.admits(asked))
    }

    /// Whether the operator or this program says who it is. The others made themselves known, as anybody can.
    pub fn is_vouched_for(&self) -> bool {
        match self.origin {
            Origin::Operator | Origin::Machine => true,
            Origin::Document { pinned, .. } => pinned,
            Origin::Registered => false,
        }
    }

    /// Whether codes and refresh tokens are for it.
    pub fn acts_for_people(&self) -> bool {
        self.origin != Origin::Machine
    }
}
