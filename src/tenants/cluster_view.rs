//! What this gateway knows of the others in its cluster: who they are, and which tenants are not the
//! same everywhere. One task asks the database every few seconds, and for the tenants only if a
//! gateway came, went or reported a change; everybody else reads what it found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::task::Tasks;
use crate::store::{self, ClusterStore, DifferentEntry, NodeId, NodeReport};

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long gateways may disagree before that is trouble: files do not arrive everywhere at once.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many tenants that differ are looked at.
const MAX_DIFFERENT: i64 = 2000;

/// What is known of the cluster.
pub struct ClusterView {
    cluster: ClusterStore,
    state: ArcSwap<ClusterState>,
}

/// The cluster as it was seen last.
#[derive(Debug, Clone, Default)]
pub struct ClusterState {
    /// Its gateways, sorted by name.
    pub nodes: Vec<NodeStatus>,
    /// The tenants on which live gateways disagree for longer than a minute.
    pub disagreements: Vec<Disagreement>,
}

/// One gateway of the cluster: `/api/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Whether it is there.
    pub state: NodeState,
    /// How many seconds ago it was heard of.
    pub seen_seconds_ago: i64,
    /// How many entries it has; absent before it has read its folder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entries: Option<i64>,
    /// Whether it is the one that answers.
    #[serde(default)]
    pub is_this: bool,
}

/// Whether a gateway of the cluster is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is.
    Live,
    /// It ended in order.
    Left,
    /// It was not heard of for 15 seconds.
    Silent,
}

/// A tenant that is not the same on all live gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagreement {
    /// The tenant's name.
    pub tenant: String,
    /// The id of its entry.
    pub entry: String,
    /// Since when they disagree.
    pub since: Timestamp,
    /// What is in force where, in a few words for people.
    pub summary: String,
}

/// A tenant as one gateway has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantOnNode {
    /// The gateway's name.
    pub node: String,
    /// Whether the gateway is there.
    pub node_state: NodeState,
    /// The tenant's state there; absent if the gateway does not have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    /// Since when it is in this state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<Timestamp>,
    /// The first 12 digits of the digest of its files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_disk: Option<String>,
    /// The first 12 digits of the digest in force.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub in_force: Option<String>,
}

impl ClusterView {
    /// Starts to look.
    pub fn start(cluster: ClusterStore, clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        let view = Arc::new(Self { cluster, state: ArcSwap::default() });
        let (looking, shutdown) = (Arc::clone(&view), tasks.shutdown_signal().clone());
        let task = tasks.supervise("cluster view", move || {
            let (view, shutdown, clock) = (Arc::clone(&looking), shutdown.clone(), Arc::clone(&clock));
            async move {
                let _stopped = shutdown.run_until_cancelled(view.look_again_and_again(&*clock)).await;
            }
        });
        tasks.spawn("cluster view", task);
        view
    }

    /// Returns the cluster as it was seen last.
    pub fn state(&self) -> Arc<ClusterState> {
        self.state.load_full()
    }

    /// Returns a tenant as each gateway has it; without those that ended and do not have it.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn find_tenant(&self, entry_id: &str) -> Result<Vec<TenantOnNode>, store::Error> {
        let (reports, found) =
            (self.cluster.load_node_reports().await?, self.cluster.find_entry_on_nodes(entry_id).await?);
        let on_node = |report: &NodeReport| {
            let entry = found.iter().find(|(node, _)| *node == report.node).map(|(_, entry)| entry);
            let tenant = TenantOnNode {
                node: report.name.clone(),
                node_state: NodeState::from_report(report),
                state: entry.map(|entry| entry.state.clone()),
                since: entry.map(|entry| entry.since),
                on_disk: entry.and_then(|entry| entry.on_disk).map(|digest| digest.short()),
                in_force: entry.and_then(|entry| entry.in_force).map(|digest| digest.short()),
            };
            (entry.is_some() || report.is_live).then_some(tenant)
        };
        Ok(reports.iter().filter_map(on_node).collect())
    }

    async fn look_again_and_again(&self, clock: &dyn Clock) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut tracker, mut versions) = (Tracker::default(), None);
        loop {
            ticks.tick().await;
            // What was seen last stands while the database is away.
            let Ok(reports) = self.cluster.load_node_reports().await else { continue };
            let now_versions: Vec<_> = reports
                .iter()
                .filter(|report| report.is_live)
                .map(|report| (report.node, report.version))
                .collect();
            if versions.as_ref() != Some(&now_versions) {
                let Ok(different) = self.cluster.find_different_entries(MAX_DIFFERENT).await else {
                    continue;
                };
                tracker.update(different, clock.monotonic());
                versions = Some(now_versions);
            }
            self.state.store(Arc::new(self.describe(&reports, &tracker, clock)));
        }
    }

    fn describe(&self, reports: &[NodeReport], tracker: &Tracker, clock: &dyn Clock) -> ClusterState {
        let nodes = reports.iter().map(|report| NodeStatus {
            name: report.name.clone(),
            version: report.program.clone(),
            state: NodeState::from_report(report),
            seen_seconds_ago: report.seen_seconds_ago,
            entries: report.entries,
            is_this: report.node == *self.cluster.node_id(),
        });
        let now = clock.now();
        let readers: Vec<_> =
            reports.iter().filter(|report| report.is_live && report.version.is_some()).collect();
        let lasting = tracker.lasting(clock.monotonic()).map(|(different, age)| Disagreement {
            tenant: different.name.clone(),
            entry: different.entry_id.clone(),
            since: now - SignedDuration::try_from(age).unwrap_or_default(),
            summary: summarize(different, &readers),
        });
        ClusterState { nodes: nodes.collect(), disagreements: lasting.collect() }
    }
}

