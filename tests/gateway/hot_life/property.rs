//! Any interleaving of file operations ends in the state of a cold start, with the real watcher and
//! reconciler.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tempfile::TempDir;
use tenantd::base::clock::SystemClock;
use tenantd::bundle::sample;
use tenantd::tenants::status::TenantStatus;
use tenantd::tenants::tenant::Tenant;

use super::super::harness::PATIENCE;
use super::life::{Life, yaml};

/// An operation on a file.
#[derive(Debug, Clone)]
enum Act {
    /// Written in place.
    Write(Entry, Form, Content),
    /// Written elsewhere and renamed into place.
    Place(Entry, Form, Content),
    /// The first half of the file, as during a copy.
    Half(Entry, Form),
    Move(Entry, Entry, Form),
    Touch(Entry, Form),
    Delete(Entry, Form),
    Pause(u8),
}

type Entry = &'static str;

#[derive(Debug, Clone, Copy)]
enum Form {
    Yaml,
    Zip,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    Good(u8),
    /// Claims a prefix that other entries may claim too.
    Shared,
    Broken,
    /// Valid only beside a zip.
    Overlay,
}

const ENTRIES: [Entry; 3] = ["a", "b", "c"];
const NEIGHBOURS: [&str; 2] = ["neighbour-1", "neighbour-2"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let entry = || proptest::sample::select(ENTRIES.to_vec());
    let form = || prop_oneof![Just(Form::Yaml), Just(Form::Zip)];
    let content = || {
        prop_oneof![
            3 => (0..3_u8).prop_map(Content::Good),
            2 => Just(Content::Shared),
            1 => Just(Content::Broken),
            1 => Just(Content::Overlay),
        ]
    };
    let act = prop_oneof![
        3 => (entry(), form(), content()).prop_map(|(entry, form, content)| Act::Write(entry, form, content)),
        3 => (entry(), form(), content()).prop_map(|(entry, form, content)| Act::Place(entry, form, content)),
        1 => (entry(), form()).prop_map(|(entry, form)| Act::Half(entry, form)),
        1 => (entry(), entry(), form()).prop_map(|(from, to, form)| Act::Move(from, to, form)),
        1 => (entry(), form()).prop_map(|(entry, form)| Act::Touch(entry, form)),
        2 => (entry(), form()).prop_map(|(entry, form)| Act::Delete(entry, form)),
        // Pauses let the gateway load something, so that later operations change a loaded tenant.
        4 => (0..200_u8).prop_map(Act::Pause),
    ];
    proptest::collection::vec(act, 1..14)
}

fn bytes(entry: &str, form: Form, content: Content) -> Vec<u8> {
    let text = match content {
        Content::Good(number) => yaml(entry, &format!("description: Edition {number}\n")),
        Content::Shared => yaml(entry, "path_prefix: /shared\n"),
        Content::Broken => "search_url: [\n".to_owned(),
        Content::Overlay => "description: Over\n".to_owned(),
    };
    match form {
        Form::Yaml => text.into_bytes(),
        Form::Zip => sample::build_export(entry, &text),
    }
}

impl Act {
    async fn perform(&self, folder: &Path) {
        let path = |entry: &str, form: &Form| {
            let extension = match form {
                Form::Yaml => "yaml",
                Form::Zip => "zip",
            };
            folder.join("tenants.d").join(format!("{entry}.{extension}"))
        };
        match self {
            Self::Write(entry, form, content) => {
                fs::write(path(entry, form), bytes(entry, *form, *content)).expect("written");
            }
            Self::Place(entry, form, content) => {
                let draft = folder.join("draft");
                fs::write(&draft, bytes(entry, *form, *content)).expect("written");
                fs::rename(draft, path(entry, form)).expect("renamed");
            }
            Self::Half(entry, form) => {
                let whole = bytes(entry, *form, Content::Good(0));
                fs::write(path(entry, form), &whole[..whole.len() / 2]).expect("written");
            }
            // Moving, touching and deleting a missing file fails.
            Self::Move(from, to, form) => drop(fs::rename(path(from, form), path(to, form))),
            Self::Touch(entry, form) => {
                if let Ok(file) = fs::File::options().append(true).open(path(entry, form)) {
                    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touched");
                }
            }
            Self::Delete(entry, form) => drop(fs::remove_file(path(entry, form))),
            Self::Pause(millis) => tokio::time::sleep(Duration::from_millis(u64::from(*millis) * 4)).await,
        }
    }
}

