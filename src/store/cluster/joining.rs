//! Joining the nodes of a database that was away when the gateway started. Nothing of it is used
//! before it is known to be the same one, of a version that this program can use, and sealed with
//! this gateway's master key.

use std::path::PathBuf;
use std::sync::Arc;

use super::{ClusterStore, changes, nodes};
use crate::store::Error;
use crate::store::auth::postgres::DatabaseProbe;

/// A database that is away, and will be joined.
pub struct Joining {
    probe: DatabaseProbe,
    cluster: ClusterStore,
    /// The file of the store, which remembers the database.
    file: PathBuf,
}

impl Joining {
    pub(in crate::store) fn new(probe: DatabaseProbe, cluster: ClusterStore, file: PathBuf) -> Self {
        Self { probe, cluster, file }
    }

    /// Returns the part of the database that is joined.
    pub fn cluster(&self) -> &ClusterStore {
        &self.cluster
    }

    /// Joins the database. From then on it can be asked.
    ///
    /// # Errors
    /// As for [`Store::connect_auth`](crate::store::Store::connect_auth).
    pub async fn attempt(&self) -> Result<(), Error> {
        let joined = Box::pin(self.try_join()).await;
        let told = joined.as_ref().err().map(|error| Arc::new(error.to_string()));
        self.cluster.wait.store(told);
        joined
    }

    async fn try_join(&self) -> Result<(), Error> {
        let (probe, cluster) = (&self.probe, &self.cluster);
        if probe.prepare().await? != *cluster.engine.database_id() {
            let shown = probe.link().shown().to_owned();
            return Err(Error::OtherDatabase { file: self.file.clone(), shown });
        }
        nodes::register(probe.link(), &cluster.node).await?;
        // Before anything is loaded: what changes from here on is heard of.
        cluster.begin_at(changes::load_cursor(probe.link()).await?);
        cluster.engine.link().open();
        Ok(())
    }
}
