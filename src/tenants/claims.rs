//! Resolves claims: decides, for all entries of a pass at once, which tenant may have which name
//! and mounts. Pure.
//!
//! A name, mount or host stays with its holder, whether or not the holder's files can be used;
//! among newcomers the order of their entry ids decides, so that the outcome does not depend on
//! timing. Tenants that swap prefixes both succeed. A live tenant whose new claim loses keeps what
//! it held.
//!
//! A rejected claim takes nothing by itself, even if what it wants becomes free: otherwise a file
//! that lost could wait for its holder to be replaced. It counts again when its files change, when
//! an operator accepts it, or when the holder itself wants to swap with it.
//!
//! Also decides which tenants may be open beside one that guards the same data (`open_data`).

mod open_data;
mod rejection;

use std::collections::{BTreeMap, HashMap};

use crate::routing::{MountClaim, MountConflict, check_against, find_conflicts};
use crate::spec::{DataFingerprint, Mount, TenantClaim, TenantName};

pub(crate) use self::rejection::open_data_warning;

pub use self::rejection::ClaimRejection;

/// What one entry wants and holds.
#[derive(Debug, Clone, Default)]
pub struct ClaimRequest<'a> {
    /// The entry id.
    pub entry_id: &'a str,
    /// The claim of its candidate, if there is one.
    pub wanted: Option<TenantClaim<'a>>,
    /// The claim that it holds: that of the revision in force, or of the last one that was.
    pub held: Option<TenantClaim<'a>>,
    /// Whether its candidate was refused before.
    pub was_rejected: bool,
    /// What its candidate would give to everybody without an explicit order in its files or by an
    /// operator.
    pub newly_open_data: Vec<DataFingerprint>,
    /// What it gives to authorized callers only, or would if its files could be used.
    pub restricted_data: Vec<DataFingerprint>,
}

/// Rejections by entry id.
type Rejections = BTreeMap<String, ClaimRejection>;

/// Decides between the candidates and what is held. Every candidate without a refusal may serve.
pub fn resolve(requests: &[ClaimRequest<'_>]) -> Rejections {
    let mut rejected = open_data::find_rejections(requests);
    let (waiting, contenders) = partition_rejected(requests, &rejected);
    // A loser falls back to what it holds, which may take a name or a mount from a newcomer, so
    // repeat until there is no loser. Each round rejects at least one more claim, so this ends.
    loop {
        let mut losers = find_name_losers(&contenders, &rejected);
        if losers.is_empty() {
            losers = find_mount_losers(&contenders, &rejected);
        }
        if losers.is_empty() {
            break;
        }
        rejected.extend(losers);
    }
    let still_refused = uphold_rejections(&waiting, &contenders, &rejected);
    rejected.extend(still_refused);
    rejected
}

/// A rejected claim: the entry id, and what the entry wants.
type RejectedClaim<'a> = (&'a str, TenantClaim<'a>);

/// Takes out of the contest the claims rejected in this pass, and those rejected in an earlier one,
/// unless their holder wants to swap. Returns the latter claims and the contenders.
fn partition_rejected<'a>(
    requests: &[ClaimRequest<'a>],
    rejected: &Rejections,
) -> (Vec<RejectedClaim<'a>>, Vec<ClaimRequest<'a>>) {
    let contends_still = |request: &&ClaimRequest<'a>| !rejected.contains_key(request.entry_id);
    let movers: Vec<_> =
        requests.iter().filter(contends_still).filter_map(ClaimRequest::planned_move).collect();
    let mut waiting = Vec::new();
    let stands = |request: &ClaimRequest<'a>| match request.wanted.filter(|_| request.was_rejected) {
        _ if rejected.contains_key(request.entry_id) => ClaimRequest { wanted: None, ..request.clone() },
        Some(wanted) if !movers.iter().any(|mover| is_swap(request, wanted, mover)) => {
            waiting.push((request.entry_id, wanted));
            ClaimRequest { wanted: None, ..request.clone() }
        }
        _ => request.clone(),
    };
    let contenders = requests.iter().map(stands).collect();
    (waiting, contenders)
}

/// Whether the mover gives up what the applicant wants, and wants what the applicant holds.
fn is_swap(
    request: &ClaimRequest<'_>,
    wanted: TenantClaim<'_>,
    mover: &(TenantClaim<'_>, TenantClaim<'_>),
) -> bool {
    let (leaves, comes) = *mover;
    request.held.is_some_and(|held| is_conflicting(comes, held)) && is_conflicting(wanted, leaves)
}

/// Whether two claims exclude each other.
fn is_conflicting(one: TenantClaim<'_>, other: TenantClaim<'_>) -> bool {
    let (held, wanted) = (new_mount_claim(one), new_mount_claim(other));
    one.name == other.name || check_against(&[held], [&wanted]).iter().any(Option::is_some)
}

fn new_mount_claim(claim: TenantClaim<'_>) -> MountClaim {
    let TenantClaim { name, mounts, shares_hosts } = claim;
    MountClaim { tenant: name.clone(), mounts: mounts.to_vec(), shares_hosts, is_incumbent: false }
}

