//! Who may answer where: the claims of a whole pass, judged at once. Pure.
//!
//! A name or mount that is held stays with its holder; among newcomers the order of their stems decides, so that the
//! outcome does not depend on timing. Tenants that swap prefixes in one pass both succeed. A live tenant whose new
//! claim loses goes on with what it held.

use std::collections::{BTreeMap, HashMap};

use crate::routing::{Claim, Conflict, ConflictKind, judge};
use crate::spec::{Mount, TenantName};

/// One entry's wish and possession.
#[derive(Debug, Clone)]
pub(super) struct Applicant<'a> {
    pub(super) stem: &'a str,
    /// What it wants to become: name and mounts of the candidate, if there is one.
    pub(super) wants: Option<(&'a TenantName, &'a [Mount])>,
    /// What it is: name and mounts of the revision in force.
    pub(super) holds: Option<(&'a TenantName, &'a [Mount])>,
}

/// Why a candidate may not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another entry has the name.
    Name { name: TenantName, holder: String },
    /// Another tenant has the mount.
    Mount(Conflict),
}

/// Refusals by stem.
type Refused = BTreeMap<String, Refusal>;

/// Judges candidates against one another and against what is held. Every candidate that is not refused may serve.
pub(super) fn settle(applicants: &[Applicant<'_>]) -> Refused {
    let mut refused = Refused::new();
    // Whoever loses falls back to what it holds, which may take a name or a mount from a newcomer: again, until nobody
    // loses. Each round refuses at least one more, so this ends.
    loop {
        let mut losers = losers_by_name(applicants, &refused);
        if losers.is_empty() {
            losers = losers_by_mount(applicants, &refused);
        }
        if losers.is_empty() {
            return refused;
        }
        refused.extend(losers);
    }
}

impl<'a> Applicant<'a> {
    /// What it stands for in this round.
    fn stands_for(&self, refused: &Refused) -> Option<(&'a TenantName, &'a [Mount])> {
        if refused.contains_key(self.stem) { self.holds } else { self.wants.or(self.holds) }
    }

    /// Whether it is a candidate that may still lose.
    fn may_lose(&self, refused: &Refused) -> bool {
        self.wants.is_some() && !refused.contains_key(self.stem)
    }
}

fn losers_by_name(applicants: &[Applicant<'_>], refused: &Refused) -> Refused {
    let standing: Vec<_> = applicants
        .iter()
        .filter_map(|applicant| Some((applicant, applicant.stands_for(refused)?.0)))
        .collect();
    let keeps = |(applicant, name): &&(&Applicant<'_>, &TenantName)| {
        applicant.holds.is_some_and(|(held, _)| held == *name)
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
    let mut judged: HashMap<_, _> = judge(&claims)
        .into_iter()
        .filter(|conflict| conflict.loser != conflict.holder)
        .map(|conflict| (conflict.loser.clone(), conflict))
        .collect();
    let candidates = applicants.iter().filter(|applicant| applicant.may_lose(refused));
    candidates
        .filter_map(|applicant| {
            let conflict = judged.remove(applicant.wants?.0)?;
            Some((applicant.stem.to_owned(), Refusal::Mount(conflict)))
        })
        .collect()
}

/// What an applicant claims in this round: as an incumbent the mounts that it held before, as a newcomer the others.
fn claims(applicant: &Applicant<'_>, refused: &Refused) -> impl Iterator<Item = Claim> {
    let claim = |(tenant, mounts): (&TenantName, &[Mount])| {
        let held = applicant.holds.map(|(_, mounts)| mounts).unwrap_or_default();
        let (kept, new): (Vec<_>, Vec<_>) = mounts.iter().cloned().partition(|mount| held.contains(mount));
        [(kept, true), (new, false)].map(|(mounts, incumbent)| Claim {
            tenant: tenant.clone(),
            mounts,
            incumbent,
        })
    };
    let both = applicant.stands_for(refused).map(claim);
    both.into_iter().flatten().filter(|claim| !claim.mounts.is_empty())
}

impl Refusal {
    /// One sentence for the operator, and what to do.
    pub(super) fn explain(&self) -> (String, &'static str) {
        match self {
            Self::Name { name, holder } => (
                format!("the name \"{name}\" is taken by the entry \"{holder}\""),
                "rename this file, or set name: in its overlay",
            ),
            Self::Mount(conflict) => {
                (mount_sentence(conflict), "choose another path_prefix in the overlay beside it")
            }
        }
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Prefix;

    /// Entries with what each wants and holds.
    struct Bed(Vec<(String, TenantName, Mounts, Mounts)>);

    type Mounts = Option<Vec<Mount>>;

    fn mounts(prefix: Option<&str>) -> Mounts {
        prefix.map(|prefix| vec![Mount { host: None, prefix: Prefix::parse(prefix).expect("a prefix") }])
    }

    impl Bed {
        fn new(rows: &[(&str, Option<&str>, Option<&str>)]) -> Self {
            let row = |&(stem, wants, holds): &(&str, _, _)| {
                (stem.to_owned(), TenantName::parse(stem).expect("a name"), mounts(wants), mounts(holds))
            };
            Self(rows.iter().map(row).collect())
        }

        fn refused(&self) -> Vec<String> {
            let applicants: Vec<_> = self
                .0
                .iter()
                .map(|(stem, name, wants, holds)| Applicant {
                    stem,
                    wants: wants.as_deref().map(|mounts| (name, mounts)),
                    holds: holds.as_deref().map(|mounts| (name, mounts)),
                })
                .collect();
            settle(&applicants).into_keys().collect()
        }
    }

    #[test]
    fn the_holder_stays_and_the_newcomer_is_refused() {
        assert_eq!(Bed::new(&[("a", Some("/x"), None), ("b", None, Some("/x"))]).refused(), ["a"]);
    }

    #[test]
    fn among_newcomers_the_first_by_name_wins() {
        assert_eq!(Bed::new(&[("a", Some("/x"), None), ("b", Some("/x"), None)]).refused(), ["b"]);
    }

    #[test]
    fn a_swap_in_one_pass_succeeds() {
        let swap = Bed::new(&[("a", Some("/y"), Some("/x")), ("b", Some("/x"), Some("/y"))]);
        assert!(swap.refused().is_empty());
    }

    #[test]
    fn a_mover_that_loses_keeps_what_it_held_even_from_a_newcomer() {
        let rows = [("a", Some("/y"), Some("/x")), ("b", None, Some("/y")), ("c", Some("/x"), None)];
        assert_eq!(Bed::new(&rows).refused(), ["a", "c"]);
    }

    #[test]
    fn a_prefix_that_is_given_up_is_free_in_the_same_pass() {
        assert!(Bed::new(&[("a", Some("/y"), Some("/x")), ("b", Some("/x"), None)]).refused().is_empty());
    }

    #[test]
    fn who_adds_a_mount_keeps_the_ones_it_has_against_a_newcomer() {
        let both = |prefixes: &[&str]| {
            prefixes.iter().flat_map(|prefix| mounts(Some(prefix))).flatten().collect::<Vec<_>>()
        };
        let (a, b) = (TenantName::parse("a").expect("a name"), TenantName::parse("b").expect("a name"));
        let (wants_a, wants_b, holds_b) = (both(&["/x"]), both(&["/x", "/y"]), both(&["/x"]));
        let applicants = [
            Applicant { stem: "a", wants: Some((&a, &wants_a)), holds: None },
            Applicant { stem: "b", wants: Some((&b, &wants_b)), holds: Some((&b, &holds_b)) },
        ];
        assert_eq!(settle(&applicants).into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn names_are_held_swapped_and_given_up_like_prefixes() {
        let name = |text| TenantName::parse(text).expect("a name");
        let (x, y) = (name("x"), name("y"));
        let (one, two, three) = (mounts(Some("/1")), mounts(Some("/2")), mounts(Some("/3")));
        let one = one.as_deref().expect("mounts");
        let two = two.as_deref().expect("mounts");
        let three = three.as_deref().expect("mounts");
        let swap = [
            Applicant { stem: "a", wants: Some((&y, one)), holds: Some((&x, one)) },
            Applicant { stem: "b", wants: Some((&x, two)), holds: Some((&y, two)) },
        ];
        assert!(settle(&swap).is_empty());
        let held = [
            Applicant { stem: "a", wants: Some((&x, one)), holds: None },
            Applicant { stem: "b", wants: None, holds: Some((&x, two)) },
            Applicant { stem: "c", wants: Some((&y, three)), holds: None },
        ];
        let refusal = Refusal::Name { name: x.clone(), holder: "b".into() };
        assert_eq!(settle(&held), BTreeMap::from([("a".to_owned(), refusal)]));
    }
}
