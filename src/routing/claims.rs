//! Who may have which prefix and host, judged over a whole pass so that two tenants can swap.

use std::collections::HashMap;

use super::endpoint::is_own_segment;
use crate::spec::{HostName, Mount, TenantName};

/// One tenant's claim to its mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub tenant: TenantName,
    pub mounts: Vec<Mount>,
    /// Its operator lets others onto its hosts, if theirs do the same.
    pub shares_hosts: bool,
    /// It held these mounts before this pass: incumbents win. Among equals the order of `claims` decides.
    pub incumbent: bool,
}

/// A claim that lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub loser: TenantName,
    pub holder: TenantName,
    /// The loser's mount.
    pub mount: Mount,
    pub kind: ConflictKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// The same prefix on the same host.
    Same,
    /// They differ in case only.
    CaseOnly,
    /// One prefix would take one of the other's own paths, e.g. `/a/mcp` of `/a`. Case is not looked at.
    TakesEndpoint,
    /// The host is the other's own, and not both operators share theirs.
    Host,
}

/// Judges the claims of a whole pass. Every loser is named once, with its first conflict, and gets none of its mounts.
///
/// A tenant never conflicts with itself, and a prefix on one host never with a prefix on another.
pub fn judge(claims: &[Claim]) -> Vec<Conflict> {
    let mut held = Held::default();
    let (incumbents, newcomers): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.incumbent);
    incumbents.into_iter().chain(newcomers).filter_map(|claim| held.grant(claim).err()).collect()
}

/// What each of the claims `wanted` loses to among those that are `held`. They are not judged against one another.
pub fn against<'c>(held: &'c [Claim], wanted: impl IntoIterator<Item = &'c Claim>) -> Vec<Option<Conflict>> {
    let mut standing = Held::default();
    held.iter().for_each(|claim| standing.hold(claim));
    wanted.into_iter().map(|claim| standing.check(claim).err()).collect()
}

/// A place without regard to case: host, and the prefix in small letters.
type Place = (Option<String>, String);

/// What has been granted so far.
#[derive(Default)]
struct Held<'c> {
    mounts: HashMap<Place, (&'c TenantName, &'c Mount)>,
    /// Places one of whose own paths is below a granted mount: `/a` when `/a/mcp/x` is granted.
    bereft: HashMap<Place, &'c TenantName>,
    hosts: HashMap<&'c HostName, Tenants<'c>>,
}

/// Who is on a host: as many of them as it takes to find one who is somebody else.
#[derive(Default)]
struct Tenants<'c> {
    /// The first, and the first other than that.
    some: Option<&'c TenantName>,
    other: Option<&'c TenantName>,
    /// One that does not share. There are two only if one was there before the rule.
    alone: Option<&'c TenantName>,
}

impl<'c> Tenants<'c> {
    fn add(&mut self, claim: &'c Claim) {
        let some = *self.some.get_or_insert(&claim.tenant);
        if some != &claim.tenant {
            self.other.get_or_insert(&claim.tenant);
        }
        if !claim.shares_hosts {
            self.alone.get_or_insert(&claim.tenant);
        }
    }

    /// Who keeps this claim from the host.
    fn in_the_way_of(&self, claim: &Claim) -> Option<&'c TenantName> {
        let candidates = if claim.shares_hosts { [self.alone, None] } else { [self.some, self.other] };
        candidates.into_iter().flatten().find(|tenant| **tenant != claim.tenant)
    }
}

impl<'c> Held<'c> {
    fn grant(&mut self, claim: &'c Claim) -> Result<(), Conflict> {
        self.check(claim)?;
        self.hold(claim);
        Ok(())
    }

    fn hold(&mut self, claim: &'c Claim) {
        for mount in &claim.mounts {
            for owner in owners(mount) {
                self.bereft.entry(owner).or_insert(&claim.tenant);
            }
            self.mounts.insert(place(mount), (&claim.tenant, mount));
            if let Some(host) = &mount.host {
                self.hosts.entry(host).or_default().add(claim);
            }
        }
    }

    fn check(&self, claim: &Claim) -> Result<(), Conflict> {
        claim.mounts.iter().try_for_each(|mount| match self.conflict(claim, mount) {
            Some((holder, kind)) => {
                let (loser, mount) = (claim.tenant.clone(), mount.clone());
                Err(Conflict { loser, holder: holder.clone(), mount, kind })
            }
            None => Ok(()),
        })
    }