/// Returns why each refused claim is still refused.
fn uphold_rejections(
    waiting: &[RejectedClaim<'_>],
    contenders: &[ClaimRequest<'_>],
    rejected: &Rejections,
) -> Rejections {
    if waiting.is_empty() {
        return Rejections::new();
    }
    let effective =
        || contenders.iter().filter_map(|one| Some((one.entry_id, one.effective_claim(rejected)?)));
    let names: HashMap<_, _> = effective().map(|(entry_id, claim)| (claim.name, entry_id)).collect();
    let wanted_by: HashMap<_, _> =
        waiting.iter().map(|(entry_id, wanted)| (*entry_id, wanted.name)).collect();
    // Its own mounts are no conflict, whatever name it has now.
    let own = |(entry_id, claim): (&str, TenantClaim<'_>)| {
        let name = wanted_by.get(entry_id).copied().unwrap_or(claim.name).clone();
        MountClaim { tenant: name, ..new_mount_claim(claim) }
    };
    let held: Vec<_> = effective().map(own).collect();
    let wanted: Vec<_> = waiting.iter().map(|(_, wanted)| new_mount_claim(*wanted)).collect();
    let conflicts = check_against(&held, &wanted);
    let explain = |((entry_id, wanted), conflict): (&RejectedClaim<'_>, Option<MountConflict>)| {
        let holder = names.get(wanted.name).filter(|holder| *holder != entry_id);
        let rejection = match (holder, conflict) {
            (Some(holder), _) => {
                ClaimRejection::NameTaken { name: wanted.name.clone(), holder: (*holder).to_owned() }
            }
            (None, Some(conflict)) => ClaimRejection::MountTaken(conflict),
            (None, None) => {
                ClaimRejection::NeedsAcceptance { name: wanted.name.clone(), mounts: wanted.mounts.to_vec() }
            }
        };
        ((*entry_id).to_owned(), rejection)
    };
    waiting.iter().zip(conflicts).map(explain).collect()
}

impl<'a> ClaimRequest<'a> {
    /// Returns the claim that the entry stands for in this round.
    fn effective_claim(&self, rejected: &Rejections) -> Option<TenantClaim<'a>> {
        if rejected.contains_key(self.entry_id) { self.held } else { self.wanted.or(self.held) }
    }

    /// Whether the entry has a candidate that may still lose.
    fn can_lose(&self, rejected: &Rejections) -> bool {
        self.wanted.is_some() && !rejected.contains_key(self.entry_id)
    }

    /// Returns what the entry gives up and what it wants, if its files say so for the first time.
    fn planned_move(&self) -> Option<(TenantClaim<'a>, TenantClaim<'a>)> {
        let (held, wanted) = (self.held?, self.wanted?);
        (!self.was_rejected && !held.is_same_as(&wanted)).then_some((held, wanted))
    }
}

fn find_name_losers(requests: &[ClaimRequest<'_>], rejected: &Rejections) -> Rejections {
    let effective: Vec<_> = requests
        .iter()
        .filter_map(|request| Some((request, request.effective_claim(rejected)?.name)))
        .collect();
    let keeps = |(request, name): &&(&ClaimRequest<'_>, &TenantName)| {
        request.held.is_some_and(|held| held.name == *name)
    };
    let mut taken: HashMap<_, _> =
        effective.iter().filter(keeps).map(|(request, name)| (*name, request.entry_id)).collect();
    let mut losers = Rejections::new();
    for (request, name) in effective {
        let holder = *taken.entry(name).or_insert(request.entry_id);
        if holder != request.entry_id && request.can_lose(rejected) {
            let rejection = ClaimRejection::NameTaken { name: name.clone(), holder: holder.to_owned() };
            losers.insert(request.entry_id.to_owned(), rejection);
        }
    }
    losers
}

fn find_mount_losers(requests: &[ClaimRequest<'_>], rejected: &Rejections) -> Rejections {
    let claims: Vec<_> = requests.iter().flat_map(|request| mount_claims(request, rejected)).collect();
    let mut conflicts: HashMap<_, _> =
        find_conflicts(&claims).into_iter().map(|conflict| (conflict.loser.clone(), conflict)).collect();
    let candidates = requests.iter().filter(|request| request.can_lose(rejected));
    candidates
        .filter_map(|request| {
            let conflict = conflicts.remove(request.wanted?.name)?;
            Some((request.entry_id.to_owned(), ClaimRejection::MountTaken(conflict)))
        })
        .collect()
}

/// Returns the claims of an applicant in this round: as an incumbent for the mounts that it held
/// before, as a newcomer for the others. A host that it shared and now wants for itself is claimed
/// anew.
fn mount_claims(request: &ClaimRequest<'_>, rejected: &Rejections) -> impl Iterator<Item = MountClaim> {
    let held = request.held;
    let claim = move |claim: TenantClaim<'_>| {
        let held = |mount: &Mount| {
            held.is_some_and(|held| {
                let as_before = mount.host.is_none() || claim.shares_hosts || !held.shares_hosts;
                as_before && held.mounts.contains(mount)
            })
        };
        let (kept, new): (Vec<_>, Vec<_>) = claim.mounts.iter().cloned().partition(held);
        [(kept, true), (new, false)].map(|(mounts, incumbent)| MountClaim {
            mounts,
            is_incumbent: incumbent,
            ..new_mount_claim(claim)
        })
    };
    let both = request.effective_claim(rejected).map(claim);
    both.into_iter().flatten().filter(|claim| !claim.mounts.is_empty())
}

#[cfg(test)]
mod tests;
