use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::oauth::testkit::login_spec;
use crate::spec::{AccessRules, MachineClientSpec};

fn name(text: &str) -> TenantName {
    TenantName::parse(text).expect("a name")
}

/// Publishes a tenant of an entry, and returns its life.
fn publish(lives: &IncarnationTable, tenant: &str, stem: &str) -> TenantIncarnation {
    let (tenant, login) = (name(tenant), login_spec(AccessRules::default()));
    let lived = lives.current_or_new(&tenant, stem, &login);
    lives.activate(&tenant, &stem.into(), Some(&lived));
    lived
}

/// Returns the lives as loaded from the store after all changes were written.
fn restarted(lives: &IncarnationTable) -> IncarnationTable {
    let mut kept = BTreeMap::new();
    for turn in lives.unpersisted() {
        match turn {
            IncarnationChange::Begin(one) => drop(kept.insert(Arc::clone(one.incarnation.tenant()), one)),
            IncarnationChange::End(tenant) => drop(kept.remove(&tenant)),
        }
    }
    IncarnationTable::from_records(kept.into_values().collect())
}

#[test]
fn a_life_lasts_until_another_entry_takes_the_name_or_the_entry_is_removed() {
    let lives = IncarnationTable::default();
    let first = publish(&lives, "a", "a").current;
    assert_eq!(publish(&lives, "a", "a").current, first, "its files were dropped again");
    let other = publish(&lives, "b", "b").current;
    let second = publish(&lives, "a", "z").current;
    assert_ne!(second, first);
    assert_ne!(publish(&lives, "a", "a").current, first, "what ended does not come back");
    let third = publish(&lives, "a", "a").current;
    lives.end_entry("a");
    assert_ne!(publish(&lives, "a", "a").current, third);
    assert_eq!(publish(&lives, "b", "b").current, other);
}

#[test]
fn of_two_that_were_built_at_once_the_one_that_serves_last_is_in_force() {
    let (lives, a, stem) = (IncarnationTable::default(), name("a"), Arc::from("a"));
    let login = login_spec(AccessRules::default());
    let [first, second] = [(); 2].map(|()| lives.current_or_new(&a, "a", &login));
    lives.activate(&a, &stem, Some(&first));
    lives.activate(&a, &stem, Some(&second));
    assert_eq!(lives.current_or_new(&a, "a", &login).current, second.current);
}

#[test]
fn what_the_store_has_is_not_told_it_again() {
    let lives = IncarnationTable::default();
    publish(&lives, "a", "a");
    publish(&lives, "b", "b");
    assert_eq!((lives.unpersisted().len(), lives.has_unpersisted()), (2, true));
    lives.mark_persisted(1);
    assert!(
        matches!(&lives.unpersisted()[..], [IncarnationChange::Begin(kept)] if **kept.incarnation.tenant() == *"b")
    );
    lives.mark_persisted(1);
    assert!(!lives.has_unpersisted());
}

#[test]
fn machines_are_the_same_only_with_the_same_ids_secrets_and_keys() {
    let login = login_spec(AccessRules::default());
    let machine = login.machine_clients[0].clone();
    let before = LegacyState::from_login(&login);
    for changed in [
        MachineClientSpec { id: "another".into(), ..machine.clone() },
        MachineClientSpec { secret: Some(Digest::of(b"another")), ..machine.clone() },
        MachineClientSpec { secret: None, ..machine.clone() },
        MachineClientSpec { jwks: Some("https://keys.test/".into()), ..machine },
    ] {
        let now = LoginSpec { machine_clients: vec![changed], ..login.clone() };
        assert!(!before.has_same_machine_clients(&now), "{:?}", now.machine_clients);
    }
}

#[test]
fn what_is_built_and_never_serves_takes_nothing() {
    let lives = IncarnationTable::default();
    let first = publish(&lives, "a", "a").current;
    let candidate = lives.current_or_new(&name("a"), "z", &login_spec(AccessRules::default()));
    assert_ne!(candidate.current, first);
    assert_eq!(publish(&lives, "a", "a").current, first);
}

