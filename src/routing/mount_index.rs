//! An index of the mounts held, for looking at few claims however many tenants there are.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::mount_key::{MountKey, endpoint_owners};
use crate::spec::{HostName, Mount};

/// A host, and the listener on which it is somebody's.
type ListenerHost = (Option<SocketAddr>, HostName);

/// An index of the mounts held, kept up to date. It finds the few holders with which a new claim
/// may conflict.
#[derive(Debug)]
pub struct MountIndex<K> {
    mounts: HashMap<MountKey, Vec<K>>,
    /// The holders of mounts at or below one of a place's own paths, by that place.
    endpoint_taken_by: HashMap<MountKey, Vec<K>>,
    /// The holders on a host that share it, and those that do not.
    sharing: HashMap<ListenerHost, Vec<K>>,
    exclusive: HashMap<ListenerHost, Vec<K>>,
}

impl<K: Clone + PartialEq> MountIndex<K> {
    /// Returns an index without holders.
    pub fn new() -> Self {
        Self {
            mounts: HashMap::new(),
            endpoint_taken_by: HashMap::new(),
            sharing: HashMap::new(),
            exclusive: HashMap::new(),
        }
    }

    /// Records that `holder` has this mount, and whether it shares the host.
    pub fn insert(&mut self, mount: &Mount, shares_hosts: bool, holder: &K) {
        if let Some(host) = &mount.host {
            self.hosts_mut(shares_hosts)
                .entry((mount.listener, host.clone()))
                .or_default()
                .push(holder.clone());
        }
        // Most places have one holder.
        self.mounts.entry(MountKey::of(mount)).or_insert_with(|| Vec::with_capacity(1)).push(holder.clone());
        for owner in endpoint_owners(mount) {
            self.endpoint_taken_by.entry(owner).or_default().push(holder.clone());
        }
    }

    /// Records that `holder` no longer has this mount.
    pub fn remove(&mut self, mount: &Mount, shares_hosts: bool, holder: &K) {
        if let Some(host) = &mount.host {
            remove_holder(self.hosts_mut(shares_hosts), &(mount.listener, host.clone()), holder);
        }
        remove_holder(&mut self.mounts, &MountKey::of(mount), holder);
        for owner in endpoint_owners(mount) {
            remove_holder(&mut self.endpoint_taken_by, &owner, holder);
        }
    }

    /// Returns every holder with which a claim to this mount may conflict, some of them twice.
    pub fn find_rivals(&self, mount: &Mount, shares_hosts: bool) -> impl Iterator<Item = &K> {
        let key = MountKey::of(mount);
        let at = self.mounts.get(&key).into_iter().chain(self.endpoint_taken_by.get(&key));
        let above = endpoint_owners(mount).filter_map(|owner| self.mounts.get(&owner));
        let host = mount.host.as_ref().map(|host| (mount.listener, host.clone()));
        let alone = host.as_ref().and_then(|host| self.exclusive.get(host));
        let sharing = host.as_ref().filter(|_| !shares_hosts).and_then(|host| self.sharing.get(host));
        at.chain(above).chain(alone).chain(sharing).flatten()
    }

    fn hosts_mut(&mut self, shared: bool) -> &mut HashMap<ListenerHost, Vec<K>> {
        if shared { &mut self.sharing } else { &mut self.exclusive }
    }
}

impl<K: Clone + PartialEq> Default for MountIndex<K> {
    fn default() -> Self {
        Self::new()
    }
}

fn remove_holder<P: Eq + std::hash::Hash, K: PartialEq>(map: &mut HashMap<P, Vec<K>>, key: &P, holder: &K) {
    let Some(holders) = map.get_mut(key) else { return };
    if let Some(at) = holders.iter().position(|one| one == holder) {
        holders.swap_remove(at);
    }
    if holders.is_empty() {
        map.remove(key);
    }
}