impl NodeState {
    fn from_report(report: &NodeReport) -> Self {
        match (report.is_live, report.has_left) {
            (true, _) => Self::Live,
            (false, true) => Self::Left,
            (false, false) => Self::Silent,
        }
    }

    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Left => "left",
            Self::Silent => "silent",
        }
    }
}

/// Says what is in force where: `revision 0123456789ab on a, b; nothing on c; missing on d`.
fn summarize(different: &DifferentEntry, readers: &[&NodeReport]) -> String {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for report in readers {
        let on_node: Option<&(NodeId, Option<Digest>)> =
            different.nodes.iter().find(|(node, _)| *node == report.node);
        let what = match on_node {
            Some((_, Some(digest))) => format!("revision {}", digest.short()),
            Some((_, None)) => "nothing in force".to_owned(),
            None => "missing".to_owned(),
        };
        groups.entry(what).or_default().push(&report.name);
    }
    let groups: Vec<_> =
        groups.iter().map(|(what, names)| format!("{what} on {}", names.join(", "))).collect();
    groups.join("; ")
}

/// Remembers since when tenants differ.
#[derive(Default)]
struct Tracker(BTreeMap<String, (DifferentEntry, Instant)>);

impl Tracker {
    fn update(&mut self, different: Vec<DifferentEntry>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        let with_start = |entry: DifferentEntry| {
            let known = before.remove(&entry.entry_id).map_or(now, |(_, since)| since);
            let age = entry.seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
            let told = age.and_then(|age| now.checked_sub(age)).unwrap_or(now);
            (entry.entry_id.clone(), (entry, known.min(told)))
        };
        self.0 = different.into_iter().map(with_start).collect();
    }

    /// Returns those that differ for longer than files take to arrive everywhere, and for how long.
    fn lasting(&self, now: Instant) -> impl Iterator<Item = (&DifferentEntry, Duration)> {
        let aged = self.0.values().map(move |(entry, since)| (entry, now.saturating_duration_since(*since)));
        aged.filter(|(_, age)| *age >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    fn different(entry_id: &str, seconds: Option<i64>) -> DifferentEntry {
        let nodes = vec![([1; 16], Some(Digest::of(b"one"))), ([2; 16], None)];
        DifferentEntry { entry_id: entry_id.to_owned(), name: entry_id.to_owned(), seconds, nodes }
    }

    fn lasting(tracker: &Tracker, clock: &ManualClock) -> Vec<String> {
        tracker.lasting(clock.monotonic()).map(|(entry, _)| entry.entry_id.clone()).collect()
    }

    #[test]
    fn gateways_that_differ_for_a_minute_disagree_until_they_agree() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let mut tracker = Tracker::default();
        tracker.update(vec![different("a", None)], clock.monotonic());
        clock.advance(PATIENCE - Duration::from_secs(1));
        tracker.update(vec![different("a", Some(3)), different("b", None)], clock.monotonic());
        assert_eq!(lasting(&tracker, &clock), Vec::<String>::new());
        clock.advance(Duration::from_secs(1));
        assert_eq!(lasting(&tracker, &clock), ["a"], "that it changes meanwhile does not begin anew");
        tracker.update(vec![different("b", None)], clock.monotonic());
        assert_eq!(lasting(&tracker, &clock), Vec::<String>::new());
        tracker.update(vec![different("a", None), different("b", None)], clock.monotonic());
        clock.advance(PATIENCE - Duration::from_secs(1));
        assert_eq!(lasting(&tracker, &clock), ["b"], "a agreed in between");
    }

    #[test]
    fn a_gateway_that_starts_knows_how_long_others_differ() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(3600));
        let mut tracker = Tracker::default();
        tracker.update(vec![different("a", Some(61)), different("b", Some(59))], clock.monotonic());
        assert_eq!(lasting(&tracker, &clock), ["a"]);
    }

    #[test]
    fn what_is_in_force_where_is_said_in_a_few_words() {
        let report = |node: u8, name: &str| NodeReport {
            node: [node; 16],
            name: name.to_owned(),
            program: "1".to_owned(),
            seen_seconds_ago: 1,
            is_live: true,
            has_left: false,
            version: Some(1),
            entries: Some(1),
        };
        let reports = [report(1, "north"), report(2, "south"), report(3, "west")];
        let readers: Vec<_> = reports.iter().collect();
        let revision = Digest::of(b"one").short();
        assert_eq!(
            summarize(&different("a", None), &readers),
            format!("missing on west; nothing in force on south; revision {revision} on north")
        );
    }
}
