use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;
use crate::routing::ConflictKind;
use crate::spec::{HeldClaim, HostName, Prefix};

/// Entries with the mounts that each wants and holds.
struct RequestFixture(Vec<(String, TenantName, OptionalMounts, OptionalMounts)>);

type OptionalMounts = Option<Vec<Mount>>;

fn mounts(prefix: Option<&str>) -> OptionalMounts {
    prefix.map(|prefix| {
        vec![Mount { listener: None, host: None, prefix: Prefix::parse(prefix).expect("a prefix") }]
    })
}

fn name(text: &str) -> TenantName {
    TenantName::parse(text).expect("a name")
}

fn claim<'a>(name: &'a TenantName, mounts: &'a [Mount]) -> TenantClaim<'a> {
    TenantClaim { name, mounts, shares_hosts: false }
}

impl RequestFixture {
    fn new(rows: &[(&str, Option<&str>, Option<&str>)]) -> Self {
        let row = |&(stem, wants, holds): &(&str, _, _)| {
            (stem.to_owned(), TenantName::parse(stem).expect("a name"), mounts(wants), mounts(holds))
        };
        Self(rows.iter().map(row).collect())
    }

    fn rejected_ids(&self) -> Vec<String> {
        let applicants: Vec<_> = self
            .0
            .iter()
            .map(|(stem, name, wants, holds)| ClaimRequest {
                entry_id: stem,
                wanted: wants.as_deref().map(|mounts| claim(name, mounts)),
                held: holds.as_deref().map(|mounts| claim(name, mounts)),
                was_rejected: false,
                ..ClaimRequest::default()
            })
            .collect();
        resolve(&applicants).into_keys().collect()
    }
}

#[test]
fn the_holder_stays_and_the_newcomer_is_refused() {
    assert_eq!(
        RequestFixture::new(&[("a", Some("/x"), None), ("b", None, Some("/x"))]).rejected_ids(),
        ["a"]
    );
}

#[test]
fn among_newcomers_the_first_by_name_wins() {
    assert_eq!(
        RequestFixture::new(&[("a", Some("/x"), None), ("b", Some("/x"), None)]).rejected_ids(),
        ["b"]
    );
}

#[test]
fn a_swap_in_one_pass_succeeds() {
    let swap = RequestFixture::new(&[("a", Some("/y"), Some("/x")), ("b", Some("/x"), Some("/y"))]);
    assert!(swap.rejected_ids().is_empty());
}

#[test]
fn a_mover_that_loses_keeps_what_it_held_even_from_a_newcomer() {
    let rows = [("a", Some("/y"), Some("/x")), ("b", None, Some("/y")), ("c", Some("/x"), None)];
    assert_eq!(RequestFixture::new(&rows).rejected_ids(), ["a", "c"]);
}

/// One entry of which everything is said.
fn applicant<'a>(
    entry_id: &'a str,
    wanted: Option<(&'a TenantName, &'a [Mount])>,
    holds: Option<(&'a TenantName, &'a [Mount])>,
    was_rejected: bool,
) -> ClaimRequest<'a> {
    let claim = |(name, mounts)| claim(name, mounts);
    ClaimRequest {
        entry_id,
        wanted: wanted.map(claim),
        held: holds.map(claim),
        was_rejected,
        newly_open_data: Vec::new(),
        restricted_data: Vec::new(),
    }
}

#[test]
fn a_claim_that_waits_gains_nothing_by_somebody_who_wants_its_own_place() {
    let (a, m) = (name("a"), name("m"));
    let [x, free, other] = ["/x", "/free", "/other"].map(|prefix| mounts(Some(prefix)).expect("mounts"));
    let refused = resolve(&[
        applicant("a", Some((&a, &free[..])), Some((&a, &x[..])), true),
        applicant("m", Some((&m, &x[..])), Some((&m, &other[..])), false),
    ]);
    assert!(
        matches!(refused["a"], ClaimRejection::NeedsAcceptance { .. }),
        "the mover leaves another place: {refused:?}"
    );
    assert!(matches!(refused["m"], ClaimRejection::MountTaken(_)), "{refused:?}");
}