    fn conflict(&self, claim: &Claim, mount: &Mount) -> Option<(&'c TenantName, ConflictKind)> {
        let on_host = mount.host.as_ref().and_then(|host| self.hosts.get(host));
        if let Some(holder) = on_host.and_then(|tenants| tenants.in_the_way_of(claim)) {
            return Some((holder, ConflictKind::Host));
        }
        let place = place(mount);
        let is_other = |holder: &&TenantName| **holder != claim.tenant;
        if let Some((holder, held)) = self.mounts.get(&place).filter(|(holder, _)| is_other(holder)) {
            let kind = if *held == mount { ConflictKind::Same } else { ConflictKind::CaseOnly };
            return Some((holder, kind));
        }
        let at = |owner: Place| self.mounts.get(&owner).map(|(holder, _)| *holder).filter(is_other);
        let below = || owners(mount).find_map(at);
        let holder = self.bereft.get(&place).copied().filter(is_other).or_else(below)?;
        Some((holder, ConflictKind::TakesEndpoint))
    }
}

/// Who holds which mounts, kept up to date: of many holders, the few that a new claim may conflict with.
#[derive(Debug)]
pub struct Places<K> {
    mounts: HashMap<Place, Vec<K>>,
    /// By the places one of whose own paths is below a held mount.
    bereft: HashMap<Place, Vec<K>>,
    /// By host: those who share it, and those who do not.
    sharing: HashMap<HostName, Vec<K>>,
    alone: HashMap<HostName, Vec<K>>,
}

impl<K: Clone + PartialEq> Places<K> {
    /// Nobody holds anything.
    pub fn new() -> Self {
        Self {
            mounts: HashMap::new(),
            bereft: HashMap::new(),
            sharing: HashMap::new(),
            alone: HashMap::new(),
        }
    }

    /// `holder` has this mount from now on, and shares its host or not.
    pub fn hold(&mut self, mount: &Mount, shares_hosts: bool, holder: &K) {
        if let Some(host) = &mount.host {
            self.on_hosts(shares_hosts).entry(host.clone()).or_default().push(holder.clone());
        }
        // Most places have one holder.
        self.mounts.entry(place(mount)).or_insert_with(|| Vec::with_capacity(1)).push(holder.clone());
        for owner in owners(mount) {
            self.bereft.entry(owner).or_default().push(holder.clone());
        }
    }

    /// `holder` has this mount no longer.
    pub fn release(&mut self, mount: &Mount, shares_hosts: bool, holder: &K) {
        if let Some(host) = &mount.host {
            forget(self.on_hosts(shares_hosts), host, holder);
        }
        forget(&mut self.mounts, &place(mount), holder);
        for owner in owners(mount) {
            forget(&mut self.bereft, &owner, holder);
        }
    }

    /// Whoever a claim to this mount may conflict with, some twice.
    pub fn rivals(&self, mount: &Mount, shares_hosts: bool) -> impl Iterator<Item = &K> {
        let place = place(mount);
        let at = self.mounts.get(&place).into_iter().chain(self.bereft.get(&place));
        let above = owners(mount).filter_map(|owner| self.mounts.get(&owner));
        let host = mount.host.as_ref();
        let alone = host.and_then(|host| self.alone.get(host));
        let sharing = host.filter(|_| !shares_hosts).and_then(|host| self.sharing.get(host));
        at.chain(above).chain(alone).chain(sharing).flatten()
    }

    fn on_hosts(&mut self, shared: bool) -> &mut HashMap<HostName, Vec<K>> {
        if shared { &mut self.sharing } else { &mut self.alone }
    }
}

impl<K: Clone + PartialEq> Default for Places<K> {
    fn default() -> Self {
        Self::new()
    }
}

fn forget<P: Eq + std::hash::Hash, K: PartialEq>(places: &mut HashMap<P, Vec<K>>, place: &P, holder: &K) {
    let Some(holders) = places.get_mut(place) else { return };
    if let Some(at) = holders.iter().position(|one| one == holder) {
        holders.swap_remove(at);
    }
    if holders.is_empty() {
        places.remove(place);
    }
}

fn place(mount: &Mount) -> Place {
    let host = mount.host.as_ref().map(|host| host.as_str().to_owned());
    (host, mount.prefix.as_str().to_ascii_lowercase())
}

/// The places, mounted or not, one of whose own paths this mount is at or below.
fn owners(mount: &Mount) -> impl Iterator<Item = Place> {
    let (host, prefix) = place(mount);
    let ends: Vec<usize> = mount
        .prefix
        .segments()
        .scan(0, |end, segment| Some((std::mem::replace(end, *end + 1 + segment.len()), segment)))
        .filter(|(_, segment)| is_own_segment(segment))
        .map(|(end, _)| end)
        .collect();
    ends.into_iter().map(move |end| (host.clone(), prefix[..end].to_owned()))
}
