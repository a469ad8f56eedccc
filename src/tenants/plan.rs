//! Who may answer where: the claims of a whole pass, judged at once. Pure.
//!
//! A name or mount that is held stays with its holder; among newcomers the order of their stems decides, so that the
//! outcome does not depend on timing. Tenants that swap prefixes in one pass both succeed. A live tenant whose new
//! claim loses goes on with what it held.

use std::collections::{BTreeMap, BTreeSet};

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

/// Judges candidates against one another and against what is held. Every candidate that is not refused may serve.
pub(super) fn settle(applicants: &[Applicant<'_>]) -> BTreeMap<String, Refusal> {
    let mut refused = refused_by_name(applicants);
    // Whoever loses falls back to what it holds, which may take a mount from a newcomer: again, until nobody loses.
    // Each round refuses at least one more, so this ends.
    loop {
        let claims: Vec<_> = applicants
            .iter()
            .filter_map(|applicant| claim(applicant, refused.contains_key(applicant.stem)))
            .collect();
        let judged: BTreeMap<_, _> =
            judge(&claims).into_iter().map(|lost| (lost.loser.clone(), lost)).collect();
        let losers: Vec<_> = applicants
            .iter()
            .filter(|applicant| !refused.contains_key(applicant.stem))
            .filter_map(|applicant| Some((applicant.stem, judged.get(applicant.wants?.0)?)))
            .collect();
        if losers.is_empty() {
            return refused;
        }
        refused
            .extend(losers.into_iter().map(|(stem, lost)| (stem.to_owned(), Refusal::Mount(lost.clone()))));
    }
}

fn refused_by_name(applicants: &[Applicant<'_>]) -> BTreeMap<String, Refusal> {
    let holders = applicants.iter().filter_map(|applicant| Some((applicant.holds?.0, applicant.stem)));
    let mut taken: BTreeMap<_, _> = holders.collect();
    let mut refused = BTreeMap::new();
    for applicant in applicants {
        let Some((name, _)) = applicant.wants else { continue };
        let holder = *taken.entry(name).or_insert(applicant.stem);
        if holder != applicant.stem {
            refused.insert(
                applicant.stem.to_owned(),
                Refusal::Name { name: name.clone(), holder: holder.to_owned() },
            );
        }
    }
    refused
}

/// What an applicant claims in this round. It is an incumbent only for mounts that it held before.
fn claim(applicant: &Applicant<'_>, refused: bool) -> Option<Claim> {
    let (tenant, mounts) = if refused { applicant.holds? } else { applicant.wants.or(applicant.holds)? };
    let held: BTreeSet<_> = applicant.holds.iter().flat_map(|(_, mounts)| mounts.iter()).collect();
    let incumbent = mounts.iter().all(|mount| held.contains(mount));
    Some(Claim { tenant: tenant.clone(), mounts: mounts.to_vec(), incumbent })
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

    struct Bed(Vec<(String, TenantName, Option<Vec<Mount>>, Option<Vec<Mount>>)>);

    fn mounts(prefix: Option<&str>) -> Option<Vec<Mount>> {
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
}
