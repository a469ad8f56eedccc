//! Resolves claims: decides, for all entries of a pass at once, which tenant may have which name
//! and mounts. Pure.
//!
//! A name, mount or host stays with its holder, whether or not the holder's files can be used;
//! among newcomers the order of their stems decides, so that the outcome does not depend on timing.
//! Tenants that swap prefixes both succeed. A live tenant whose new claim loses keeps what it held.
//!
//! A claim that was refused takes nothing by itself, however free it becomes: else a file that lost could wait for its
//! holder to be replaced. It counts again when its files change, when an operator accepts it, or when the holder itself wants
//! to trade places with it.
//!
//! Who may be open beside whom is judged here, too (`guards`).

mod guards;

use std::collections::{BTreeMap, HashMap};

use crate::base::diagnostic::Diagnostic;
use crate::routing::{Claim, Conflict, ConflictKind, against, judge};
use crate::spec::{Mount, Reach, Stake, TenantName};

pub(crate) use guards::stays_open;

/// One entry's wish and possession.
#[derive(Debug, Clone, Default)]
pub struct Applicant<'a> {
    /// The stem of the entry.
    pub stem: &'a str,
    /// The claim of its candidate, if there is one.
    pub wants: Option<Stake<'a>>,
    /// The claim that it holds: that of the revision in force, or of the last one that was.
    pub holds: Option<Stake<'a>>,
    /// Whether its candidate was refused before.
    pub waits: bool,
    /// What its candidate would give to everybody, where nothing says that this is meant.
    pub opens: Vec<Reach>,
    /// What it gives to some callers only, or would, if its files could be used.
    pub guards: Vec<Reach>,
}

/// Why a candidate may not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another entry holds the name.
    Name { name: TenantName, holder: String },
    /// Another tenant holds the mount, or its host.
    Mount(Conflict),
    /// It would give everybody what another entry gives to some.
    Guarded { by: String },
    /// It was refused before, and nobody has any of this now.
    Free { name: TenantName, mounts: Vec<Mount> },
}

/// Refusals by stem.
type Refused = BTreeMap<String, Refusal>;

/// Decides between the candidates and what is held. Every candidate without a refusal may serve.
pub fn settle(applicants: &[Applicant<'_>]) -> Refused {
    let mut refused = guards::refused(applicants);
    let (waiting, contenders) = set_aside(applicants, &refused);
    // Whoever loses falls back to what it holds, which may take a name or a mount from a newcomer: again, until nobody
    // loses. Each round refuses at least one more, so this ends.
    loop {
        let mut losers = losers_by_name(&contenders, &refused);
        if losers.is_empty() {
            losers = losers_by_mount(&contenders, &refused);
        }
        if losers.is_empty() {
            break;
        }
        refused.extend(losers);
    }
    let still_refused = explained(&waiting, &contenders, &refused);
    refused.extend(still_refused);
    refused
}

/// A refused claim: the stem, and what it wants.
type Waiting<'a> = (&'a str, Stake<'a>);

/// Takes out of the contest the claims that are refused already, and those that were refused before, except for those
/// whose holder wants to trade.
fn set_aside<'a>(applicants: &[Applicant<'a>], refused: &Refused) -> (Vec<Waiting<'a>>, Vec<Applicant<'a>>) {
    let contends_still = |applicant: &&Applicant<'a>| !refused.contains_key(applicant.stem);
    let movers: Vec<_> = applicants.iter().filter(contends_still).filter_map(Applicant::moves).collect();
    let mut waiting = Vec::new();
    let stands = |applicant: &Applicant<'a>| match applicant.wants.filter(|_| applicant.waits) {
        _ if refused.contains_key(applicant.stem) => Applicant { wants: None, ..applicant.clone() },
        Some(wants) if !movers.iter().any(|mover| trades(applicant, wants, mover)) => {
            waiting.push((applicant.stem, wants));
            Applicant { wants: None, ..applicant.clone() }
        }
        _ => applicant.clone(),
    };
    let contenders = applicants.iter().map(stands).collect();
    (waiting, contenders)
}

