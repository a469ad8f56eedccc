//! An operator's commands about one entry: pause, resume, roll back, accept, remove. A command is
//! persisted before it is answered; if that fails it is executed all the same, and the answer says
//! so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reconciler::{ChangedEntries, Reconciler};
use crate::base::diagnostic::Report;
use crate::bundle::{self, Snapshot};
use crate::store::{self, LocalStore, TenantOrder};
use crate::tenants::TenantsSource;
use crate::tenants::entry::Candidate;
use crate::tenants::status::TenantStatus;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Stop serving until resumed.
    Pause,
    /// Serve again after a pause.
    Resume,
    /// Put this revision in force until the files change.
    RollBack(u64),
    /// Accept the rejected claim of its files.
    Accept,
    /// Put the change in force that is held back, if its digest begins with these digits.
    Approve(Option<String>),
    /// Delete its files and everything stored about it.
    Remove,
}

/// The result of a command that was executed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CommandOutcome {
    /// The status of the entry now; `None` if it was removed.
    pub tenant: Option<TenantStatus>,
    /// Whether the change survives a restart.
    pub kept: bool,
}

/// Why a command was not executed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("there is no tenant with this name; \"tenantd tenants list\" lists all of them")]
    NotFound,
    #[error("this gateway stores no revisions, because it could not write its state folder at start")]
    NoStore,
    #[error("revision {0} is not stored; \"tenantd tenants history NAME\" lists the stored revisions")]
    NoRevision(u64),
    #[error("revision {number} would be refused by today's rules")]
    Rejected { number: u64, report: Report },
    #[error("revision {number} cannot be put in force: {why}")]
    NotActivated { number: u64, why: String },
    #[error("this tenant has no refused claim to accept")]
    NothingToAccept,
    #[error("no change of this tenant waits for approval")]
    NothingToApprove,
    #[error(
        "the files changed again: the change that waits is {0}; look at it (tenantd tenants diff NAME), then \
         approve that one"
    )]
    OtherChange(String),
    #[error("it cannot be accepted: {0}")]
    ClaimHeld(String),
    #[error("this is the only tenant of this gateway (tenantd run); stop the gateway instead")]
    SingleTenant,
    #[error(
        "the files of this tenant are the Secret {0} of Kubernetes: delete that (kubectl delete secret {0}), and \
         the tenant ends; `tenantd tenants pause` stops it until you resume it"
    )]
    TenantIsSecret(String),
    #[error("the claim is accepted, but the tenant cannot be built")]
    BuildFailed(Report),
    #[error("{} cannot be removed: {source}", path.display())]
    FileRemoval { path: PathBuf, source: std::io::Error },
    #[error(
        "the other gateways would not hear of this order, so nothing was done; try again when the database can be \
         used: {0}"
    )]
    NotShared(store::Error),
    #[error("{0}")]
    Store(store::Error),
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

impl From<store::Error> for CommandError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Interrupted => Self::ShuttingDown,
            error => Self::Store(error),
        }
    }
}

impl Reconciler {
    /// Executes a command about the entry with this name or id.
    pub(super) async fn execute(
        &mut self,
        name: &str,
        command: Command,
    ) -> Result<CommandOutcome, CommandError> {
        let entry_id = self.registry.load().find_entry(name).map(|entry| entry.status().stem);
        let entry_id: Arc<str> = entry_id.ok_or(CommandError::NotFound)?.into();
        let kept = match command {
            Command::Pause => self.set_paused(&entry_id, true).await?,
            Command::Resume => self.set_paused(&entry_id, false).await?,
            Command::RollBack(number) => self.roll_back(&entry_id, number).await?,
            Command::Accept => self.accept_claim(&entry_id).await?,
            Command::Approve(digest) => self.approve_change(&entry_id, digest.as_deref()).await?,
            Command::Remove => self.delete_entry(&entry_id).await?,
        };
        let tenant = self.registry.load().find_entry(&entry_id).map(|entry| entry.status());
        Ok(CommandOutcome { tenant, kept })
    }