/// Runs one sequence of operations in a folder of its own, then compares with a cold start.
async fn live_through(acts: &[Act]) -> Result<(), TestCaseError> {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("tenants.d")).expect("made");
    for name in NEIGHBOURS {
        fs::write(folder.path().join(format!("tenants.d/{name}.yaml")), yaml(name, "")).expect("written");
    }
    let life = Life::start(folder.path(), SystemClock::shared()).await;
    let neighbours = NEIGHBOURS.map(|name| life.tenant(name).expect("it serves"));
    let acting = async {
        for act in acts {
            act.perform(folder.path()).await;
        }
        tokio::time::timeout(PATIENCE, life.reconciler.reload()).await.expect("stable").expect("it runs");
    };
    tokio::select! {
        changed = neighbour_changed(&life, &neighbours) => prop_assert!(false, "{changed} was touched"),
        () = acting => {}
    }
    prop_assert!(life.is_consistent(), "the routes are not those of the entries");
    for (name, before) in NEIGHBOURS.iter().zip(&neighbours) {
        let same = life.tenant(name).is_some_and(|tenant| Arc::ptr_eq(&tenant, before));
        prop_assert!(same, "{name} is another one now");
    }
    let live = life.statuses();
    let cold = Life::start(folder.path(), SystemClock::shared()).await.statuses();
    compare(&live, &cold)
}

/// Returns when a neighbour differs in a published table.
async fn neighbour_changed(life: &Life, neighbours: &[Arc<Tenant>]) -> &'static str {
    let mut generation = life.registry.subscribe_generation();
    loop {
        generation.changed().await.expect("the registry is there");
        let table = life.registry.load_full();
        for (name, before) in NEIGHBOURS.iter().zip(neighbours) {
            let now = table.entries.get(*name).and_then(|entry| entry.tenant.as_ref());
            if !now.is_some_and(|now| Arc::ptr_eq(now, before)) {
                return name;
            }
        }
    }
}

/// Compares with a cold start, which has neither last good revisions nor holders; everything else
/// must agree.
fn compare(
    live: &BTreeMap<String, TenantStatus>,
    cold: &BTreeMap<String, TenantStatus>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(live.keys().collect::<Vec<_>>(), cold.keys().collect::<Vec<_>>());
    let says = |status: &TenantStatus, code: &str| status.findings.to_string().contains(code);
    // A refused claim stays refused when the place becomes free.
    let is_contested = |status: &TenantStatus| says(status, "claim-taken") || says(status, "claim-free");
    let serves = |status: &TenantStatus| {
        status.digest_in_force.is_some() && status.digest_in_force == status.digest_on_disk
    };
    for (stem, now) in live {
        let fresh = &cold[stem];
        prop_assert_eq!((&now.digest_on_disk, &now.files), (&fresh.digest_on_disk, &fresh.files), "{}", stem);
        match (serves(now), serves(fresh)) {
            (true, true) => prop_assert_eq!(&now.connector_url, &fresh.connector_url),
            // The holder keeps the place; after a cold start the first by name has it.
            (true, false) => prop_assert!(is_contested(fresh), "{} serves: {:?} {:?}", stem, now, fresh),
            (false, true) => {
                prop_assert!(is_contested(now), "{} does not serve: {:?} {:?}", stem, now, fresh)
            }
            (false, false) => prop_assert!(
                is_contested(now) || is_contested(fresh) || now.findings.to_string().contains("error"),
                "{}: {:?}",
                stem,
                now
            ),
        }
        let others = || live.values().filter(|other| other.stem != *stem);
        let is_served = others()
            .any(|other| other.connector_url.as_deref().is_some_and(|url| url.ends_with("/shared/mcp")));
        // The place of an entry whose files are broken stays reserved for it.
        let is_reserved = others().any(|other| other.digest_in_force.is_none() && !is_contested(other));
        if is_contested(now) {
            let is_taken = says(now, "claim-taken");
            prop_assert!(is_taken || !is_served, "{} is told that it is free: {:?}", stem, now);
            prop_assert!(
                !is_taken || is_served || is_reserved,
                "{} is told that it is taken: {:?}",
                stem,
                now
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_ends_where_a_cold_start_would(lives in proptest::collection::vec(acts(), 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let outcomes = lives.iter().map(|acts| async move {
                live_through(acts).await.map_err(|error| TestCaseError::fail(format!("{error}\nafter {acts:?}")))
            });
            futures_of(outcomes).await
        })?;
    }
}

/// Waits for all concurrently. Returns the first failure.
async fn futures_of<F: Future<Output = Result<(), TestCaseError>>>(
    lives: impl Iterator<Item = F>,
) -> Result<(), TestCaseError> {
    let mut pending: Vec<_> = lives.map(Box::pin).collect();
    let mut outcome = Ok(());
    std::future::poll_fn(|cx| {
        pending.retain_mut(|life| match life.as_mut().poll(cx) {
            std::task::Poll::Ready(ended) => {
                if outcome.is_ok() {
                    outcome = ended;
                }
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outcome
}

/// A sequence that random ones rarely have: the holder's files break, and the file with its claim
/// moves to another entry. The place stays reserved for the holder, which serves nothing.
#[tokio::test]
async fn a_place_stays_reserved_for_a_holder_whose_files_are_broken() {
    let acts = [
        Act::Write("c", Form::Zip, Content::Good(1)),
        Act::Write("c", Form::Yaml, Content::Shared),
        Act::Pause(40),
        Act::Write("c", Form::Zip, Content::Overlay),
        Act::Pause(210),
        Act::Move("c", "a", Form::Yaml),
    ];
    live_through(&acts).await.expect("it ends where a cold start would");
}