#[test]
fn a_name_that_another_entry_had_without_a_login_is_begun_anew_all_the_same() {
    let lives = IncarnationTable::default();
    let first = publish(&lives, "a", "a").current;
    lives.activate(&name("a"), &"a".into(), None);
    assert_eq!(publish(&lives, "a", "a").current, first, "its own login was off for a while");
    lives.activate(&name("a"), &"z".into(), None);
    assert_ne!(publish(&lives, "a", "a").current, first);
}

#[test]
fn what_an_earlier_version_kept_is_of_the_first_that_takes_the_name() {
    let life = Incarnation::new(&"a".into());
    let kept = || vec![IncarnationRecord { incarnation: life.clone(), entry_id: None, payload: Vec::new() }];
    let lives = IncarnationTable::from_records(kept());
    let taken = publish(&lives, "a", "a");
    assert_eq!(taken.current, life);
    let before = taken.legacy.expect("what held then is known");
    let now = login_spec(AccessRules::default());
    assert_eq!(before.upstream, ProviderApp::from_spec(&now.provider));
    assert!(before.has_same_machine_clients(&now));
    assert!(!before.has_same_machine_clients(&LoginSpec { machine_clients: Vec::new(), ..now }));
    let again = publish(&restarted(&lives), "a", "a");
    assert_eq!((again.current, again.legacy), (life.clone(), Some(before)), "and stays known");
    assert_ne!(publish(&lives, "a", "z").current, life);
    // Taken over without a login: the settings of its grants are unknown.
    let lives = IncarnationTable::from_records(kept());
    lives.activate(&name("a"), &"a".into(), None);
    let taken = publish(&lives, "a", "a");
    assert_eq!((taken.current, taken.legacy), (life.clone(), None));
}

#[derive(Debug, Clone)]
enum TestAction {
    Publish { tenant: &'static str, stem: &'static str, login: bool },
    Remove { stem: &'static str },
    Restart,
}

fn any_action() -> impl Strategy<Value = TestAction> {
    let (tenant, stem) = (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["x", "y", "z"]));
    prop_oneof![
        6 => (tenant, stem.clone(), prop::bool::weighted(0.8))
            .prop_map(|(tenant, stem, login)| TestAction::Publish { tenant, stem, login }),
        1 => stem.prop_map(|stem| TestAction::Remove { stem }),
        1 => Just(TestAction::Restart),
    ]
}

proptest! {
    /// However names move between entries, a life belongs to one entry only and never returns after
    /// it ended.
    #[test]
    fn a_life_is_of_one_entry_and_never_comes_back(acts in prop::collection::vec(any_action(), 1..40)) {
        let mut lives = IncarnationTable::default();
        // The entry of each life, and whether it ended; the latest life of each name.
        let mut whose: Vec<(Incarnation, &str)> = Vec::new();
        let mut current: BTreeMap<&str, (&str, Option<Incarnation>)> = BTreeMap::new();
        let mut over: Vec<Incarnation> = Vec::new();
        for act in acts {
            match act {
                TestAction::Publish { tenant, stem, login: true } => {
                    let life = publish(&lives, tenant, stem).current;
                    prop_assert!(!over.contains(&life), "it came back");
                    for (known, owner) in &whose {
                        prop_assert!(*known != life || *owner == stem, "{owner}'s is {stem}'s");
                    }
                    let before = current.insert(tenant, (stem, Some(life.clone())));
                    if let Some((_, Some(before))) = before.filter(|(_, before)| *before != Some(life.clone())) {
                        over.push(before);
                    }
                    whose.push((life, stem));
                }
                TestAction::Publish { tenant, stem, login: false } => {
                    lives.activate(&name(tenant), &stem.into(), None);
                    if let Some((owner, life)) = current.get_mut(tenant)
                        && *owner != stem
                    {
                        over.extend(life.take());
                        *owner = stem;
                    }
                }
                TestAction::Remove { stem } => {
                    lives.end_entry(stem);
                    for (owner, life) in current.values_mut() {
                        if *owner == stem {
                            over.extend(life.take());
                        }
                    }
                }
                TestAction::Restart => {
                    let turned = lives.unpersisted();
                    let next = restarted(&lives);
                    // Changes that were written stay written.
                    next.lock().unpersisted = turned;
                    lives = next;
                }
            }
        }
    }
}