    async fn set_paused(&mut self, entry_id: &Arc<str>, is_paused: bool) -> Result<bool, CommandError> {
        self.give_order(entry_id, TenantOrder::Pause(is_paused), None).await?;
        if let Some(entry) = self.entries.get_mut(entry_id) {
            entry.set_paused(is_paused, self.tenant_deps.builder(entry_id));
        }
        let kept = self.revision_writer.write_pause(entry_id, is_paused).await;
        tracing::info!(entry = %entry_id, paused = is_paused, kept, "an operator paused or resumed a tenant");
        let mut changed = ChangedEntries::from([Arc::clone(entry_id)]);
        self.resolve_and_build(&mut changed);
        self.persist(&changed).await;
        self.publish(&changed).await;
        Ok(kept)
    }

    async fn roll_back(&mut self, entry_id: &Arc<str>, number: u64) -> Result<bool, CommandError> {
        let revision = self.load_revision(entry_id, number).await?;
        let before = self.share_rollback(entry_id, (number, revision.revision())).await?;
        self.entries.get_mut(entry_id).ok_or(CommandError::NotFound)?.roll_back(revision);
        let mut changed = ChangedEntries::from([Arc::clone(entry_id)]);
        self.resolve_and_build(&mut changed);
        let entry = self.entries.get_mut(entry_id).ok_or(CommandError::NotFound)?;
        if let Some(why) = entry.take_rollback_failure() {
            // The candidate that it had before is decided again.
            self.resolve_and_build(&mut changed);
            self.publish(&changed).await;
            self.take_back(entry_id, before).await;
            return Err(CommandError::NotActivated { number, why: why.into() });
        }
        let kept = self.revision_writer.write_pin(entry_id, number, entry.pinned_digest()).await;
        tracing::info!(entry = %entry_id, revision = number, kept, "an operator rolled a tenant back");
        self.persist(&changed).await;
        self.publish(&changed).await;
        Ok(kept)
    }

    async fn accept_claim(&mut self, entry_id: &Arc<str>) -> Result<bool, CommandError> {
        let entry = self.entries.get_mut(entry_id).ok_or(CommandError::NotFound)?;
        let rejected = entry.rejected_revision().ok_or(CommandError::NothingToAccept)?;
        self.give_order(entry_id, TenantOrder::Accept(Some(rejected)), None).await?;
        self.entries.get_mut(entry_id).ok_or(CommandError::NotFound)?.force();
        let decided = self.decide_again(entry_id).await;
        if decided.is_err() {
            self.take_back(entry_id, TenantOrder::Accept(None)).await;
        }
        let kept = decided?;
        tracing::info!(entry = %entry_id, kept, "an operator accepted a tenant's claim");
        Ok(kept)
    }

    async fn approve_change(
        &mut self,
        entry_id: &Arc<str>,
        digest: Option<&str>,
    ) -> Result<bool, CommandError> {
        let entry = self.entries.get_mut(entry_id).ok_or(CommandError::NotFound)?;
        let held = entry.held_change().ok_or(CommandError::NothingToApprove)?.revision;
        if digest.is_some_and(|digest| digest.len() < 8 || !held.to_string().starts_with(digest)) {
            return Err(CommandError::OtherChange(held.short()));
        }
        self.give_order(entry_id, TenantOrder::Approve(held), None).await?;
        self.entries.get_mut(entry_id).ok_or(CommandError::NotFound)?.approve();
        let kept = self.decide_again(entry_id).await?;
        tracing::info!(entry = %entry_id, revision = %held.short(), kept, "an operator approved a change");
        Ok(kept)
    }

    /// Decides an entry's candidate again, after an order about it. Returns whether the result is
    /// persisted.
    async fn decide_again(&mut self, entry_id: &Arc<str>) -> Result<bool, CommandError> {
        let mut changed = ChangedEntries::from([Arc::clone(entry_id)]);
        self.resolve_and_build(&mut changed);
        let entry = self.entries.get(entry_id).ok_or(CommandError::NotFound)?;
        let rejection = entry.rejection().map(|rejection| rejection.message.clone());
        let errors = entry.error_report().cloned();
        self.persist(&changed).await;
        self.publish(&changed).await;
        if let Some(why) = rejection {
            return Err(CommandError::ClaimHeld(why));
        }
        if let Some(report) = errors {
            return Err(CommandError::BuildFailed(report));
        }
        Ok(self.revision_writer.is_persisted(entry_id))
    }

