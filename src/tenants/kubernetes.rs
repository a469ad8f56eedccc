//! Tenants from Kubernetes: copies the labelled Secrets of a namespace into a folder, which the
//! reconciler reads like any other.
//!
//! Promises: a copy is whole or not there; a copy goes only once the API has said that its Secret is
//! gone, in a complete list or an event; while the API is away, all copies stay. They lie in a
//! folder that only this user can read. What a Secret's files mean is the reconciler's affair.

mod copies;
mod follow;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::config::InferConfigError;
use kube::{Api, Client, Config};
use tokio_util::sync::CancellationToken;

use self::copies::SecretCopies;
use self::follow::SecretFollower;
use crate::base::task::Tasks;
use crate::telemetry::metrics::Metrics;

/// The longest silence of the API. A watch that nothing happens on is asked for anew before that.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the start waits for the API if there are copies of an earlier start.
const PATIENCE_WITH_COPIES: Duration = Duration::from_secs(10);
/// The name of the task.
const TASK: &str = "kubernetes";

/// Why tenants cannot come from Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "tenants are to come from Kubernetes (tenants_from), but no cluster is known: {0}. In a pod, let its service \
         account have a token (automountServiceAccountToken: true); elsewhere, name a kubeconfig in KUBECONFIG"
    )]
    NoCluster(String),
    #[error("no client for the API of Kubernetes can be made: {0}")]
    Client(String),
    #[error("the folder {} for copies of Secrets cannot be prepared: {cause}", folder.display())]
    Folder { folder: std::path::PathBuf, cause: std::io::Error },
}

/// The labelled Secrets of one namespace, and their copies.
pub struct TenantSecrets {
    secrets: Api<Secret>,
    namespace: String,
    copies: Arc<SecretCopies>,
}

impl TenantSecrets {
    /// Prepares the folder of the copies, and a client for the cluster of `KUBECONFIG`, or of the pod
    /// that this process is in. Sends nothing yet.
    ///
    /// # Errors
    /// No cluster is known, its certificates cannot be read, or the folder cannot be made.
    pub async fn connect(folder: &Path) -> Result<Self, Error> {
        let prepared = SecretCopies::prepare(folder);
        let copies = prepared.map_err(|cause| Error::Folder { folder: folder.to_owned(), cause })?;
        let mut config = Config::infer().await.map_err(|error| Error::NoCluster(describe(&error)))?;
        // Variables for a proxy are meant for backends; the cluster's own API is near.
        config.proxy_url = None;
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| Error::Client(error.to_string()))?;
        let secrets = Api::namespaced(client, &namespace);
        Ok(Self { secrets, namespace, copies: Arc::new(copies) })
    }

    /// Follows the Secrets from now on. Returns what fires once their copies may be read: after the
    /// first complete list, or a little later if the API is away and there are copies of before.
    pub fn start(self, metrics: Arc<Metrics>, tasks: &Tasks) -> CancellationToken {
        let filled = CancellationToken::new();
        let has_copies = self.copies.names().is_ok_and(|names| !names.is_empty());
        let follower = SecretFollower {
            secrets: self.secrets,
            namespace: self.namespace,
            copies: self.copies,
            metrics,
            filled: filled.clone(),
        };
        let (stop, late) = (tasks.shutdown_signal().clone(), filled.clone());
        let patience = async move {
            tokio::time::sleep(PATIENCE_WITH_COPIES).await;
            if has_copies && !late.is_cancelled() {
                tracing::warn!(
                    "the API of Kubernetes has not answered yet; tenants are served from the copies of their Secrets"
                );
                late.cancel();
            }
            std::future::pending::<()>().await;
        };
        tasks.spawn(TASK, async move {
            tokio::select! {
                never = follower.follow() => match never {},
                () = patience => {}
                () = stop.cancelled() => {}
            }
        });
        filled
    }
}

fn describe(error: &InferConfigError) -> String {
    format!("{error}")
}
