use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::oauth::testkit::login_spec;
use crate::spec::{AccessRules, MachineClientSpec};

fn name(text: &str) -> TenantName {
    TenantName::parse(text).expect("a name")
}

/// Publishes a tenant of an entry, and returns its incarnation.
fn publish(incarnations: &IncarnationTable, tenant: &str, entry_id: &str) -> TenantIncarnation {
    let (tenant, login) = (name(tenant), login_spec(AccessRules::default()));
    let tenant_incarnation = incarnations.current_or_new(&tenant, entry_id, &login);
    incarnations.activate(&tenant, &entry_id.into(), Some(&tenant_incarnation));
    tenant_incarnation
}

/// Returns the incarnations as loaded from the store after all changes were written.
fn reload(incarnations: &IncarnationTable) -> IncarnationTable {
    let mut kept = BTreeMap::new();
    for change in incarnations.unpersisted() {
        match change {
            IncarnationChange::Begin(one) => drop(kept.insert(Arc::clone(one.incarnation.tenant()), one)),
            IncarnationChange::End(tenant) => drop(kept.remove(&tenant)),
        }
    }
    let map = incarnations.lock();
    let ended = map.ended.iter().map(|(tenant, id)| Incarnation::from_parts(tenant, *id)).collect();
    IncarnationTable::from_stored(
        StoredIncarnations { current: kept.into_values().collect(), ended },
        map.seed,
    )
}

#[test]
fn an_incarnation_lasts_until_another_entry_takes_the_name_or_the_entry_is_removed() {
    let incarnations = IncarnationTable::default();
    let first = publish(&incarnations, "a", "a").current;
    assert_eq!(publish(&incarnations, "a", "a").current, first, "its files were dropped again");
    let other = publish(&incarnations, "b", "b").current;
    let second = publish(&incarnations, "a", "z").current;
    assert_ne!(second, first);
    assert_ne!(publish(&incarnations, "a", "a").current, first, "what ended does not come back");
    let third = publish(&incarnations, "a", "a").current;
    incarnations.end_entry("a");
    assert_ne!(publish(&incarnations, "a", "a").current, third);
    assert_eq!(publish(&incarnations, "b", "b").current, other);
}

#[test]
fn the_tenant_published_last_has_the_current_incarnation() {
    let (incarnations, a, entry_id) = (IncarnationTable::default(), name("a"), Arc::from("a"));
    let login = login_spec(AccessRules::default());
    let [first, second] = [(); 2].map(|()| incarnations.current_or_new(&a, "a", &login));
    incarnations.activate(&a, &entry_id, Some(&first));
    incarnations.activate(&a, &entry_id, Some(&second));
    assert_eq!(incarnations.current_or_new(&a, "a", &login).current, second.current);
}

#[test]
fn persisted_changes_are_not_written_again() {
    let incarnations = IncarnationTable::default();
    publish(&incarnations, "a", "a");
    publish(&incarnations, "b", "b");
    assert_eq!((incarnations.unpersisted().len(), incarnations.has_unpersisted()), (2, true));
    incarnations.mark_persisted(1, &[]);
    assert!(
        matches!(&incarnations.unpersisted()[..], [IncarnationChange::Begin(kept)] if **kept.incarnation.tenant() == *"b")
    );
    incarnations.mark_persisted(1, &[]);
    assert!(!incarnations.has_unpersisted());
}