    /// Loads a persisted revision by today's rules.
    async fn load_revision(&mut self, entry_id: &Arc<str>, number: u64) -> Result<Candidate, CommandError> {
        self.persist(&ChangedEntries::new()).await;
        let store = self.revision_writer.store().ok_or(CommandError::NoStore)?;
        let documents = load_documents(store, entry_id, number).await?;
        let (folder, context) = (Arc::clone(self.folder.path()), Arc::clone(&self.context));
        let validate = move || {
            let snapshot = decode_snapshot(&documents, number)?;
            let loaded = bundle::load_snapshot(&snapshot, &folder, &context);
            let report = loaded.report.clone();
            let candidate = Candidate::stored(loaded, number, snapshot.files(&folder).into());
            candidate.ok_or(CommandError::Rejected { number, report })
        };
        tokio::task::spawn_blocking(validate).await.map_err(|_| CommandError::NoRevision(number))?
    }

    async fn delete_entry(&mut self, entry_id: &Arc<str>) -> Result<bool, CommandError> {
        match &**self.folder.source() {
            TenantsSource::Folder(_) => {}
            TenantsSource::Single(_) => return Err(CommandError::SingleTenant),
            TenantsSource::Kubernetes(_) => return Err(CommandError::TenantIsSecret(entry_id.to_string())),
        }
        let files = self.entries.get(entry_id).map(|entry| entry.files().to_vec()).unwrap_or_default();
        let own_folder = self.folder.path().join(&**entry_id);
        let deleting = tokio::task::spawn_blocking(move || delete_files(&files, &own_folder));
        deleting.await.map_err(|_| CommandError::ShuttingDown)??;
        let mut changed = ChangedEntries::from([Arc::clone(entry_id)]);
        self.revoke_access(entry_id);
        self.remove_entry(entry_id);
        self.resolve_and_build(&mut changed);
        self.persist(&changed).await;
        let forgotten = self.revision_writer.delete_entry(entry_id).await;
        self.revision_writer.forget(entry_id);
        let ended = self.end_lives(entry_id).await;
        let orders_forgotten = self.forget_orders(entry_id).await;
        self.publish(&changed).await;
        Ok(forgotten && ended && orders_forgotten)
    }

    /// Revokes all access to the tenant, including calls in flight.
    pub(super) fn revoke_access(&self, entry_id: &str) {
        if let Some(tenant) = self.entries.get(entry_id).and_then(|entry| entry.tenant()) {
            tenant.slot.access_revocations.revoke_all();
        }
    }
}

/// Returns the documents of a persisted revision.
pub(super) async fn load_documents(
    store: &LocalStore,
    entry_id: &str,
    number: u64,
) -> Result<Vec<u8>, CommandError> {
    store.load_documents(entry_id, number).await?.ok_or(CommandError::NoRevision(number))
}

/// Decodes what a persisted revision was read from.
pub(super) fn decode_snapshot(documents: &[u8], number: u64) -> Result<Snapshot, CommandError> {
    Snapshot::decode(documents).ok_or(CommandError::NoRevision(number))
}

fn delete_files(files: &[PathBuf], own_folder: &Path) -> Result<(), CommandError> {
    let gone = |path: &Path, removed: std::io::Result<()>| match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(CommandError::FileRemoval { path: path.to_owned(), source })
        }
        _ => Ok(()),
    };
    let (inside, beside): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.starts_with(own_folder));
    beside.iter().try_for_each(|file| gone(file, std::fs::remove_file(file)))?;
    match inside.is_empty() {
        true => Ok(()),
        false => gone(own_folder, std::fs::remove_dir_all(own_folder)),
    }
}
