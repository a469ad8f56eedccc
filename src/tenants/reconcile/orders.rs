//! An operator's orders about one entry: pause, resume, roll back, accept, remove. An order is
//! persisted before it is answered; if that fails it is still carried out, and the answer says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pass::{Changed, Worker};
use super::read::build;
use crate::base::diagnostic::Report;
use crate::bundle::{self, Loaded, Snapshot};
use crate::store::{self, Store};
use crate::tenants::status::TenantStatus;

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
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
pub struct Done {
    /// The status of the entry now; `None` if it was removed.
    pub tenant: Option<TenantStatus>,
    /// Whether the change survives a restart.
    pub kept: bool,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("no tenant of this name; \"tenantd tenants list\" names them all")]
    NotFound,
    #[error("this gateway keeps no revisions: it could not write its state folder when it started")]
    NoStore,
    #[error("revision {0} is not kept; \"tenantd tenants history NAME\" lists those that are")]
    NoRevision(u64),
    #[error("revision {number} would be refused today")]
    Rejected { number: u64, report: Report },
    #[error("revision {number} cannot be put in force: {why}")]
    Taken { number: u64, why: String },
    #[error("nothing of this tenant waits to be accepted: no claim of its files was refused")]
    NothingWaits,
    #[error("it cannot be accepted: {0}")]
    Held(String),
    #[error("the claim is accepted, but the tenant cannot be built")]
    Unfit(Report),
    #[error("{} cannot be removed: {source}", path.display())]
    Files { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("the gateway is shutting down")]
    Ending,
}

impl Worker {
    /// Carries out an order about the entry with this name or stem.
    pub(super) async fn obey(&mut self, name: &str, order: Order) -> Result<Done, Refused> {
        let stem = self.registry.load().entry(name).map(|entry| entry.status().stem);
        let stem: Arc<str> = stem.ok_or(Refused::NotFound)?.into();
        let kept = match order {
            Order::Pause => self.pause(&stem, true).await,
            Order::Resume => self.pause(&stem, false).await,
            Order::RollBack(number) => self.roll_back(&stem, number).await?,
            Order::Accept => self.accept(&stem).await?,
            Order::Remove => self.delete(&stem).await?,
        };
        let tenant = self.registry.load().entry(&stem).map(|entry| entry.status());
        Ok(Done { tenant, kept })
    }

    async fn pause(&mut self, stem: &Arc<str>, paused: bool) -> bool {
        if let Some(known) = self.roster.get_mut(stem) {
            known.pause(paused, |spec, revision, slot| build(&self.parts, stem, spec, revision, slot));
        }
        let written = stem.to_string();
        let kept = self.write(stem, move |store| store.set_paused(&written, paused)).await;
        tracing::info!(entry = %stem, paused, kept, "an operator paused or resumed a tenant");
        self.show(stem).await;
        kept
    }

    async fn roll_back(&mut self, stem: &Arc<str>, number: u64) -> Result<bool, Refused> {
        let (loaded, files) = self.read_again(stem, number).await?;
        let Some(known) = self.roster.get_mut(stem) else { return Err(Refused::NotFound) };
        if loaded.spec.is_none() {
            return Err(Refused::Rejected { number, report: loaded.report });
        }
        let before = known.put_up(loaded, number, files);
        let mut changed = Changed::from([Arc::clone(stem)]);
        self.judge_and_build(&mut changed);
        let Some(known) = self.roster.get_mut(stem) else { return Err(Refused::NotFound) };
        if let Err(why) = known.hold(number, before) {
            // The candidate that it had before is decided again.
            self.judge_and_build(&mut changed);
            self.publish(&changed).await;
            return Err(Refused::Taken { number, why });
        }
        let (written, against) = (stem.to_string(), known.held_against());
        let kept = self.write(stem, move |store| store.hold(&written, number, against)).await;
        tracing::info!(entry = %stem, revision = number, kept, "an operator rolled a tenant back");
        self.keep(&changed).await;
        self.publish(&changed).await;
        Ok(kept)
    }

    async fn accept(&mut self, stem: &Arc<str>) -> Result<bool, Refused> {
        let known = self.roster.get_mut(stem).ok_or(Refused::NotFound)?;
        if !known.admit() {
            return Err(Refused::NothingWaits);
        }
        let mut changed = Changed::from([Arc::clone(stem)]);
        self.judge_and_build(&mut changed);
        let known = self.roster.get_mut(stem).ok_or(Refused::NotFound)?;
        let (admitted, unfit) = (known.admitted(), known.errors().cloned());
        self.keep(&changed).await;
        self.publish(&changed).await;
        admitted.map_err(Refused::Held)?;
        if let Some(report) = unfit {
            return Err(Refused::Unfit(report));
        }
        let kept = self.keeper.has_kept(stem);
        tracing::info!(entry = %stem, kept, "an operator accepted a tenant's claim");
        Ok(kept)
    }

    /// Loads a persisted revision by today's rules.
    async fn read_again(
        &mut self,
        stem: &Arc<str>,
        number: u64,
    ) -> Result<(Loaded, Arc<[PathBuf]>), Refused> {
        self.keep(&Changed::new()).await;
        let store = self.keeper.store().cloned().ok_or(Refused::NoStore)?;
        let (stem, folder, context) = (Arc::clone(stem), self.folder.clone(), Arc::clone(&self.context));
        let read = move || -> Result<_, Refused> {
            let documents = store.documents(&stem, number)?.ok_or(Refused::NoRevision(number))?;
            let snapshot = Snapshot::decode(&documents).ok_or(Refused::NoRevision(number))?;
            let loaded = bundle::reload(&snapshot, &folder, &context);
            Ok((loaded, snapshot.files(&folder).into()))
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Refused::NoRevision(number))?
    }

    async fn delete(&mut self, stem: &Arc<str>) -> Result<bool, Refused> {
        let files = self.roster.get(stem).map(|known| known.files().to_vec()).unwrap_or_default();
        let own_folder = self.folder.join(&**stem);
        let deleting = tokio::task::spawn_blocking(move || delete_files(&files, &own_folder));
        deleting.await.map_err(|_| Refused::Ending)??;
        let mut changed = Changed::from([Arc::clone(stem)]);
        self.cut(stem);
        self.remove(stem);
        self.judge_and_build(&mut changed);
        self.keep(&changed).await;
        let written = stem.to_string();
        let forgotten = self.write(stem, move |store| store.forget(&written)).await;
        self.keeper.forget(stem);
        let ended = self.end_lives(stem).await;
        self.publish(&changed).await;
        Ok(forgotten && ended)
    }

    /// Revokes all access to the tenant, including calls in flight.
    fn cut(&self, stem: &str) {
        if let Some(tenant) = self.roster.get(stem).and_then(|known| known.tenant()) {
            tenant.slot.leaves.end();
        }
    }

    /// Writes to the store. Returns whether that succeeded.
    async fn write(
        &mut self,
        stem: &Arc<str>,
        write: impl FnOnce(&Store) -> Result<(), store::Error> + Send + 'static,
    ) -> bool {
        let Some(store) = self.keeper.store().cloned() else { return false };
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

    async fn show(&mut self, stem: &Arc<str>) {
        let mut changed = Changed::from([Arc::clone(stem)]);
        self.judge_and_build(&mut changed);
        self.keep(&changed).await;
        self.publish(&changed).await;
    }
}

fn delete_files(files: &[PathBuf], own_folder: &Path) -> Result<(), Refused> {
    let gone = |path: &Path, removed: std::io::Result<()>| match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Refused::Files { path: path.to_owned(), source })
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