#[test]
fn machine_clients_are_the_same_only_with_equal_ids_secrets_and_keys() {
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
fn a_tenant_that_is_never_published_ends_no_incarnation() {
    let incarnations = IncarnationTable::default();
    let first = publish(&incarnations, "a", "a").current;
    let candidate = incarnations.current_or_new(&name("a"), "z", &login_spec(AccessRules::default()));
    assert_ne!(candidate.current, first);
    assert_eq!(publish(&incarnations, "a", "a").current, first);
}

#[test]
fn an_entry_without_login_ends_the_incarnation_of_another_entry() {
    let incarnations = IncarnationTable::default();
    let first = publish(&incarnations, "a", "a").current;
    incarnations.activate(&name("a"), &"a".into(), None);
    assert_eq!(publish(&incarnations, "a", "a").current, first, "its own login was off for a while");
    incarnations.activate(&name("a"), &"z".into(), None);
    assert_ne!(publish(&incarnations, "a", "a").current, first);
}

#[test]
fn legacy_data_belongs_to_the_first_entry_that_takes_the_name() {
    let incarnation = Incarnation::new(&"a".into());
    let kept = || StoredIncarnations {
        current: vec![IncarnationRecord {
            incarnation: incarnation.clone(),
            entry_id: None,
            payload: Vec::new(),
        }],
        ended: Vec::new(),
    };
    let incarnations = IncarnationTable::from_stored(kept(), None);
    let taken = publish(&incarnations, "a", "a");
    assert_eq!(taken.current, incarnation);
    let before = taken.legacy.expect("what held then is known");
    let now = login_spec(AccessRules::default());
    assert_eq!(before.provider_app, ProviderApp::from_spec(&now.provider));
    assert!(before.has_same_machine_clients(&now));
    assert!(!before.has_same_machine_clients(&LoginSpec { machine_clients: Vec::new(), ..now }));
    let again = publish(&reload(&incarnations), "a", "a");
    assert_eq!((again.current, again.legacy), (incarnation.clone(), Some(before)), "and stays known");
    assert_ne!(publish(&incarnations, "a", "z").current, incarnation);
    // Taken over without a login: the settings of its grants are unknown.
    let incarnations = IncarnationTable::from_stored(kept(), None);
    incarnations.activate(&name("a"), &"a".into(), None);
    let taken = publish(&incarnations, "a", "a");
    assert_eq!((taken.current, taken.legacy), (incarnation.clone(), None));
}

/// A gateway among several with one store.
fn node() -> IncarnationTable {
    IncarnationTable::from_stored(StoredIncarnations::default(), Some([7; 16]))
}

/// Returns what the store has once it took the changes of a node.
fn stored(node: &IncarnationTable) -> StoredIncarnations {
    let mut stored = StoredIncarnations::default();
    for change in node.unpersisted() {
        stored.current.retain(|known| known.incarnation.tenant() != change.tenant());
        if let IncarnationChange::Begin(record) = change {
            stored.current.push(record);
        }
    }
    let map = node.lock();
    stored.ended = map.ended.iter().map(|(tenant, id)| Incarnation::from_parts(tenant, *id)).collect();
    stored
}

#[test]
fn gateways_with_one_store_come_to_the_same_incarnation_by_themselves() {
    let (one, other) = (node(), node());
    let first = publish(&one, "a", "a").current;
    assert_eq!(publish(&other, "a", "a").current, first);
    assert_ne!(publish(&node(), "b", "a").current, first);
    assert_ne!(publish(&IncarnationTable::default(), "a", "a").current, first, "a file's are random");
    one.end_entry("a");
    let after = stored(&one);
    assert!(after.current.is_empty());
    other.mark_persisted(1, &[]);
    other.adopt(None, after);
    let second = publish(&one, "a", "a").current;
    assert_ne!(second, first);
    assert_eq!(publish(&other, "a", "a").current, second, "it follows what ended");
}

#[test]
fn a_tenant_that_was_published_with_another_incarnation_is_superseded() {
    let (one, other) = (node(), node());
    publish(&one, "a", "a");
    one.end_entry("a");
    let current = publish(&one, "a", "a").current;
    // The other knows nothing of it, and begins what has ended.
    let outdated = publish(&other, "a", "a").current;
    assert_ne!(outdated, current);
    other.mark_persisted(1, &["a".into()]);
    assert!(other.has_unpersisted(), "what was refused is tried again");
    other.adopt(Some(&["a".into()]), stored(&one));
    assert!(!other.has_unpersisted(), "unless it cannot be written any more");
    assert_eq!(std::mem::take(&mut other.lock().superseded), ["a".into()]);
    assert_eq!(publish(&other, "a", "a").current, current, "built again");
    other.adopt(Some(&["a".into()]), stored(&one));
    assert!(other.lock().superseded.is_empty());
}

#[test]
fn a_change_that_is_refused_while_others_serve_the_entry_waits() {
    let (one, other) = (node(), node());
    let first = publish(&one, "a", "a").current;
    publish(&other, "a", "a");
    other.mark_persisted(1, &[]);
    other.end_entry("a");
    other.mark_persisted(1, &["a".into()]);
    other.adopt(None, stored(&one));
    assert!(matches!(&other.unpersisted()[..], [IncarnationChange::End(_)]));
    // Its entry comes back before the others lost theirs.
    let again = publish(&other, "a", "a").current;
    assert_ne!(again, first);
    other.adopt(None, stored(&one));
    assert!(!other.has_unpersisted());
    assert_eq!(publish(&other, "a", "a").current, first);
}

#[derive(Debug, Clone)]
enum TestAction {
    Publish { tenant: &'static str, entry_id: &'static str, login: bool },
    Remove { entry_id: &'static str },
    Restart,
}

fn any_action() -> impl Strategy<Value = TestAction> {
    let (tenant, entry_id) =
        (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["x", "y", "z"]));
    prop_oneof![
        6 => (tenant, entry_id.clone(), prop::bool::weighted(0.8))
            .prop_map(|(tenant, entry_id, login)| TestAction::Publish { tenant, entry_id, login }),
        1 => entry_id.prop_map(|entry_id| TestAction::Remove { entry_id }),
        1 => Just(TestAction::Restart),
    ]
}

proptest! {
    /// However names move between entries, an incarnation belongs to one entry only and never
    /// returns after it ended.
    #[test]
    fn an_incarnation_belongs_to_one_entry_and_never_comes_back(
        acts in prop::collection::vec(any_action(), 1..40),
        seed in prop::option::of(Just([7; 16])),
    ) {
        let mut incarnations = IncarnationTable::from_stored(StoredIncarnations::default(), seed);
        // The entry of each incarnation, and whether it ended; the latest incarnation of each name.
        let mut entries: Vec<(Incarnation, &str)> = Vec::new();
        let mut current: BTreeMap<&str, (&str, Option<Incarnation>)> = BTreeMap::new();
        let mut ended: Vec<Incarnation> = Vec::new();
        for act in acts {
            match act {
                TestAction::Publish { tenant, entry_id, login: true } => {
                    let incarnation = publish(&incarnations, tenant, entry_id).current;
                    prop_assert!(!ended.contains(&incarnation), "it came back");
                    for (known, owner) in &entries {
                        prop_assert!(*known != incarnation || *owner == entry_id, "{owner}'s is {entry_id}'s");
                    }
                    let before = current.insert(tenant, (entry_id, Some(incarnation.clone())));
                    if let Some((_, Some(before))) = before.filter(|(_, before)| *before != Some(incarnation.clone())) {
                        ended.push(before);
                    }
                    entries.push((incarnation, entry_id));
                }
                TestAction::Publish { tenant, entry_id, login: false } => {
                    incarnations.activate(&name(tenant), &entry_id.into(), None);
                    if let Some((owner, incarnation)) = current.get_mut(tenant)
                        && *owner != entry_id
                    {
                        ended.extend(incarnation.take());
                        *owner = entry_id;
                    }
                }
                TestAction::Remove { entry_id } => {
                    incarnations.end_entry(entry_id);
                    for (owner, incarnation) in current.values_mut() {
                        if *owner == entry_id {
                            ended.extend(incarnation.take());
                        }
                    }
                }
                TestAction::Restart => {
                    let unpersisted = incarnations.unpersisted();
                    let next = reload(&incarnations);
                    // Changes that were written stay written.
                    next.lock().unpersisted = unpersisted;
                    incarnations = next;
                }
            }
        }
    }
}
