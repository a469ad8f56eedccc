//! The index of claims: which entry holds which name and mounts, and which entries wait for a
//! decision. Kept up to date, so that a pass considers few claims, however many tenants there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::claims::ClaimRequest;
use super::data_index::DataIndex;
use super::entry::{ClaimBasis, Entry, EntryMap};
use crate::routing::MountIndex;
use crate::spec::{HeldClaim, TenantClaim, TenantName};

/// The claims that entries hold or wait for, by entry id.
#[derive(Default)]
pub(super) struct ClaimIndex {
    names: HashMap<TenantName, Vec<Arc<str>>>,
    mounts: MountIndex<Arc<str>>,
    held: HashMap<Arc<str>, ClaimBasis>,
    candidates: BTreeSet<Arc<str>>,
}

impl ClaimIndex {
    /// Records what an entry holds and whether it waits; `None`: the entry is gone.
    pub(super) fn update(&mut self, entry_id: &Arc<str>, entry: Option<&Entry>) {
        self.set_held(entry_id, entry.and_then(Entry::claim_basis));
        match entry.is_some_and(Entry::has_candidate) {
            true => _ = self.candidates.insert(Arc::clone(entry_id)),
            false => _ = self.candidates.remove(entry_id),
        }
    }

    /// Reserves what an entry held before the process started, until its files are read.
    pub(super) fn insert_stored(&mut self, entry_id: &Arc<str>, claim: &Arc<HeldClaim>) {
        self.set_held(entry_id, Some(ClaimBasis::LastHeld(Arc::clone(claim))));
    }

    /// Returns the entries that wait for a decision.
    pub(super) fn candidates(&self) -> &BTreeSet<Arc<str>> {
        &self.candidates
    }

    /// Whether a tenant of this name is live.
    pub(super) fn has_live_tenant(&self, name: &TenantName) -> bool {
        let is_live = |entry_id: &Arc<str>| matches!(self.held.get(entry_id), Some(ClaimBasis::Live(_)));
        self.names.get(name).is_some_and(|entry_ids| entry_ids.iter().any(is_live))
    }

    /// Returns the entries that hold this name.
    pub(super) fn holders_of_name(&self, name: &TenantName) -> impl Iterator<Item = &Arc<str>> {
        self.names.get(name).into_iter().flatten()
    }

