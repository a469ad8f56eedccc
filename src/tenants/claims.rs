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
//! Also decides which tenants may be open beside one that guards the same data (`guards`).

mod guards;

use std::collections::{BTreeMap, HashMap};

use crate::base::diagnostic::Diagnostic;
use crate::routing::{ConflictKind, MountClaim, MountConflict, check_against, find_conflicts};
use crate::spec::{Mount, Reach, TenantClaim, TenantName};

pub(crate) use guards::stays_open;

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
    pub opens: Vec<Reach>,
    /// What it gives to authorized callers only, or would if its files could be used.
    pub guards: Vec<Reach>,
}

/// Why a candidate may not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRejection {
    /// Another entry holds the name.
    NameTaken { name: TenantName, holder: String },
    /// Another tenant holds the mount, or its host.
    MountTaken(MountConflict),
    /// It would give to everybody what another entry gives to authorized callers only.
    Guarded { by: String },
    /// The claim was rejected before; no entry holds any of it now.
    NeedsAcceptance { name: TenantName, mounts: Vec<Mount> },
}

/// Rejections by entry id.
type Rejections = BTreeMap<String, ClaimRejection>;

/// Decides between the candidates and what is held. Every candidate without a refusal may serve.
pub fn resolve(applicants: &[ClaimRequest<'_>]) -> Rejections {
    let mut refused = guards::refused(applicants);
    let (waiting, contenders) = partition_rejected(applicants, &refused);
    // A loser falls back to what it holds, which may take a name or a mount from a newcomer, so
    // repeat until there is no loser. Each round rejects at least one more claim, so this ends.
    loop {
        let mut losers = find_name_losers(&contenders, &refused);
        if losers.is_empty() {
            losers = find_mount_losers(&contenders, &refused);
        }
        if losers.is_empty() {
            break;
        }
        refused.extend(losers);
    }
    let still_refused = uphold_rejections(&waiting, &contenders, &refused);
    refused.extend(still_refused);
    refused
}

/// A rejected claim: the entry id, and what the entry wants.
type RejectedClaim<'a> = (&'a str, TenantClaim<'a>);

/// Takes out of the contest the claims rejected in this pass, and those rejected in an earlier one,
/// unless their holder wants to swap. Returns the latter claims and the contenders.
fn partition_rejected<'a>(
    applicants: &[ClaimRequest<'a>],
    refused: &Rejections,
) -> (Vec<RejectedClaim<'a>>, Vec<ClaimRequest<'a>>) {
    let contends_still = |applicant: &&ClaimRequest<'a>| !refused.contains_key(applicant.entry_id);
    let movers: Vec<_> =
        applicants.iter().filter(contends_still).filter_map(ClaimRequest::planned_move).collect();
    let mut waiting = Vec::new();
    let stands = |applicant: &ClaimRequest<'a>| match applicant.wanted.filter(|_| applicant.was_rejected) {
        _ if refused.contains_key(applicant.entry_id) => ClaimRequest { wanted: None, ..applicant.clone() },
        Some(wants) if !movers.iter().any(|mover| is_swap(applicant, wants, mover)) => {
            waiting.push((applicant.entry_id, wants));
            ClaimRequest { wanted: None, ..applicant.clone() }
        }
        _ => applicant.clone(),
    };
    let contenders = applicants.iter().map(stands).collect();
    (waiting, contenders)
}

/// Whether the mover gives up what the applicant wants, and wants what the applicant holds.
fn is_swap(
    applicant: &ClaimRequest<'_>,
    wants: TenantClaim<'_>,
    mover: &(TenantClaim<'_>, TenantClaim<'_>),
) -> bool {
    let (leaves, comes) = *mover;
    applicant.held.is_some_and(|holds| is_conflicting(comes, holds)) && is_conflicting(wants, leaves)
}

/// Whether two claims exclude each other.
fn is_conflicting(one: TenantClaim<'_>, other: TenantClaim<'_>) -> bool {
    let (held, wanted) = (new_mount_claim(one), new_mount_claim(other));
    one.name == other.name || check_against(&[held], [&wanted]).iter().any(Option::is_some)
}

