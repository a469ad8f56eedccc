//! Under which names a tenant issues tokens, and with which keys. Names come from configuration only, never from a request.

use std::sync::Arc;

use bytes::Bytes;

use super::keys::Keys;
use super::ledger::{Ledger, Unavailable};
use super::lives::Lived;
use crate::spec::{PublicUrl, Resource, TenantName};
use crate::store::Life;

/// The issuer of one tenant's tokens.
#[derive(Debug)]
pub struct Issuer {
    pub(super) tenant: TenantName,
    /// To which of the tenant's lives its keys and grants belong.
    pub(super) lived: Lived,
    pub(super) url: PublicUrl,
    /// The audience of all its tokens.
    pub(super) resource: Arc<str>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) keys: Keys,
}

impl Issuer {
    /// The issuer of a tenant. Its keys are read when they are needed first.
    pub(super) fn new(tenant: TenantName, lived: Lived, url: PublicUrl, ledger: &Arc<Ledger>) -> Arc<Self> {
        let resource = url.resource(Resource::Connector).into();
        Arc::new(Self { tenant, lived, url, resource, ledger: Arc::clone(ledger), keys: Keys::default() })
    }

    /// The tenant in the life that this is the issuer of.
    pub(super) fn life(&self) -> &Life {
        &self.lived.life
    }

    /// The public keys (RFC 7517): the one that signs, the next one, and old ones whose tokens may still be about.
    pub async fn jwks(&self) -> Result<Bytes, Unavailable> {
        Ok(self.keys.load(self).await?.jwks.clone())
    }
}
