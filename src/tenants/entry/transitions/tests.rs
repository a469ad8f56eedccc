use std::fs;
use std::time::Duration;

use super::*;
use crate::backend::{AddressRules, ContextRefresher, Pool};
use crate::base::clock::{Clock, ManualClock};
use crate::base::task::Tasks;
use crate::bundle::{self, sample::sample_context};
use crate::settings::OpenTenants;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::tenants::build::TenantDeps;
use crate::tenants::entry::PersistedState;
use crate::tenants::scan::scan_folder;
use crate::tenants::source::TenantsSource;
use crate::tenants::status::TenantState;
use crate::usage::Usage;

const FIELDS: &str = "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\n\
                      connection_id: c\napi_key: key-0001\n";

/// What an entry's files say.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Usable, open to everybody; the numbers differ.
    Good(u8),
    /// Usable, for callers with a key.
    Guarded,
    /// Unusable, and who may call is as in `Good`.
    Broken,
    /// Unusable, and who may call is uncertain.
    Doubtful,
    /// Unusable, and one of the files is gone.
    Lost,
}

/// What happens to an entry.
#[derive(Clone, Copy, Debug)]
enum Event {
    Read(Content),
    /// The files are read, and are as before.
    ReadAgain,
    Restore,
    Promote,
    FailToPromote,
    Reject,
    Force,
    RollBack,
    Pause,
    FailToPause,
}
use Content::{Broken, Doubtful, Good, Guarded, Lost};
use Event::*;

/// An entry with the files `a.yaml` and `a.env`.
struct Fixture {
    folder: tempfile::TempDir,
    deps: TenantDeps,
    clock: Arc<ManualClock>,
    entry: Entry,
    content: Content,
    _tasks: Tasks,
}

fn fail_to_build(_: TenantSpec, _: Digest, _: Arc<TenantSlot>) -> Result<Arc<Tenant>, Report> {
    Err(Diagnostic::error("unbuildable", "it has a flaw").into())
}

fn rejection() -> Diagnostic {
    Diagnostic::error("claim-taken", "another entry has it")
}

impl Fixture {
    fn new() -> Self {
        let tasks = Tasks::new();
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let (shared, metrics): (Arc<dyn Clock>, _) = (clock.clone(), Arc::new(Metrics::new()));
        let pool = Pool::new(AddressRules::default(), Arc::clone(&shared), Arc::clone(&metrics));
        let deps = TenantDeps {
            pool: pool.expect("a pool"),
            context_refresher: ContextRefresher::start(&tasks, Arc::clone(&shared), None),
            metrics,
            audit: Audit::disabled(),
            tracer: Default::default(),
            usage: Usage::new(Arc::clone(&shared)),
            clock: shared,
            open_tenants: OpenTenants::Private,
            private_networks: Arc::default(),
            sockets: Arc::default(),
            login: None,
            allowed_origins: Vec::new(),
            drain_period: Duration::ZERO,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let entry = Entry::new(Timestamp::UNIX_EPOCH, PersistedState::default());
        Self { folder, deps, clock, entry, content: Broken, _tasks: tasks }
    }

    /// Creates an entry to which these events have happened.
    fn after(events: &[Event]) -> Self {
        let mut fixture = Self::new();
        events.iter().for_each(|event| _ = fixture.apply(*event));
        fixture
    }

    /// Writes the files, and loads them.
    fn load(&self, content: Content) -> (LoadOutcome, FileStamps, Arc<[PathBuf]>) {
        let yaml = match content {
            Good(number) => format!("{FIELDS}description: number {number}\n"),
            Guarded => format!("{FIELDS}api_keys: [{{sha256: {}}}]\n", Digest::of(b"key")),
            Broken | Lost => format!("{FIELDS}public_url: nowhere\n"),
            Doubtful => format!("{FIELDS}api_keys: []\n"),
        };
        let (file, env) = (self.folder.path().join("a.yaml"), self.folder.path().join("a.env"));
        fs::write(file, yaml).expect("written");
        match content {
            Lost => fs::remove_file(env).expect("removed"),
            _ => fs::write(env, "PATH_PREFIX=/a\n").expect("written"),
        }
        let source = TenantsSource::Folder(self.folder.path().to_owned());
        let scanned = scan_folder(&source, None, &Default::default()).expect("listed");
        let scanned = scanned.entries.into_iter().next().expect("an entry");
        let loaded = bundle::load(&scanned.files, &sample_context());
        (loaded, scanned.stamps, scanned.files.files.into())
    }

    fn read(&mut self, content: Content) -> bool {
        self.content = content;
        let (loaded, stamps, files) = self.load(content);
        self.entry.ingest(loaded, stamps, files)
    }

    /// Applies an event. Returns what the transition returns, if that is a boolean.
    fn apply(&mut self, event: Event) -> bool {
        let now = self.clock.now();
        match event {
            Read(content) => return self.read(content),
            ReadAgain => return self.read(self.content),
            Restore => {
                let (loaded, _, files) = self.load(Good(1));
                let restored = RestoredRevision { number: 1, loaded, files };
                self.entry.restore(restored, now, self.deps.builder("a"));
            }
            Promote => self.entry.promote(now, self.deps.builder("a")),
            FailToPromote => self.entry.promote(now, fail_to_build),
            Reject => return self.entry.reject(rejection(), true),
            Force => return self.entry.force(),
            RollBack => {
                let (loaded, _, files) = self.load(Good(1));
                self.entry.roll_back(Candidate::stored(loaded, 1, files).expect("usable"));
            }
            Pause => self.entry.set_paused(true, self.deps.builder("a")),
            FailToPause => self.entry.set_paused(true, fail_to_build),
        }
        true
    }

    /// Describes the phase: `-` unusable, `L` live, `X` live and closed; with `c` for a candidate,
    /// `r` for a rejected, `f` for a forced one, `b` for a rollback.
    fn phase(&self) -> String {
        let live = self.entry.phase.live().map(|live| match live.tenant.slot.is_closed() {
            true => "X",
            false => "L",
        });
        let candidate = self.entry.phase.candidate().map(|candidate| match &candidate.decision {
            _ if candidate.shelved.is_some() => "b",
            ClaimDecision::Pending => "c",
            ClaimDecision::Forced => "f",
            ClaimDecision::Rejected(_) => "r",
        });
        match (live, candidate) {
            (None, None) => "-".to_owned(),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (Some(live), Some(candidate)) => format!("{live}+{candidate}"),
        }
    }

    fn live_number(&self) -> Option<u64> {
        self.entry.phase.live().map(|live| live.number)
    }

    fn codes(&self) -> Vec<&'static str> {
        self.entry.all_findings().map(|finding| finding.code).collect()
    }
}