fn new_mount_claim(stake: TenantClaim<'_>) -> MountClaim {
    let TenantClaim { name, mounts, shares_hosts } = stake;
    MountClaim { tenant: name.clone(), mounts: mounts.to_vec(), shares_hosts, is_incumbent: false }
}

/// Returns why each refused claim is still refused.
fn uphold_rejections(
    waiting: &[RejectedClaim<'_>],
    contenders: &[ClaimRequest<'_>],
    refused: &Rejections,
) -> Rejections {
    if waiting.is_empty() {
        return Rejections::new();
    }
    let standing = || contenders.iter().filter_map(|one| Some((one.entry_id, one.effective_claim(refused)?)));
    let names: HashMap<_, _> = standing().map(|(stem, stake)| (stake.name, stem)).collect();
    let wanted_by: HashMap<_, _> = waiting.iter().map(|(stem, wants)| (*stem, wants.name)).collect();
    // Its own mounts are no conflict, whatever name it has now.
    let own = |(stem, stake): (&str, TenantClaim<'_>)| {
        let name = wanted_by.get(stem).copied().unwrap_or(stake.name).clone();
        MountClaim { tenant: name, ..new_mount_claim(stake) }
    };
    let held: Vec<_> = standing().map(own).collect();
    let wanted: Vec<_> = waiting.iter().map(|(_, wants)| new_mount_claim(*wants)).collect();
    let conflicts = check_against(&held, &wanted);
    let explain = |((stem, wants), conflict): (&RejectedClaim<'_>, Option<MountConflict>)| {
        let holder = names.get(wants.name).filter(|holder| *holder != stem);
        let refusal = match (holder, conflict) {
            (Some(holder), _) => {
                ClaimRejection::NameTaken { name: wants.name.clone(), holder: (*holder).to_owned() }
            }
            (None, Some(conflict)) => ClaimRejection::MountTaken(conflict),
            (None, None) => {
                ClaimRejection::NeedsAcceptance { name: wants.name.clone(), mounts: wants.mounts.to_vec() }
            }
        };
        ((*stem).to_owned(), refusal)
    };
    waiting.iter().zip(conflicts).map(explain).collect()
}

impl<'a> ClaimRequest<'a> {
    /// Returns the claim that the entry stands for in this round.
    fn effective_claim(&self, refused: &Rejections) -> Option<TenantClaim<'a>> {
        if refused.contains_key(self.entry_id) { self.held } else { self.wanted.or(self.held) }
    }

    /// Whether the entry has a candidate that may still lose.
    fn can_lose(&self, refused: &Rejections) -> bool {
        self.wanted.is_some() && !refused.contains_key(self.entry_id)
    }

    /// Returns what the entry gives up and what it wants, if its files say so for the first time.
    fn planned_move(&self) -> Option<(TenantClaim<'a>, TenantClaim<'a>)> {
        let (holds, wants) = (self.held?, self.wanted?);
        (!self.was_rejected && !holds.is_same_as(&wants)).then_some((holds, wants))
    }
}

fn find_name_losers(applicants: &[ClaimRequest<'_>], refused: &Rejections) -> Rejections {
    let standing: Vec<_> = applicants
        .iter()
        .filter_map(|applicant| Some((applicant, applicant.effective_claim(refused)?.name)))
        .collect();
    let keeps = |(applicant, name): &&(&ClaimRequest<'_>, &TenantName)| {
        applicant.held.is_some_and(|held| held.name == *name)
    };
    let mut taken: HashMap<_, _> =
        standing.iter().filter(keeps).map(|(applicant, name)| (*name, applicant.entry_id)).collect();
    let mut losers = Rejections::new();
    for (applicant, name) in standing {
        let holder = *taken.entry(name).or_insert(applicant.entry_id);
        if holder != applicant.entry_id && applicant.can_lose(refused) {
            let refusal = ClaimRejection::NameTaken { name: name.clone(), holder: holder.to_owned() };
            losers.insert(applicant.entry_id.to_owned(), refusal);
        }
    }
    losers
}

fn find_mount_losers(applicants: &[ClaimRequest<'_>], refused: &Rejections) -> Rejections {
    let claims: Vec<_> = applicants.iter().flat_map(|applicant| mount_claims(applicant, refused)).collect();
    let mut judged: HashMap<_, _> =
        find_conflicts(&claims).into_iter().map(|conflict| (conflict.loser.clone(), conflict)).collect();
    let candidates = applicants.iter().filter(|applicant| applicant.can_lose(refused));
    candidates
        .filter_map(|applicant| {
            let conflict = judged.remove(applicant.wanted?.name)?;
            Some((applicant.entry_id.to_owned(), ClaimRejection::MountTaken(conflict)))
        })
        .collect()
}

/// Returns the claims of an applicant in this round: as an incumbent for the mounts that it held
/// before, as a newcomer for the others. A host that it shared and now wants for itself is claimed
/// anew.
fn mount_claims(applicant: &ClaimRequest<'_>, refused: &Rejections) -> impl Iterator<Item = MountClaim> {
    let holds = applicant.held;
    let claim = move |stake: TenantClaim<'_>| {
        let held = |mount: &Mount| {
            holds.is_some_and(|holds| {
                let as_before = mount.host.is_none() || stake.shares_hosts || !holds.shares_hosts;
                as_before && holds.mounts.contains(mount)
            })
        };
        let (kept, new): (Vec<_>, Vec<_>) = stake.mounts.iter().cloned().partition(held);
        [(kept, true), (new, false)].map(|(mounts, incumbent)| MountClaim {
            mounts,
            is_incumbent: incumbent,
            ..new_mount_claim(stake)
        })
    };
    let both = applicant.effective_claim(refused).map(claim);
    both.into_iter().flatten().filter(|claim| !claim.mounts.is_empty())
}

impl ClaimRejection {
    /// Turns the rejection into a finding about the entry with this id.
    pub fn to_diagnostic(&self, stem: &str) -> Diagnostic {
        match self {
            Self::NameTaken { name, holder } => {
                let message = format!("the name \"{name}\" is taken by the entry \"{holder}\"");
                Diagnostic::error("claim-taken", message)
                    .help("rename this file, or set name: in its overlay")
            }
            Self::MountTaken(conflict) => {
                let help = match conflict.kind {
                    ConflictKind::Host => {
                        "choose another host, or say share_host: true in the operator's files of both tenants"
                    }
                    _ => "choose another path_prefix in the overlay beside it",
                };
                Diagnostic::error("claim-taken", describe_conflict(conflict)).help(help)
            }
            Self::Guarded { by } => guards::refusal(by),
            Self::NeedsAcceptance { name, mounts } => {
                let places: Vec<_> = mounts.iter().map(format_mount).collect();
                let places = places.join(", ");
                let message = format!(
                    "nothing is in the way of the name \"{name}\" and {places} any more, but this claim was refused before: another had \
                     one of them, or guarded the same backend; it takes nothing by itself"
                );
                let help = format!(
                    "if it is meant, accept it with `tenantd tenants accept {}`; or change its files",
                    shell_quote(stem)
                );
                Diagnostic::error("claim-free", message).help(help)
            }
        }
    }
}

fn format_mount(mount: &Mount) -> String {
    match &mount.host {
        Some(host) => format!("{host}{}", mount.prefix),
        None => mount.prefix.to_string(),
    }
}

/// Quotes an entry id for a shell.
fn shell_quote(stem: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    match stem.chars().all(is_plain) {
        true => stem.to_owned(),
        false => format!(
            "'{}'",
            stem.chars().filter(|c| !c.is_control()).collect::<String>().replace('\'', "'\\''")
        ),
    }
}

fn describe_conflict(conflict: &MountConflict) -> String {
    let MountConflict { holder, mount, kind, .. } = conflict;
    let host = mount.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
    let prefix = &mount.prefix;
    match kind {
        ConflictKind::Same => format!("the prefix {prefix}{host} is held by tenant \"{holder}\""),
        ConflictKind::CaseOnly => {
            format!("the prefix {prefix}{host} differs only in case from one held by tenant \"{holder}\"")
        }
        ConflictKind::TakesEndpoint => {
            format!("the prefix {prefix}{host} would take a path of tenant \"{holder}\"'s own")
        }
        ConflictKind::Host => {
            let host = mount.host.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("the host {host} is tenant \"{holder}\"'s own")
        }
    }
}

#[cfg(test)]
mod tests;