    /// Returns the requests of the waiting entries, of the holders of what they want, and of the
    /// guards of what they would open. No other entry affects the verdict: an entry that does not
    /// wait cannot lose, and only these can stand in the way of one that does.
    pub(super) fn claim_requests<'a>(
        &'a self,
        entries: &'a EntryMap,
        data_index: &'a DataIndex,
    ) -> Vec<ClaimRequest<'a>> {
        let mut entry_ids: BTreeSet<&'a Arc<str>> = self.candidates.iter().collect();
        for (entry_id, entry) in
            self.candidates.iter().filter_map(|entry_id| Some((entry_id, entries.get(entry_id)?)))
        {
            let ClaimRequest { wanted, newly_open_data, .. } = entry.claim_request(entry_id);
            let Some(TenantClaim { name, mounts, shares_hosts }) = wanted else { continue };
            entry_ids.extend(data_index.find_restricting_entry(entry_id, &newly_open_data));
            entry_ids.extend(self.names.get(name).into_iter().flatten());
            entry_ids.extend(mounts.iter().flat_map(|mount| self.mounts.find_rivals(mount, shares_hosts)));
        }
        let applicant = |entry_id: &'a Arc<str>| match entries.get(entry_id) {
            Some(entry) => Some(entry.claim_request(entry_id)),
            None => {
                let held = self.held.get(entry_id)?.claim();
                Some(ClaimRequest { entry_id, held: Some(held), ..ClaimRequest::default() })
            }
        };
        entry_ids.into_iter().filter_map(applicant).collect()
    }

    fn set_held(&mut self, entry_id: &Arc<str>, held: Option<ClaimBasis>) {
        match (self.held.get(entry_id), &held) {
            (Some(before), Some(now)) if before.is_same(now) => return,
            (None, None) => return,
            _ => {}
        }
        if let Some(before) = self.held.remove(entry_id) {
            self.release(entry_id, before.claim());
        }
        let Some(held) = held else { return };
        let TenantClaim { name, mounts, shares_hosts } = held.claim();
        // Two entries share a name at most for the length of a pass.
        let entry_ids = self.names.entry(name.clone()).or_insert_with(|| Vec::with_capacity(1));
        entry_ids.push(Arc::clone(entry_id));
        mounts.iter().for_each(|mount| self.mounts.insert(mount, shares_hosts, entry_id));
        self.held.insert(Arc::clone(entry_id), held);
    }

    fn release(&mut self, entry_id: &Arc<str>, claim: TenantClaim<'_>) {
        let TenantClaim { name, mounts, shares_hosts } = claim;
        mounts.iter().for_each(|mount| self.mounts.remove(mount, shares_hosts, entry_id));
        if let Some(entry_ids) = self.names.get_mut(name) {
            entry_ids.retain(|one| one != entry_id);
            if entry_ids.is_empty() {
                self.names.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::spec::{Mount, Prefix};

    fn mount(prefix: &str) -> Mount {
        Mount { listener: None, host: None, prefix: Prefix::parse(prefix).expect("a prefix") }
    }

    fn claim((name, prefix): (&str, &str)) -> Arc<HeldClaim> {
        let name = TenantName::parse(name).expect("a name");
        let (mounts, since) = (vec![mount(prefix)], Timestamp::UNIX_EPOCH);
        Arc::new(HeldClaim { name, mounts, shares_hosts: false, since })
    }

    fn join<'a>(entry_ids: impl Iterator<Item = &'a Arc<str>>) -> String {
        entry_ids.map(|id| &**id).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_update_changes_who_holds_a_name_and_who_rivals_a_mount() {
        let mut index = ClaimIndex::default();
        let acme = TenantName::parse("acme").expect("a name");
        // An entry and what it holds from now on (`None`: it is gone); who then holds the name
        // `acme`, and whose mounts may conflict with `/a`.
        for (entry_id, held, holders, rivals) in [
            ("one", Some(("acme", "/a")), "one", "one"),
            ("two", Some(("beta", "/b")), "one", "one"),
            ("two", Some(("acme", "/a/mcp")), "one two", "one two"),
            ("one", Some(("acme", "/c")), "one two", "two"),
            ("two", None, "one", ""),
            ("one", Some(("gamma", "/a")), "", "one"),
            ("one", None, "", ""),
        ] {
            let id: Arc<str> = entry_id.into();
            index.candidates.insert(Arc::clone(&id));
            match held {
                Some(held) => index.insert_stored(&id, &claim(held)),
                None => index.update(&id, None),
            }
            let step = format!("{entry_id}: {held:?}");
            assert_eq!(join(index.holders_of_name(&acme)), holders, "{step}");
            assert_eq!(join(index.mounts.find_rivals(&mount("/a"), false)), rivals, "{step}");
            assert_eq!(index.candidates().contains(&id), held.is_some(), "{step}");
            assert!(!index.has_live_tenant(&acme), "what is only stored is not live: {step}");
        }
        assert!(index.names.is_empty() && index.held.is_empty(), "entries that are gone leave nothing");
    }

    #[test]
    fn an_entry_that_was_not_read_yet_requests_what_it_held() {
        let (mut index, id): (_, Arc<str>) = (ClaimIndex::default(), "one".into());
        let held = claim(("acme", "/a"));
        index.insert_stored(&id, &held);
        index.candidates.insert(Arc::clone(&id));
        let (entries, data_index) = (EntryMap::new(), DataIndex::default());
        let requests = index.claim_requests(&entries, &data_index);
        let [request] = requests.as_slice() else { panic!("one request: {requests:?}") };
        assert!(
            request.held.is_some_and(|claim| claim.is_same_as(&held.claim())) && request.wanted.is_none()
        );
    }
}
