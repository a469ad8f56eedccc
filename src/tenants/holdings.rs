//! The index of claims: which entry holds which name and mounts, and which entries wait for a
//! decision. Kept up to date, so that a pass considers few claims, however many tenants there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::companions::Companions;
use super::plan::Applicant;
use super::roster::{Known, Roster};
use super::tenant::Tenant;
use crate::routing::Places;
use crate::spec::{Holding, Stake, TenantName};

/// The claims that entries hold or wait for, by stem.
#[derive(Default)]
pub(super) struct Holdings {
    names: HashMap<TenantName, Vec<Arc<str>>>,
    places: Places<Arc<str>>,
    held: HashMap<Arc<str>, Held>,
    waiting: BTreeSet<Arc<str>>,
}

/// How an entry holds its claim.
#[derive(Clone)]
pub(super) enum Held {
    /// With the revision in force.
    Live(Arc<Tenant>),
    /// With the last one that was: its files cannot be used now, or were not read since the process
    /// started.
    Reserved(Arc<Holding>),
}

impl Held {
    /// Returns the claim.
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
    /// Records what an entry holds and whether it waits; `None`: the entry is gone.
    pub(super) fn note(&mut self, stem: &Arc<str>, known: Option<&Known>) {
        self.hold(stem, known.and_then(Known::held));
        match known.is_some_and(Known::has_candidate) {
            true => _ = self.waiting.insert(Arc::clone(stem)),
            false => _ = self.waiting.remove(stem),
        }
    }

    /// Reserves what an entry held before the process started, until its files are read.
    pub(super) fn reserve(&mut self, stem: &Arc<str>, holding: &Arc<Holding>) {
        self.hold(stem, Some(Held::Reserved(Arc::clone(holding))));
    }

    /// Returns the entries that wait for a decision.
    pub(super) fn waiting(&self) -> &BTreeSet<Arc<str>> {
        &self.waiting
    }

    /// Whether a tenant of this name is live.
    pub(super) fn has_name(&self, name: &TenantName) -> bool {
        let is_live = |stem: &Arc<str>| matches!(self.held.get(stem), Some(Held::Live(_)));
        self.names.get(name).is_some_and(|stems| stems.iter().any(is_live))
    }

    /// Returns the entries that hold this name.
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
        // Two entries share a name at most for the length of a pass.
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
