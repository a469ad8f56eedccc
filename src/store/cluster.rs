//! What the gateways that share one PostgreSQL database keep together beside logins: who they are,
//! what changed, certificates, operators' orders and counters. A gateway whose store is a file has
//! none of it.

use super::Store;
use super::auth::postgres::PostgresEngine;

/// The part of a shared database that belongs to the gateways themselves. Cheap to clone.
#[derive(Clone)]
pub struct ClusterStore {
    engine: PostgresEngine,
}

impl Store {
    /// Returns what this gateway shares with others; `None` if its store is a file.
    pub fn cluster(&self) -> Option<ClusterStore> {
        self.auth.postgres().cloned().map(|engine| ClusterStore { engine })
    }
}

impl ClusterStore {
    /// Returns the name of this gateway, for people: its state folder and its host.
    pub fn node_name(&self) -> &str {
        self.engine.node_name()
    }
}

impl std::fmt::Debug for ClusterStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterStore").field("node", &self.node_name()).finish_non_exhaustive()
    }
}