/// Whether the mover leaves what the applicant wants, and wants what the applicant holds.
fn trades(applicant: &Applicant<'_>, wants: Stake<'_>, mover: &(Stake<'_>, Stake<'_>)) -> bool {
    let (leaves, comes) = *mover;
    applicant.holds.is_some_and(|holds| collide(comes, holds)) && collide(wants, leaves)
}

/// Whether two claims exclude each other.
fn collide(one: Stake<'_>, other: Stake<'_>) -> bool {
    let (held, wanted) = (newcomer(one), newcomer(other));
    one.name == other.name || against(&[held], [&wanted]).iter().any(Option::is_some)
}

fn newcomer(stake: Stake<'_>) -> Claim {
    let Stake { name, mounts, shares_hosts } = stake;
    Claim { tenant: name.clone(), mounts: mounts.to_vec(), shares_hosts, incumbent: false }
}

/// Returns why each refused claim is still refused.
fn explained(waiting: &[Waiting<'_>], contenders: &[Applicant<'_>], refused: &Refused) -> Refused {
    if waiting.is_empty() {
        return Refused::new();
    }
    let standing = || contenders.iter().filter_map(|one| Some((one.stem, one.stands_for(refused)?)));
    let names: HashMap<_, _> = standing().map(|(stem, stake)| (stake.name, stem)).collect();
    let wanted_by: HashMap<_, _> = waiting.iter().map(|(stem, wants)| (*stem, wants.name)).collect();
    // Its own mounts are no conflict, whatever name it has now.
    let own = |(stem, stake): (&str, Stake<'_>)| {
        let name = wanted_by.get(stem).copied().unwrap_or(stake.name).clone();
        Claim { tenant: name, ..newcomer(stake) }
    };
    let held: Vec<_> = standing().map(own).collect();
    let wanted: Vec<_> = waiting.iter().map(|(_, wants)| newcomer(*wants)).collect();
    let conflicts = against(&held, &wanted);
    let explain = |((stem, wants), conflict): (&Waiting<'_>, Option<Conflict>)| {
        let holder = names.get(wants.name).filter(|holder| *holder != stem);
        let refusal = match (holder, conflict) {
            (Some(holder), _) => Refusal::Name { name: wants.name.clone(), holder: (*holder).to_owned() },
            (None, Some(conflict)) => Refusal::Mount(conflict),
            (None, None) => Refusal::Free { name: wants.name.clone(), mounts: wants.mounts.to_vec() },
        };
        ((*stem).to_owned(), refusal)
    };
    waiting.iter().zip(conflicts).map(explain).collect()
}

impl<'a> Applicant<'a> {
    /// Returns the claim that the entry stands for in this round.
    fn stands_for(&self, refused: &Refused) -> Option<Stake<'a>> {
        if refused.contains_key(self.stem) { self.holds } else { self.wants.or(self.holds) }
    }

    /// Whether the entry has a candidate that may still lose.
    fn may_lose(&self, refused: &Refused) -> bool {
        self.wants.is_some() && !refused.contains_key(self.stem)
    }

    /// Returns what the entry leaves and what it wants, if its files say so for the first time.
    fn moves(&self) -> Option<(Stake<'a>, Stake<'a>)> {
        let (holds, wants) = (self.holds?, self.wants?);
        (!self.waits && !holds.equals(&wants)).then_some((holds, wants))
    }
}

