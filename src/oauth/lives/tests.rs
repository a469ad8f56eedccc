use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::oauth::bed::login;
use crate::spec::{AccessRules, MachineClientSpec};

fn name(text: &str) -> TenantName {
    TenantName::parse(text).expect("a name")
}

/// Publishes a tenant of an entry, and returns its life.
fn publish(lives: &Lives, tenant: &str, stem: &str) -> Lived {
    let (tenant, login) = (name(tenant), login(AccessRules::default()));
    let lived = lives.look(&tenant, stem, &login);
    lives.settle(&tenant, &stem.into(), Some(&lived));
    lived
}

/// Returns the lives as loaded from the store after all changes were written.
fn restarted(lives: &Lives) -> Lives {
    let mut kept = BTreeMap::new();
    for turn in lives.unwritten() {
        match turn {
            Turn::Begin(one) => drop(kept.insert(Arc::clone(one.life.tenant()), one)),
            Turn::End(tenant) => drop(kept.remove(&tenant)),
        }
    }
    Lives::of(kept.into_values().collect())
}

#[test]
fn a_life_lasts_until_another_entry_takes_the_name_or_the_entry_is_removed() {
    let lives = Lives::default();
    let first = publish(&lives, "a", "a").life;
    assert_eq!(publish(&lives, "a", "a").life, first, "its files were dropped again");
    let other = publish(&lives, "b", "b").life;
    let second = publish(&lives, "a", "z").life;
    assert_ne!(second, first);
    assert_ne!(publish(&lives, "a", "a").life, first, "what ended does not come back");
    let third = publish(&lives, "a", "a").life;
    lives.end("a");
    assert_ne!(publish(&lives, "a", "a").life, third);
    assert_eq!(publish(&lives, "b", "b").life, other);
}

#[test]
fn of_two_that_were_built_at_once_the_one_that_serves_last_is_in_force() {
    let (lives, a, stem) = (Lives::default(), name("a"), Arc::from("a"));
    let login = login(AccessRules::default());
    let [first, second] = [(); 2].map(|()| lives.look(&a, "a", &login));
    lives.settle(&a, &stem, Some(&first));
    lives.settle(&a, &stem, Some(&second));
    assert_eq!(lives.look(&a, "a", &login).life, second.life);
}

#[test]
fn what_the_store_has_is_not_told_it_again() {
    let lives = Lives::default();
    publish(&lives, "a", "a");
    publish(&lives, "b", "b");
    assert_eq!((lives.unwritten().len(), lives.is_behind()), (2, true));
    lives.are_written(1);
    assert!(matches!(&lives.unwritten()[..], [Turn::Begin(kept)] if **kept.life.tenant() == *"b"));
    lives.are_written(1);
    assert!(!lives.is_behind());
}

#[test]
fn machines_are_the_same_only_with_the_same_ids_secrets_and_keys() {
    let login = login(AccessRules::default());
    let machine = login.machine_clients[0].clone();
    let before = Before::of(&login);
    for changed in [
        MachineClientSpec { id: "another".into(), ..machine.clone() },
        MachineClientSpec { secret: Some(Digest::of(b"another")), ..machine.clone() },
        MachineClientSpec { secret: None, ..machine.clone() },
        MachineClientSpec { jwks: Some("https://keys.test/".into()), ..machine },
    ] {
        let now = LoginSpec { machine_clients: vec![changed], ..login.clone() };
        assert!(!before.has_the_machines_of(&now), "{:?}", now.machine_clients);
    }
}

#[test]
fn what_is_built_and_never_serves_takes_nothing() {
    let lives = Lives::default();
    let first = publish(&lives, "a", "a").life;
    let candidate = lives.look(&name("a"), "z", &login(AccessRules::default()));
    assert_ne!(candidate.life, first);
    assert_eq!(publish(&lives, "a", "a").life, first);
}

#[test]
fn a_name_that_another_entry_had_without_a_login_is_begun_anew_all_the_same() {
    let lives = Lives::default();
    let first = publish(&lives, "a", "a").life;
    lives.settle(&name("a"), &"a".into(), None);
    assert_eq!(publish(&lives, "a", "a").life, first, "its own login was off for a while");
    lives.settle(&name("a"), &"z".into(), None);
    assert_ne!(publish(&lives, "a", "a").life, first);
}

#[test]
fn what_an_earlier_version_kept_is_of_the_first_that_takes_the_name() {
    let life = Life::begin(&"a".into());
    let kept = || vec![Kept { life: life.clone(), stem: None, about: Vec::new() }];
    let lives = Lives::of(kept());
    let taken = publish(&lives, "a", "a");
    assert_eq!(taken.life, life);
    let before = taken.before.expect("what held then is known");
    let now = login(AccessRules::default());
    assert_eq!(before.upstream, Upstream::of(&now.identity));
    assert!(before.has_the_machines_of(&now));
    assert!(!before.has_the_machines_of(&LoginSpec { machine_clients: Vec::new(), ..now }));
    let again = publish(&restarted(&lives), "a", "a");
    assert_eq!((again.life, again.before), (life.clone(), Some(before)), "and stays known");
    assert_ne!(publish(&lives, "a", "z").life, life);
    // Taken over without a login: the settings of its grants are unknown.
    let lives = Lives::of(kept());
    lives.settle(&name("a"), &"a".into(), None);
    let taken = publish(&lives, "a", "a");
    assert_eq!((taken.life, taken.before), (life.clone(), None));
}

#[derive(Debug, Clone)]
enum Act {
    Publish { tenant: &'static str, stem: &'static str, login: bool },
    Remove { stem: &'static str },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let (tenant, stem) = (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["x", "y", "z"]));
    prop_oneof![
        6 => (tenant, stem.clone(), prop::bool::weighted(0.8))
            .prop_map(|(tenant, stem, login)| Act::Publish { tenant, stem, login }),
        1 => stem.prop_map(|stem| Act::Remove { stem }),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    /// However names move between entries, a life belongs to one entry only and never returns after
    /// it ended.
    #[test]
    fn a_life_is_of_one_entry_and_never_comes_back(acts in prop::collection::vec(act(), 1..40)) {
        let mut lives = Lives::default();
        // The entry of each life, and whether it ended; the latest life of each name.
        let mut whose: Vec<(Life, &str)> = Vec::new();
        let mut current: BTreeMap<&str, (&str, Option<Life>)> = BTreeMap::new();
        let mut over: Vec<Life> = Vec::new();
        for act in acts {
            match act {
                Act::Publish { tenant, stem, login: true } => {
                    let life = publish(&lives, tenant, stem).life;
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
                Act::Publish { tenant, stem, login: false } => {
                    lives.settle(&name(tenant), &stem.into(), None);
                    if let Some((owner, life)) = current.get_mut(tenant)
                        && *owner != stem
                    {
                        over.extend(life.take());
                        *owner = stem;
                    }
                }
                Act::Remove { stem } => {
                    lives.end(stem);
                    for (owner, life) in current.values_mut() {
                        if *owner == stem {
                            over.extend(life.take());
                        }
                    }
                }
                Act::Restart => {
                    let turned = lives.unwritten();
                    let next = restarted(&lives);
                    // Changes that were written stay written.
                    next.lock().unwritten = turned;
                    lives = next;
                }
            }
        }
    }
}