#[test]
fn what_a_waiting_entry_has_itself_is_not_in_its_own_way() {
    let (old, new) = (name("old"), name("new"));
    let [x, y] = ["/x", "/y"].map(|prefix| mounts(Some(prefix)).expect("mounts"));
    for (wants, holds) in [((&old, &y), (&old, &x)), ((&new, &x), (&old, &x))] {
        let (wants, holds) = (Some((wants.0, &wants.1[..])), Some((holds.0, &holds.1[..])));
        let refused = resolve(&[applicant("a", wants, holds, true)]);
        assert!(matches!(refused["a"], ClaimRejection::NeedsAcceptance { .. }), "{refused:?}");
    }
}

#[test]
fn who_shares_a_host_no_longer_keeps_its_place_at_the_gateway() {
    let (a, z) = (name("a"), name("z"));
    let place = mounts(Some("/z")).expect("mounts");
    let refused = resolve(&[
        applicant("a", Some((&a, &place[..])), None, false),
        ClaimRequest {
            entry_id: "z",
            wanted: Some(claim(&z, &place)),
            held: Some(TenantClaim { shares_hosts: true, ..claim(&z, &place) }),
            was_rejected: false,
            newly_open_data: Vec::new(),
            restricted_data: Vec::new(),
        },
    ]);
    assert_eq!(refused.into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_prefix_that_is_given_up_is_free_in_the_same_pass() {
    assert!(
        RequestFixture::new(&[("a", Some("/y"), Some("/x")), ("b", Some("/x"), None)])
            .rejected_ids()
            .is_empty()
    );
}

#[test]
fn who_adds_a_mount_keeps_the_ones_it_has_against_a_newcomer() {
    let both = |prefixes: &[&str]| {
        prefixes.iter().flat_map(|prefix| mounts(Some(prefix))).flatten().collect::<Vec<_>>()
    };
    let (a, b) = (TenantName::parse("a").expect("a name"), TenantName::parse("b").expect("a name"));
    let (wants_a, wants_b, holds_b) = (both(&["/x"]), both(&["/x", "/y"]), both(&["/x"]));
    let applicants = [
        ClaimRequest { entry_id: "a", wanted: Some(claim(&a, &wants_a)), ..ClaimRequest::default() },
        ClaimRequest {
            entry_id: "b",
            wanted: Some(claim(&b, &wants_b)),
            held: Some(claim(&b, &holds_b)),
            was_rejected: false,
            ..ClaimRequest::default()
        },
    ];
    assert_eq!(resolve(&applicants).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn names_are_held_swapped_and_given_up_like_prefixes() {
    let (x, y) = (name("x"), name("y"));
    let (one, two, three) = (mounts(Some("/1")), mounts(Some("/2")), mounts(Some("/3")));
    let one = one.as_deref().expect("mounts");
    let two = two.as_deref().expect("mounts");
    let three = three.as_deref().expect("mounts");
    let swap = [
        ClaimRequest {
            entry_id: "a",
            wanted: Some(claim(&y, one)),
            held: Some(claim(&x, one)),
            ..ClaimRequest::default()
        },
        ClaimRequest {
            entry_id: "b",
            wanted: Some(claim(&x, two)),
            held: Some(claim(&y, two)),
            ..ClaimRequest::default()
        },
    ];
    assert!(resolve(&swap).is_empty());
    let held = [
        ClaimRequest { entry_id: "a", wanted: Some(claim(&x, one)), ..ClaimRequest::default() },
        ClaimRequest { entry_id: "b", held: Some(claim(&x, two)), ..ClaimRequest::default() },
        ClaimRequest { entry_id: "c", wanted: Some(claim(&y, three)), ..ClaimRequest::default() },
    ];
    let refusal = ClaimRejection::NameTaken { name: x.clone(), holder: "b".into() };
    assert_eq!(resolve(&held), BTreeMap::from([("a".to_owned(), refusal)]));
}

#[test]
fn a_refused_claim_takes_nothing_when_its_holder_leaves() {
    let (a, b, x) = (name("a"), name("b"), mounts(Some("/x")).expect("mounts"));
    let waits = ClaimRequest {
        entry_id: "a",
        wanted: Some(claim(&a, &x)),
        held: None,
        was_rejected: true,
        ..ClaimRequest::default()
    };
    let free = ClaimRejection::NeedsAcceptance { name: a.clone(), mounts: x.clone() };
    assert_eq!(resolve(std::slice::from_ref(&waits)), BTreeMap::from([("a".to_owned(), free)]));
    // Whoever comes after the holder left gets the place, and the one that waits is told so.
    let comes = ClaimRequest { entry_id: "b", wanted: Some(claim(&b, &x)), ..ClaimRequest::default() };
    let refused = resolve(&[waits.clone(), comes]);
    assert!(
        matches!(&refused["a"], ClaimRejection::MountTaken(conflict) if conflict.holder == b),
        "{refused:?}"
    );
    assert_eq!(refused.len(), 1);
    // An operator accepts the claim.
    assert!(resolve(&[ClaimRequest { was_rejected: false, ..waits }]).is_empty());
}

#[test]
fn a_swap_whose_halves_come_one_after_the_other_succeeds() {
    let (a, b) = (name("a"), name("b"));
    let (x, y) = (mounts(Some("/x")).expect("mounts"), mounts(Some("/y")).expect("mounts"));
    let first = ClaimRequest {
        entry_id: "a",
        wanted: Some(claim(&a, &y)),
        held: Some(claim(&a, &x)),
        ..ClaimRequest::default()
    };
    let second = ClaimRequest {
        entry_id: "b",
        wanted: Some(claim(&b, &x)),
        held: Some(claim(&b, &y)),
        ..ClaimRequest::default()
    };
    let stays = ClaimRequest { wanted: None, ..second.clone() };
    assert_eq!(resolve(&[first.clone(), stays]).into_keys().collect::<Vec<_>>(), ["a"]);
    let refused = ClaimRequest { was_rejected: true, ..first };
    assert!(resolve(&[refused.clone(), second.clone()]).is_empty());
    // But a claim does not succeed because a third entry wants its place.
    let c = name("c");
    let third = ClaimRequest { entry_id: "c", wanted: Some(claim(&c, &x)), ..ClaimRequest::default() };
    assert_eq!(resolve(&[refused, third]).into_keys().collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn a_host_is_one_tenants_unless_both_operators_share() {
    let (a, b) = (name("a"), name("b"));
    let on = |prefix: &str| {
        let host = HostName::parse("h.example");
        vec![Mount { listener: None, host, prefix: Prefix::parse(prefix).expect("a prefix") }]
    };
    let (root, help) = (on("/"), on("/help"));
    let judged = |a_shares, b_shares| {
        let holds = TenantClaim { shares_hosts: a_shares, ..claim(&a, &root) };
        let wants = TenantClaim { shares_hosts: b_shares, ..claim(&b, &help) };
        let holder = ClaimRequest { entry_id: "a", held: Some(holds), ..ClaimRequest::default() };
        resolve(&[holder, ClaimRequest { entry_id: "b", wanted: Some(wants), ..ClaimRequest::default() }])
    };
    for shares in [(false, false), (true, false), (false, true)] {
        let refused = judged(shares.0, shares.1);
        let Some(ClaimRejection::MountTaken(conflict)) = refused.get("b") else {
            panic!("{shares:?}: {refused:?}")
        };
        assert_eq!((conflict.kind, &conflict.holder), (ConflictKind::Host, &a));
    }
    assert!(judged(true, true).is_empty());
    // An entry that shares a host can have it alone again only if no other entry is on it.
    let (shared, alone) = (TenantClaim { shares_hosts: true, ..claim(&a, &root) }, claim(&a, &root));
    let other = TenantClaim { shares_hosts: true, ..claim(&b, &help) };
    let withdraws =
        ClaimRequest { entry_id: "a", wanted: Some(alone), held: Some(shared), ..ClaimRequest::default() };
    let beside = ClaimRequest { entry_id: "b", held: Some(other), ..ClaimRequest::default() };
    assert_eq!(resolve(&[withdraws.clone(), beside]).into_keys().collect::<Vec<_>>(), ["a"]);
    assert!(resolve(&[withdraws]).is_empty());
}

/// An entry whose claims collide with nobody's: what it would open, what it guards, and whether it
/// was refused before.
type Data<'a> = (&'a str, &'a [DataFingerprint], &'a [DataFingerprint], bool);

fn resolve_by_data(rows: &[Data<'_>]) -> BTreeMap<String, ClaimRejection> {
    let names: Vec<_> = rows.iter().map(|(stem, ..)| name(stem)).collect();
    let places: Vec<_> =
        rows.iter().map(|(stem, ..)| mounts(Some(&format!("/{stem}"))).expect("mounts")).collect();
    let applicants = rows.iter().zip(names.iter().zip(&places)).map(|(row, (name, places))| ClaimRequest {
        entry_id: row.0,
        wanted: Some(claim(name, places)),
        was_rejected: row.3,
        newly_open_data: row.1.to_vec(),
        restricted_data: row.2.to_vec(),
        ..ClaimRequest::default()
    });
    resolve(&applicants.collect::<Vec<_>>())
}

fn fingerprint(path: &str) -> DataFingerprint {
    let url = format!("https://portal.test/{path}").parse().expect("a URL");
    DataFingerprint::compute(&url, &crate::base::secret::Secret::new("canary"), Some("c"))
}

#[test]
fn nobody_opens_what_another_guards_whichever_comes_first() {
    let (x, y) = (fingerprint("x"), fingerprint("y"));
    let guarded = |by: &str| ClaimRejection::DataRestricted { by: by.into() };
    for (copy, original) in [("a", "b"), ("b", "a")] {
        let mut rows = [(copy, &[x, y][..], &[][..], false), (original, &[], &[y], false)];
        let expected = BTreeMap::from([(copy.to_owned(), guarded(original))]);
        assert_eq!(resolve_by_data(&rows), expected);
        rows.reverse();
        assert_eq!(resolve_by_data(&rows), expected);
    }
    // Other data, and one's own, are nobody's concern.
    assert!(resolve_by_data(&[("a", &[x], &[], false), ("b", &[], &[y], false)]).is_empty());
    assert!(resolve_by_data(&[("a", &[x], &[x], false), ("b", &[x], &[], false)]).len() == 1);
    assert!(resolve_by_data(&[("a", &[x], &[], false), ("b", &[x], &[], false)]).is_empty());
}

#[test]
fn what_another_guarded_is_not_opened_by_the_guards_going_away() {
    let x = fingerprint("x");
    let refused = resolve_by_data(&[("a", &[x], &[], true)]);
    assert!(matches!(&refused["a"], ClaimRejection::NeedsAcceptance { .. }), "{refused:?}");
    let refused = resolve_by_data(&[("a", &[x], &[], true), ("b", &[], &[x], false)]);
    assert_eq!(refused["a"], ClaimRejection::DataRestricted { by: "b".into() });
}

#[test]
fn a_guard_counts_though_its_own_claim_loses() {
    let (a, b, x) = (name("a"), name("b"), mounts(Some("/x")).expect("mounts"));
    let data = vec![fingerprint("x")];
    let open = ClaimRequest {
        entry_id: "a",
        wanted: Some(claim(&a, &x)),
        newly_open_data: data.clone(),
        ..ClaimRequest::default()
    };
    let broken = ClaimRequest { entry_id: "b", restricted_data: data.clone(), ..ClaimRequest::default() };
    assert_eq!(resolve(&[open.clone(), broken]).into_keys().collect::<Vec<_>>(), ["a"]);
    // The place of the one that is not opened is free for the one that guards.
    let guard = ClaimRequest {
        entry_id: "b",
        wanted: Some(claim(&b, &x)),
        restricted_data: data,
        ..ClaimRequest::default()
    };
    assert_eq!(resolve(&[open, guard]).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn the_command_to_accept_can_be_typed_as_it_is_printed() {
    let free = |stem| {
        ClaimRejection::NeedsAcceptance { name: name("a"), mounts: mounts(Some("/x")).expect("mounts") }
            .to_diagnostic(stem)
    };
    let help = |stem| free(stem).help.unwrap_or_default();
    assert!(help("mcp_export").contains("`tenantd tenants accept mcp_export`"));
    assert!(help("mcp_export (1)").contains("`tenantd tenants accept 'mcp_export (1)'`"));
    assert!(help("it's\u{1b}").contains(r"`tenantd tenants accept 'it'\''s'`"));
}

/// The files of one stem, and what a gateway records about it; all but `read` survives a restart.
#[derive(Debug, Clone, Default)]
struct ModelEntry {
    /// The edition of its files and what they claim: `None` without files, no claim if they are
    /// broken.
    files: Option<(u32, Option<HeldClaim>)>,
    holds: Option<HeldClaim>,
    refused: Option<u32>,
    /// Forgotten on a restart: the edition that is in force or was read last.
    read: Option<u32>,
}

/// A change between two passes.
#[derive(Debug, Clone)]
enum FileEvent {
    Put(usize, HeldClaim),
    Break(usize),
    Delete(usize),
}

/// A pass with the changes before it and whether the gateway was restarted; or an order.
#[derive(Debug, Clone)]
enum ModelStep {
    Pass(Vec<FileEvent>, bool),
    Accept(usize),
}

const STEMS: [&str; 4] = ["a", "b", "c", "d"];

fn holdings() -> impl Strategy<Value = HeldClaim> {
    let mount = || {
        (
            proptest::sample::select(vec!["", "", "h.example"]),
            proptest::sample::select(vec!["/x", "/X", "/x/mcp", "/y"]),
        )
    };
    let mounts = proptest::collection::vec(mount(), 1..3);
    (proptest::sample::select(STEMS.to_vec()), mounts, any::<bool>()).prop_map(
        |(called, mounts, shares_hosts)| {
            let mount = |(host, prefix): (&str, &str)| Mount {
                listener: None,
                host: HostName::parse(host),
                prefix: Prefix::parse(prefix).expect("a prefix"),
            };
            // As in real files, one prefix on several hosts.
            let prefix = mounts[0].1;
            let mut mounts: Vec<_> = mounts.into_iter().map(|(host, _)| mount((host, prefix))).collect();
            mounts.dedup();
            HeldClaim { name: name(called), mounts, shares_hosts, since: jiff::Timestamp::UNIX_EPOCH }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let stem = || 0..STEMS.len();
    let act = prop_oneof![
        4 => (stem(), holdings()).prop_map(|(stem, claims)| FileEvent::Put(stem, claims)),
        1 => stem().prop_map(FileEvent::Break),
        1 => stem().prop_map(FileEvent::Delete),
    ];
    let step = prop_oneof![
        5 => (proptest::collection::vec(act, 0..3), any::<bool>()).prop_map(|(acts, restart)| ModelStep::Pass(acts, restart)),
        1 => stem().prop_map(ModelStep::Accept),
    ];
    proptest::collection::vec(step, 1..12)
}

/// Whether two claims exclude each other, written independently of the code.
fn is_conflicting_naive(one: &HeldClaim, other: &HeldClaim) -> bool {
    let clash = |a: &Mount, b: &Mount| {
        let [a_text, b_text] = [a, b].map(|mount| mount.prefix.as_str().to_ascii_lowercase());
        let takes =
            a_text == b_text || a_text == format!("{b_text}/mcp") || b_text == format!("{a_text}/mcp");
        let same_host = a.host == b.host;
        let not_shared = a.host.is_some() && !(one.shares_hosts && other.shares_hosts);
        same_host && (takes || not_shared)
    };
    one.name == other.name || one.mounts.iter().any(|a| other.mounts.iter().any(|b| clash(a, b)))
}

/// Runs one pass over all entries; `accepted` is the entry whose claim an operator accepts.
fn pass(world: &mut [ModelEntry], accepted: Option<usize>) {
    for entry in world.iter_mut() {
        match &entry.files {
            None => *entry = ModelEntry::default(),
            Some((edition, _)) if entry.refused != Some(*edition) => entry.refused = None,
            Some(_) => {}
        }
    }
    let wants = |entry: &ModelEntry| {
        let (edition, claims) = entry.files.clone()?;
        (entry.read != Some(edition) || entry.refused == Some(edition)).then_some(claims?)
    };
    let wanted: Vec<_> = world.iter().map(wants).collect();
    let applicant = |at: usize| ClaimRequest {
        entry_id: STEMS[at],
        wanted: wanted[at].as_ref().map(HeldClaim::claim),
        held: world[at].holds.as_ref().map(HeldClaim::claim),
        was_rejected: world[at].refused.is_some() && accepted != Some(at),
        ..ClaimRequest::default()
    };
    let applicants: Vec<_> = (0..world.len()).map(applicant).collect();
    let refused = resolve(&applicants);
    for (at, wants) in wanted.into_iter().enumerate() {
        let entry = &mut world[at];
        entry.read = entry.files.as_ref().map(|(edition, _)| *edition);
        match (wants, refused.contains_key(STEMS[at])) {
            (Some(_), true) => entry.refused = entry.read,
            (Some(claims), false) => (entry.holds, entry.refused) = (Some(claims), None),
            (None, _) => {}
        }
    }
}

/// Checks the invariants between two states. `fresh`: the entries whose files changed.
fn check_step(
    before: &[ModelEntry],
    after: &[ModelEntry],
    fresh: &[bool],
    accepted: Option<usize>,
) -> Result<(), TestCaseError> {
    let traded = |one: usize, other: usize| {
        let (had, got) = (&before[other].holds, &after[other].holds);
        let left =
            had.as_ref().zip(after[one].holds.as_ref()).is_some_and(|(a, b)| is_conflicting_naive(a, b));
        let came =
            got.as_ref().zip(before[one].holds.as_ref()).is_some_and(|(a, b)| is_conflicting_naive(a, b));
        (fresh[other] || accepted == Some(other)) && left && came
    };
    for (at, entry) in after.iter().enumerate() {
        let was = &before[at];
        let same = entry.holds == was.holds;
        // An entry with files keeps what it held, or has what its own files claim.
        if entry.files.is_some() && was.holds.is_some() {
            let own = entry.files.as_ref().and_then(|(_, claims)| claims.clone());
            prop_assert!(same || entry.holds == own, "{} lost what it had", STEMS[at]);
        }
        for (other, its) in after.iter().enumerate().filter(|(other, _)| *other != at) {
            let collides = |a: &Option<HeldClaim>, b: &Option<HeldClaim>| {
                a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| is_conflicting_naive(a, b))
            };
            prop_assert!(
                !collides(&entry.holds, &its.holds),
                "{} and {} have the same",
                STEMS[at],
                STEMS[other]
            );
            // No entry gets what another held, unless the other's files release it.
            if !same && collides(&entry.holds, &before[other].holds) {
                let traded = (0..after.len()).any(|third| third != other && traded(other, third));
                // An accepted claim releases what its entry held, as a changed file does.
                let moved = fresh[other] || accepted == Some(other);
                let let_go = moved || its.files.is_none() || traded;
                prop_assert!(let_go, "{} took from {}", STEMS[at], STEMS[other]);
            }
        }
        // A refused claim does not succeed by itself.
        let waited = was.refused.is_some() && !fresh[at] && entry.files.is_some() && accepted != Some(at);
        if waited && !(0..after.len()).any(|other| other != at && traded(at, other)) {
            prop_assert!(same, "{} took over by itself", STEMS[at]);
            prop_assert_eq!(entry.refused, was.refused);
        }
    }
    Ok(())
}

#[test]
fn an_accepted_claim_trades_with_the_one_that_waits_for_its_place() {
    let holding = |called: &str, prefix: &str| HeldClaim {
        name: name(called),
        mounts: vec![Mount { listener: None, host: None, prefix: Prefix::parse(prefix).expect("a prefix") }],
        shares_hosts: false,
        since: jiff::Timestamp::UNIX_EPOCH,
    };
    let [bx, cy, ay] =
        [("b", "/x"), ("c", "/y"), ("a", "/y")].map(|(called, prefix)| holding(called, prefix));
    let applicants = [
        ClaimRequest {
            entry_id: "b",
            wanted: Some(ay.claim()),
            held: Some(bx.claim()),
            ..ClaimRequest::default()
        },
        ClaimRequest {
            entry_id: "d",
            wanted: Some(bx.claim()),
            held: Some(cy.claim()),
            was_rejected: true,
            ..ClaimRequest::default()
        },
    ];
    assert!(resolve(&applicants).is_empty(), "both want to move, and each leaves what the other wants");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_of_drops_deletions_and_restarts_leaves_everybody_what_it_had(steps in steps()) {
        let mut world = vec![ModelEntry::default(); STEMS.len()];
        let mut edition = 0;
        for step in steps {
            let (acts, restart, accepted) = match step {
                ModelStep::Pass(acts, restart) => (acts, restart, None),
                ModelStep::Accept(at) => (Vec::new(), false, Some(at)),
            };
            let before = world.clone();
            for act in acts {
                edition += 1;
                match act {
                    FileEvent::Put(at, claims) => world[at].files = Some((edition, Some(claims))),
                    FileEvent::Break(at) => world[at].files = Some((edition, None)),
                    FileEvent::Delete(at) => world[at].files = None,
                }
            }
            if restart {
                world.iter_mut().for_each(|entry| entry.read = None);
            }
            pass(&mut world, accepted);
            let edition_of = |entry: &ModelEntry| entry.files.as_ref().map(|(edition, _)| *edition);
            let fresh: Vec<_> = before.iter().zip(&world).map(|(a, b)| edition_of(a) != edition_of(b)).collect();
            check_step(&before, &world, &fresh, accepted)?;
        }
    }
}
