//! Who holds which name and which mounts, and who waits for some: kept up to date, so that a pass judges few claims
//! among however many tenants.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::companions::Companions;
use super::plan::Applicant;
use super::roster::{Known, Roster};
use super::tenant::Tenant;
use crate::routing::Places;
use crate::spec::{Holding, Stake, TenantName};

/// What is held and waited for, by stem.
#[derive(Default)]
pub(super) struct Holdings {
    names: HashMap<TenantName, Vec<Arc<str>>>,
    places: Places<Arc<str>>,
    held: HashMap<Arc<str>, Held>,
    waiting: BTreeSet<Arc<str>>,
}

/// By what an entry holds something.
#[derive(Clone)]
pub(super) enum Held {
    /// The revision in force.
    Live(Arc<Tenant>),
    /// The last one that was: its files cannot be used now, or have not been read since the start.
    Reserved(Arc<Holding>),
}

impl Held {
    /// What is held.
    pub(super) fn stake(&self) -> Stake<'_> {
        match self {
            Self::Live(tenant) => tenant.spec.stake(),
            Self::Reserved(holding) => holding.stake(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live(one), Self::Live(other)) => Arc::ptr_eq(one, other),
            (Self::Reserved(one), Self::Reserved(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Holdings {
    /// Takes note of what an entry holds and whether it waits now; `None`: it is gone.
    pub(super) fn note(&mut self, stem: &Arc<str>, known: Option<&Known>) {
        self.hold(stem, known.and_then(Known::held));
        match known.is_some_and(Known::has_candidate) {
            true => _ = self.waiting.insert(Arc::clone(stem)),
            false => _ = self.waiting.remove(stem),
        }
    }

    /// What an entry held before the process started is nobody else's until its files have been read.
    pub(super) fn reserve(&mut self, stem: &Arc<str>, holding: &Arc<Holding>) {
        self.hold(stem, Some(Held::Reserved(Arc::clone(holding))));
    }

    /// The entries that wait for a verdict.
    pub(super) fn waiting(&self) -> &BTreeSet<Arc<str>> {
        &self.waiting
    }

    /// Whether a tenant of this name is live.
    pub(super) fn has_name(&self, name: &TenantName) -> bool {
        let is_live = |stem: &Arc<str>| matches!(self.held.get(stem), Some(Held::Live(_)));
        self.names.get(name).is_some_and(|stems| stems.iter().any(is_live))
    }

    /// The entries that hold this name.
    pub(super) fn named(&self, name: &TenantName) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(name).into_iter().flatten()
    }

    /// Those who wait, and whoever holds what one of them wants or guards what one would open. Nobody else can change the verdict: who does not wait
    /// never loses, and stands in nobody's way but there.
    pub(super) fn applicants<'a>(
        &'a self,
        roster: &'a Roster,
        companions: &'a Companions,
    ) -> Vec<Applicant<'a>> {
        let mut stems: BTreeSet<&'a Arc<str>> = self.waiting.iter().collect();
        for (stem, known) in self.waiting.iter().filter_map(|stem| Some((stem, roster.get(stem)?))) {
            let Applicant { wants, opens, .. } = known.applicant(stem);
            let Some(Stake { name, mounts, shares_hosts }) = wants else { continue };
            stems.extend(companions.guard(stem, &opens));
            stems.extend(self.names.get(name).into_iter().flatten());
            stems.extend(mounts.iter().flat_map(|mount| self.places.rivals(mount, shares_hosts)));
        }
        let applicant = |stem: &'a Arc<str>| match roster.get(stem) {
            Some(known) => Some(known.applicant(stem)),
            None => {
                let holds = self.held.get(stem)?.stake();
                Some(Applicant { stem, holds: Some(holds), ..Applicant::default() })
            }
        };
        stems.into_iter().filter_map(applicant).collect()
    }

    fn hold(&mut self, stem: &Arc<str>, held: Option<Held>) {
        match (self.held.get(stem), &held) {
            (Some(before), Some(now)) if before.is(now) => return,
            (None, None) => return,
            _ => {}
        }
        if let Some(before) = self.held.remove(stem) {
            self.release(stem, before.stake());
        }
        let Some(held) = held else { return };
        let Stake { name, mounts, shares_hosts } = held.stake();
        // Two have one name for the length of a pass at most.
        let stems = self.names.entry(name.clone()).or_insert_with(|| Vec::with_capacity(1));
        stems.push(Arc::clone(stem));
        mounts.iter().for_each(|mount| self.places.hold(mount, shares_hosts, stem));
        self.held.insert(Arc::clone(stem), held);
    }

    fn release(&mut self, stem: &Arc<str>, stake: Stake<'_>) {
        let Stake { name, mounts, shares_hosts } = stake;
        mounts.iter().for_each(|mount| self.places.release(mount, shares_hosts, stem));
        if let Some(stems) = self.names.get_mut(name) {
            stems.retain(|one| one != stem);
            if stems.is_empty() {
                self.names.remove(name);
            }
        }
    }
}
