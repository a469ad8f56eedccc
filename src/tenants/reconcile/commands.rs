//! An operator's orders about one entry: pause, resume, roll back, accept, remove. An order is
//! persisted before it is answered; if that fails it is still carried out, and the answer says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pass::{ChangedEntries, Reconciler};
use super::read::build_tenant;
use crate::base::diagnostic::Report;
use crate::bundle::{self, LoadOutcome, Snapshot};
use crate::store::{self, Store};
use crate::tenants::status::TenantStatus;

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop serving until resumed.
    Pause,
    /// Serve again after a pause.
    Resume,
    /// Put this revision in force until the files change.
    RollBack(u64),
    /// Accept the claim of its files that was refused because another entry held it.
    Accept,
    /// Delete its files and everything stored about it.
    Remove,
}

/// The result of an order that was carried out.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CommandOutcome {
    /// The status of the entry now; `None` if it was removed.
    pub tenant: Option<TenantStatus>,
    /// Whether the change survives a restart.
    pub kept: bool,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("no tenant of this name; \"tenantd tenants list\" names them all")]
    NotFound,
    #[error("this gateway keeps no revisions: it could not write its state folder when it started")]
    NoStore,
    #[error("revision {0} is not kept; \"tenantd tenants history NAME\" lists those that are")]
    NoRevision(u64),
    #[error("revision {number} would be refused today")]
    Rejected { number: u64, report: Report },
    #[error("revision {number} cannot be put in force: {why}")]
    NotActivated { number: u64, why: String },
    #[error("nothing of this tenant waits to be accepted: no claim of its files was refused")]
    NothingToAccept,
    #[error("it cannot be accepted: {0}")]
    ClaimHeld(String),
    #[error("the claim is accepted, but the tenant cannot be built")]
    BuildFailed(Report),
    #[error("{} cannot be removed: {source}", path.display())]
    FileRemoval { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

impl Reconciler {
    /// Carries out an order about the entry with this name or stem.
    pub(super) async fn execute(
        &mut self,
        name: &str,
        order: Command,
    ) -> Result<CommandOutcome, CommandError> {
        let stem = self.registry.load().find_entry(name).map(|entry| entry.status().stem);
        let stem: Arc<str> = stem.ok_or(CommandError::NotFound)?.into();
        let kept = match order {
            Command::Pause => self.set_paused(&stem, true).await,
            Command::Resume => self.set_paused(&stem, false).await,
            Command::RollBack(number) => self.roll_back(&stem, number).await?,
            Command::Accept => self.accept_claim(&stem).await?,
            Command::Remove => self.delete_entry(&stem).await?,
        };
        let tenant = self.registry.load().find_entry(&stem).map(|entry| entry.status());
        Ok(CommandOutcome { tenant, kept })
    }

    async fn set_paused(&mut self, stem: &Arc<str>, paused: bool) -> bool {
        if let Some(known) = self.entries.get_mut(stem) {
            known.set_paused(paused, |spec, revision, slot| {
                build_tenant(&self.tenant_deps, stem, spec, revision, slot)
            });
        }
        let written = stem.to_string();
        let kept = self.write_store(stem, move |store| store.set_paused(&written, paused)).await;
        tracing::info!(entry = %stem, paused, kept, "an operator paused or resumed a tenant");
        self.republish(stem).await;
        kept
    }

    async fn roll_back(&mut self, stem: &Arc<str>, number: u64) -> Result<bool, CommandError> {
        let (loaded, files) = self.load_revision(stem, number).await?;
        let Some(known) = self.entries.get_mut(stem) else { return Err(CommandError::NotFound) };
        if loaded.spec.is_none() {
            return Err(CommandError::Rejected { number, report: loaded.report });
        }
        let before = known.stage_rollback(loaded, number, files);
        let mut changed = ChangedEntries::from([Arc::clone(stem)]);
        self.resolve_and_build(&mut changed);
        let Some(known) = self.entries.get_mut(stem) else { return Err(CommandError::NotFound) };
        if let Err(why) = known.commit_rollback(number, before) {
            // The candidate that it had before is decided again.
            self.resolve_and_build(&mut changed);
            self.publish(&changed).await;
            return Err(CommandError::NotActivated { number, why });
        }
        let (written, against) = (stem.to_string(), known.pinned_digest());
        let kept = self.write_store(stem, move |store| store.pin_revision(&written, number, against)).await;
        tracing::info!(entry = %stem, revision = number, kept, "an operator rolled a tenant back");
        self.persist(&changed).await;
        self.publish(&changed).await;
        Ok(kept)
    }

    async fn accept_claim(&mut self, stem: &Arc<str>) -> Result<bool, CommandError> {
        let known = self.entries.get_mut(stem).ok_or(CommandError::NotFound)?;
        if !known.force_candidate() {
            return Err(CommandError::NothingToAccept);
        }
        let mut changed = ChangedEntries::from([Arc::clone(stem)]);
        self.resolve_and_build(&mut changed);
        let known = self.entries.get_mut(stem).ok_or(CommandError::NotFound)?;
        let (admitted, unfit) = (known.finish_forced(), known.error_report().cloned());
        self.persist(&changed).await;
        self.publish(&changed).await;
        admitted.map_err(CommandError::ClaimHeld)?;
        if let Some(report) = unfit {
            return Err(CommandError::BuildFailed(report));
        }
        let kept = self.revision_writer.is_persisted(stem);
        tracing::info!(entry = %stem, kept, "an operator accepted a tenant's claim");
        Ok(kept)
    }

    /// Loads a persisted revision by today's rules.
    async fn load_revision(
        &mut self,
        stem: &Arc<str>,
        number: u64,
    ) -> Result<(LoadOutcome, Arc<[PathBuf]>), CommandError> {
        self.persist(&ChangedEntries::new()).await;
        let store = self.revision_writer.store().cloned().ok_or(CommandError::NoStore)?;
        let (stem, folder, context) = (Arc::clone(stem), self.folder.clone(), Arc::clone(&self.context));
        let read = move || -> Result<_, CommandError> {
            let documents = store.load_documents(&stem, number)?.ok_or(CommandError::NoRevision(number))?;
            let snapshot = Snapshot::decode(&documents).ok_or(CommandError::NoRevision(number))?;
            let loaded = bundle::load_snapshot(&snapshot, &folder, &context);
            Ok((loaded, snapshot.files(&folder).into()))
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| CommandError::NoRevision(number))?
    }

    async fn delete_entry(&mut self, stem: &Arc<str>) -> Result<bool, CommandError> {
        let files = self.entries.get(stem).map(|known| known.files().to_vec()).unwrap_or_default();
        let own_folder = self.folder.join(&**stem);
        let deleting = tokio::task::spawn_blocking(move || delete_files(&files, &own_folder));
        deleting.await.map_err(|_| CommandError::ShuttingDown)??;
        let mut changed = ChangedEntries::from([Arc::clone(stem)]);
        self.revoke_access(stem);
        self.remove_entry(stem);
        self.resolve_and_build(&mut changed);
        self.persist(&changed).await;
        let written = stem.to_string();
        let forgotten = self.write_store(stem, move |store| store.delete_entry(&written)).await;
        self.revision_writer.forget(stem);
        let ended = self.end_lives(stem).await;
        self.publish(&changed).await;
        Ok(forgotten && ended)
    }

    /// Revokes all access to the tenant, including calls in flight.
    fn revoke_access(&self, stem: &str) {
        if let Some(tenant) = self.entries.get(stem).and_then(|known| known.tenant()) {
            tenant.slot.access_revocations.revoke_all();
        }
    }

    /// Writes to the store. Returns whether that succeeded.
    async fn write_store(
        &mut self,
        stem: &Arc<str>,
        write: impl FnOnce(&Store) -> Result<(), store::Error> + Send + 'static,
    ) -> bool {
        let Some(store) = self.revision_writer.store().cloned() else { return false };
        let writing = tokio::task::spawn_blocking(move || write(&store));
        match writing.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(entry = %stem, %error, "what an operator decided is done, but would not survive a restart");
                false
            }
            Err(_) => false,
        }
    }

    async fn republish(&mut self, stem: &Arc<str>) {
        let mut changed = ChangedEntries::from([Arc::clone(stem)]);
        self.resolve_and_build(&mut changed);
        self.persist(&changed).await;
        self.publish(&changed).await;
    }
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
