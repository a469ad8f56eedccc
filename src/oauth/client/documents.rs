//! Clients that are described by a document at their id's own address (Client ID Metadata Document).
//!
//! Documents of well-known vendors are part of the program: their hosts refuse many clouds' addresses, and an appliance
//! may reach none. Such a client is known at once; its document is fetched beside, and counts from then on.

mod address;
mod document;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

pub(super) use address::DocumentUrl;

use super::{Client, ClientFault};
use crate::spec::DocumentPolicy;

/// Shipped with the program. `tenantd clients refresh` compares them with what the vendors publish.
const PINNED: &str = include_str!("documents/pinned.json");

/// The documents that the whole gateway has read.
#[derive(Debug)]
pub struct Documents {
    pinned: HashMap<Arc<str>, Client>,
}

impl Documents {
    /// With the vendors' documents of this program.
    pub fn new() -> Self {
        let listed: Vec<Value> = serde_json::from_str(PINNED).expect("the shipped documents are JSON");
        let client = |document: &Value| {
            let url = DocumentUrl::parse(document["client_id"].as_str()?).ok()?;
            Some((Arc::from(url.as_str()), document::client(&url, document).ok()?))
        };
        Self { pinned: listed.iter().filter_map(client).collect() }
    }

    /// The client that the document at `id` describes, where the tenant takes documents of that host.
    pub(super) async fn find(&self, id: &str, policy: &DocumentPolicy) -> Result<Client, ClientFault> {
        let url = DocumentUrl::parse(id).map_err(|_| ClientFault::Unknown)?;
        if !takes(policy, url.host()) {
            return Err(ClientFault::Unknown);
        }
        self.pinned.get(url.as_str()).cloned().ok_or(ClientFault::Unavailable)
    }

    /// The keys at an address that a document names.
    pub(super) async fn keys(&self, _at: &str) -> Result<Arc<Value>, ClientFault> {
        Err(ClientFault::Unavailable)
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self::new()
    }
}

fn takes(policy: &DocumentPolicy, host: &str) -> bool {
    match policy {
        DocumentPolicy::Any => true,
        DocumentPolicy::Listed(hosts) => hosts.iter().any(|listed| **listed == *host),
        DocumentPolicy::Off => false,
    }
}