/// The events that lead to each phase of the table, in the order of its columns.
const PHASES: [&[Event]; 9] = [
    &[Read(Broken)],
    &[Read(Good(1))],
    &[Read(Good(1)), Reject],
    &[Read(Good(1)), Promote],
    &[Read(Good(1)), Promote, Read(Doubtful)],
    &[Read(Good(1)), Promote, Read(Good(2))],
    &[Read(Good(1)), Promote, Read(Good(2)), Reject],
    &[Read(Good(1)), Promote, Read(Good(2)), RollBack],
    // Pinned: live is the first revision, the files are the second.
    &[Read(Good(1)), Promote, Read(Good(2)), Promote, RollBack, Promote],
];

/// Each event in each phase.
const TRANSITIONS: [(Event, [&str; 9]); 15] = [
    (ReadAgain, /*      */ ["-", "c", "r", "L", "X", "L+c", "L+r", "L+b", "L"]),
    (Read(Good(3)), /*  */ ["c", "c", "c", "L+c", "X+c", "L+c", "L+c", "L+c", "L+c"]),
    (Read(Good(1)), /*  */ ["c", "c", "r", "L", "L", "L", "L", "L", "L"]),
    (Read(Guarded), /*  */ ["c", "c", "c", "L+c", "X+c", "L+c", "L+c", "L+c", "L+c"]),
    (Read(Broken), /*   */ ["-", "-", "-", "L", "L", "L", "L", "L", "L"]),
    (Read(Doubtful), /* */ ["-", "-", "-", "X", "X", "X", "X", "X", "X"]),
    (Read(Lost), /*     */ ["-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    (Restore, /*        */ ["L", "L+c", "L+r", "L", "X", "L+c", "L+r", "L+b", "L"]),
    (Promote, /*        */ ["-", "L", "L", "L", "X", "L", "L", "L", "L"]),
    (FailToPromote, /*  */ ["-", "-", "-", "L", "X", "L", "L", "L+c", "L"]),
    (Reject, /*         */ ["-", "r", "r", "L", "X", "L+r", "L+r", "L+c", "L"]),
    (Force, /*          */ ["-", "c", "f", "L", "X", "L+c", "L+f", "L+b", "L"]),
    (RollBack, /*       */ ["b", "b", "b", "L+b", "X+b", "L+b", "L+b", "L+b", "L+b"]),
    (Pause, /*          */ ["-", "c", "r", "L", "X", "L+c", "L+r", "L+b", "L"]),
    (FailToPause, /*    */ ["-", "c", "r", "-", "-", "c", "r", "b", "-"]),
];

#[tokio::test]
async fn every_event_leads_from_every_phase_where_the_table_says() {
    for (event, expected) in TRANSITIONS {
        for (events, expected) in PHASES.iter().zip(expected) {
            let mut fixture = Fixture::after(events);
            let before = fixture.phase();
            fixture.apply(event);
            assert_eq!(fixture.phase(), expected, "{event:?} after {events:?}, in {before}");
        }
    }
}

#[tokio::test]
async fn the_state_that_people_see_follows_from_the_phase() {
    for (events, expected) in [
        (PHASES[0], TenantState::Rejected),
        (PHASES[1], TenantState::Rejected),
        (PHASES[2], TenantState::Rejected),
        (PHASES[3], TenantState::Serving),
        (PHASES[4], TenantState::Stale),
        (PHASES[5], TenantState::Stale),
        (PHASES[6], TenantState::Stale),
        (PHASES[8], TenantState::Serving),
        (&[Read(Good(1)), Promote, Pause], TenantState::Disabled),
    ] {
        assert_eq!(Fixture::after(events).entry.compute_state(), expected, "{events:?}");
    }
}

#[tokio::test]
async fn a_rejected_change_closes_the_live_revision_if_it_is_about_who_may_call() {
    let live = [Read(Good(1)), Promote];
    let change = |content, then| Fixture::after(&[live[0], live[1], Read(content), then]).phase();
    assert_eq!(change(Good(2), Reject), "L+r");
    assert_eq!(change(Guarded, Reject), "X+r");
    assert_eq!(change(Good(2), FailToPromote), "L");
    assert_eq!(change(Guarded, FailToPromote), "X");
    assert_eq!(change(Guarded, Promote), "L");
    let closed = [live[0], live[1], Read(Guarded), Reject, Read(Good(1))];
    assert_eq!(Fixture::after(&closed).phase(), "L", "the files are the live revision again");
}

#[tokio::test]
async fn a_failed_rollback_leaves_everything_as_it_was_and_says_why() {
    for events in [PHASES[2], PHASES[4], PHASES[5], PHASES[6]] {
        for (end, why) in [(Reject, "another entry has it"), (FailToPromote, "the tenant cannot be built")] {
            let mut fixture = Fixture::after(events);
            let (before, pinned) = (fixture.phase(), fixture.entry.pinned_digest());
            fixture.apply(RollBack);
            fixture.apply(end);
            assert_eq!(fixture.phase(), before, "{events:?}");
            assert_eq!(fixture.entry.pinned_digest(), pinned);
            assert_eq!(fixture.entry.take_rollback_failure().as_deref(), Some(why));
            assert_eq!(fixture.entry.take_rollback_failure(), None);
        }
    }
}

#[tokio::test]
async fn a_rollback_stays_until_the_files_change() {
    let mut fixture = Fixture::after(PHASES[8]);
    let on_disk = fixture.entry.on_disk;
    assert_eq!(fixture.live_number(), Some(1));
    assert!(on_disk.is_some() && fixture.entry.pinned_digest() == on_disk && fixture.entry.is_rolled_back());
    assert_eq!(fixture.entry.take_rollback_failure(), None);
    fixture.apply(Read(Good(3)));
    fixture.apply(Promote);
    assert!(!fixture.entry.is_rolled_back() && fixture.entry.pinned_digest().is_none());
    assert_eq!(fixture.live_number(), Some(3));
    let mut same = Fixture::after(&[Read(Good(1)), Promote, RollBack, Promote]);
    assert!(!same.entry.is_rolled_back(), "the files are that revision");
    assert!(!same.apply(ReadAgain));
}

/// Reads what the files of a pinned entry are, in a new process.
fn restart_pinned(restore: bool, content: Content) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.entry.persisted.pinned_digest = Some(fixture.load(content).0.digest);
    if restore {
        fixture.apply(Restore);
    }
    fixture.apply(Read(content));
    fixture
}

#[tokio::test]
async fn after_a_restart_a_rollback_stays_or_its_loss_is_told() {
    for content in [Good(2), Broken, Doubtful] {
        let stayed = restart_pinned(true, content);
        assert_eq!((stayed.phase().as_str(), stayed.live_number()), ("L", Some(1)), "{content:?}");
        assert!(stayed.entry.is_rolled_back() && !stayed.codes().contains(&"rollback-lost"));
        let lost = restart_pinned(false, content);
        assert_eq!(lost.phase(), "-");
        assert!(lost.codes().contains(&"rollback-lost"), "{:?}", lost.codes());
    }
}

#[tokio::test]
async fn a_revision_has_one_number_and_is_persisted_once() {
    let mut fixture = Fixture::after(&[Read(Good(1)), Promote]);
    let take = |fixture: &mut Fixture| {
        let revision = fixture.entry.take_unwritten_revision("a", Timestamp::UNIX_EPOCH);
        revision.map(|revision| revision.number)
    };
    assert_eq!((fixture.live_number(), take(&mut fixture)), (Some(1), Some(1)));
    assert_eq!(take(&mut fixture), None);
    fixture.apply(Read(Good(2)));
    fixture.apply(Promote);
    assert_eq!((fixture.live_number(), take(&mut fixture)), (Some(2), Some(2)));
    fixture.apply(RollBack);
    fixture.apply(Promote);
    assert_eq!((fixture.live_number(), take(&mut fixture)), (Some(1), None));
    // After a restart the files are what was in force.
    let in_force = fixture.entry.persisted.in_force;
    let mut fixture = Fixture::new();
    fixture.entry.persisted.in_force = in_force;
    fixture.apply(Read(Good(1)));
    fixture.apply(Promote);
    assert_eq!((fixture.live_number(), take(&mut fixture)), (Some(1), None));
}

#[tokio::test]
async fn a_rejection_is_persisted_and_stands_until_the_files_change() {
    let mut fixture = Fixture::after(&[Read(Good(1))]);
    let take = |fixture: &mut Fixture| {
        fixture.entry.take_claims_change(&"a".into()).map(|change| change.rejected_claim)
    };
    assert!(!fixture.entry.claim_request("a").was_rejected);
    assert!(fixture.apply(Reject), "that is news");
    let rejected = take(&mut fixture).expect("it changed");
    assert!(rejected.is_some() && rejected == fixture.entry.on_disk);
    assert!(fixture.entry.claim_request("a").was_rejected);
    assert!(!fixture.apply(Reject), "that is none");
    assert_eq!(take(&mut fixture), None);
    assert!(fixture.apply(Force));
    assert!(!fixture.entry.claim_request("a").was_rejected, "an operator ordered it");
    assert!(fixture.apply(Reject));
    assert!(fixture.entry.claim_request("a").was_rejected && take(&mut fixture).is_none());
    fixture.apply(Read(Good(2)));
    assert!(!fixture.entry.claim_request("a").was_rejected);
    assert_eq!(take(&mut fixture), Some(None));
    assert!(fixture.entry.reject(rejection(), false));
    assert!(!fixture.entry.claim_request("a").was_rejected, "this rejection does not last");
    assert_eq!(take(&mut fixture), None);
}

#[tokio::test]
async fn a_promoted_claim_was_not_rejected() {
    let mut fixture = Fixture::after(&[Read(Good(1)), Reject, Force, Promote]);
    let change = fixture.entry.take_claims_change(&"a".into()).expect("it changed");
    assert!(change.rejected_claim.is_none() && change.claim.is_some());
}

#[tokio::test]
async fn a_claim_outlives_its_revision_and_is_as_old_as_it_was() {
    let mut fixture = Fixture::after(&[Read(Good(1)), Promote]);
    let held = |fixture: &Fixture| fixture.entry.claim_basis().map(|it| it.claim().name.to_string());
    let since = fixture.entry.persisted.held_since;
    assert_eq!((held(&fixture).as_deref(), since), (Some("a"), Some(Timestamp::UNIX_EPOCH)));
    fixture.clock.advance(Duration::from_secs(60));
    fixture.apply(Read(Lost));
    assert_eq!((fixture.phase().as_str(), held(&fixture).as_deref()), ("-", Some("a")));
    fixture.apply(Read(Good(2)));
    fixture.apply(Promote);
    assert_eq!(fixture.entry.persisted.held_since, since, "the claim is the same");
    assert!(fixture.entry.persisted.last_held.is_none());
}

#[tokio::test]
async fn a_pause_is_over_the_files_and_survives_their_change() {
    let mut fixture = Fixture::after(&[Read(Good(1)), Promote, Pause, Read(Good(2)), Promote]);
    let is_enabled = |fixture: &Fixture| fixture.entry.tenant().is_some_and(|tenant| tenant.spec.enabled);
    assert!(!is_enabled(&fixture));
    let slot = Arc::clone(&fixture.entry.tenant().expect("live").slot);
    fixture.entry.set_paused(false, fixture.deps.builder("a"));
    assert!(is_enabled(&fixture));
    assert!(Arc::ptr_eq(&slot, &fixture.entry.tenant().expect("live").slot), "its state outlives it");
}