fn losers_by_name(applicants: &[Applicant<'_>], refused: &Refused) -> Refused {
    let standing: Vec<_> = applicants
        .iter()
        .filter_map(|applicant| Some((applicant, applicant.stands_for(refused)?.name)))
        .collect();
    let keeps = |(applicant, name): &&(&Applicant<'_>, &TenantName)| {
        applicant.holds.is_some_and(|held| held.name == *name)
    };
    let mut taken: HashMap<_, _> =
        standing.iter().filter(keeps).map(|(applicant, name)| (*name, applicant.stem)).collect();
    let mut losers = Refused::new();
    for (applicant, name) in standing {
        let holder = *taken.entry(name).or_insert(applicant.stem);
        if holder != applicant.stem && applicant.may_lose(refused) {
            let refusal = Refusal::Name { name: name.clone(), holder: holder.to_owned() };
            losers.insert(applicant.stem.to_owned(), refusal);
        }
    }
    losers
}

fn losers_by_mount(applicants: &[Applicant<'_>], refused: &Refused) -> Refused {
    let claims: Vec<_> = applicants.iter().flat_map(|applicant| claims(applicant, refused)).collect();
    let mut judged: HashMap<_, _> =
        judge(&claims).into_iter().map(|conflict| (conflict.loser.clone(), conflict)).collect();
    let candidates = applicants.iter().filter(|applicant| applicant.may_lose(refused));
    candidates
        .filter_map(|applicant| {
            let conflict = judged.remove(applicant.wants?.name)?;
            Some((applicant.stem.to_owned(), Refusal::Mount(conflict)))
        })
        .collect()
}

/// Returns the claims of an applicant in this round: as an incumbent for the mounts that it held
/// before, as a newcomer for the others. A host that it shared and now wants for itself is claimed
/// anew.
fn claims(applicant: &Applicant<'_>, refused: &Refused) -> impl Iterator<Item = Claim> {
    let holds = applicant.holds;
    let claim = move |stake: Stake<'_>| {
        let held = |mount: &Mount| {
            holds.is_some_and(|holds| {
                let as_before = mount.host.is_none() || stake.shares_hosts || !holds.shares_hosts;
                as_before && holds.mounts.contains(mount)
            })
        };
        let (kept, new): (Vec<_>, Vec<_>) = stake.mounts.iter().cloned().partition(held);
        [(kept, true), (new, false)].map(|(mounts, incumbent)| Claim { mounts, incumbent, ..newcomer(stake) })
    };
    let both = applicant.stands_for(refused).map(claim);
    both.into_iter().flatten().filter(|claim| !claim.mounts.is_empty())
}

impl Refusal {
    /// Turns the refusal into a finding about the entry with this stem.
    pub fn finding(&self, stem: &str) -> Diagnostic {
        match self {
            Self::Name { name, holder } => {
                let message = format!("the name \"{name}\" is taken by the entry \"{holder}\"");
                Diagnostic::error("claim-taken", message)
                    .help("rename this file, or set name: in its overlay")
            }
            Self::Mount(conflict) => {
                let help = match conflict.kind {
                    ConflictKind::Host => {
                        "choose another host, or say share_host: true in the operator's files of both tenants"
                    }
                    _ => "choose another path_prefix in the overlay beside it",
                };
                Diagnostic::error("claim-taken", mount_sentence(conflict)).help(help)
            }
            Self::Guarded { by } => guards::refusal(by),
            Self::Free { name, mounts } => {
                let places: Vec<_> = mounts.iter().map(shown).collect();
                let places = places.join(", ");
                let message = format!(
                    "nothing is in the way of the name \"{name}\" and {places} any more, but this claim was refused before: another had \
                     one of them, or guarded the same backend; it takes nothing by itself"
                );
                let help = format!(
                    "if it is meant, accept it with `tenantd tenants accept {}`; or change its files",
                    quoted(stem)
                );
                Diagnostic::error("claim-free", message).help(help)
            }
        }
    }
}

fn shown(mount: &Mount) -> String {
    match &mount.host {
        Some(host) => format!("{host}{}", mount.prefix),
        None => mount.prefix.to_string(),
    }
}

/// Quotes a stem for a shell.
fn quoted(stem: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    match stem.chars().all(is_plain) {
        true => stem.to_owned(),
        false => format!(
            "'{}'",
            stem.chars().filter(|c| !c.is_control()).collect::<String>().replace('\'', "'\\''")
        ),
    }
}

fn mount_sentence(conflict: &Conflict) -> String {
    let Conflict { holder, mount, kind, .. } = conflict;
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
