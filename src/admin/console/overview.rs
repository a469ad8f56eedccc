//! The overview: what needs a person, how the gateway is, and all tenants, trouble first.

use askama::Template;
use jiff::SignedDuration;

use super::concerns::{self, Concern};
use super::display_state::DisplayState;
use super::frame::{Frame, Section, Visit};
use super::link;
use super::listing::{Chip, ListPage, ListQuery, Listing};
use super::relative_time::{Ago, RoundedDuration};
use super::traffic::TrafficView;
use crate::admin::Admin;
use crate::certs::CertificateStatus;
use crate::oauth::logins::{DayOfLogins, LoginSummary};
use crate::settings::TlsMode;
use crate::telemetry::printable::printable;
use crate::tenants::cluster_view::{NodeState, NodeStatus};
use crate::tenants::registry::RoutingTable;

/// Tenants in trouble that are named above the list.
const CONCERNS: usize = 5;

/// Gateways of the cluster that are listed.
const NODES: usize = 12;

#[derive(Template)]
#[template(path = "admin/overview.html")]
struct OverviewPage {
    frame: Frame,
    concerns: Vec<Concern>,
    is_grave: bool,
    /// How many tenants in trouble are not named, and where they are listed.
    more_concerns: Option<(usize, String)>,
    traffic: TrafficView,
    tiles: Vec<Tile>,
    chips: Vec<Chip>,
    query: ListQuery,
    is_initial_scan_done: bool,
    total: usize,
    list: ListPage,
}

/// One value with what belongs to it.
struct Tile {
    title: &'static str,
    path: Option<&'static str>,
    value: String,
    lines: Vec<String>,
}

/// Renders the page.
pub(super) async fn render(admin: &Admin, visit: &Visit<'_>) -> String {
    let logins = logins_tile(admin, visit).await;
    let table = admin.registry.load_full();
    let (listing, query) = (Listing::collect(&table), ListQuery::parse(visit));
    let certificates = admin.certificates.statuses();
    let mut concerns = concerns::find_gateway_concerns(admin, &certificates, visit.now);
    let troubled = listing.troubled().take(CONCERNS);
    concerns.extend(troubled.map(|(state, entry)| Concern::from_tenant(entry, state, visit)));
    let page = OverviewPage {
        frame: Frame::new("Overview", Section::Overview, visit),
        is_grave: concerns.iter().any(|concern| matches!(concern.class, "rejected" | "error")),
        concerns,
        more_concerns: find_more_concerns(&listing),
        traffic: TrafficView::from(admin.usage.traffic()),
        tiles: logins.into_iter().chain(tiles(admin, &table, &certificates, visit)).collect(),
        chips: listing.chips(&query),
        is_initial_scan_done: table.is_initial_scan_done,
        total: listing.total(),
        list: listing.page(&query, visit),
        query,
    };
    page.render().expect("the page is written to a String")
}

/// Returns how many tenants in trouble are not named, and where most of them are listed.
fn find_more_concerns(listing: &Listing<'_>) -> Option<(usize, String)> {
    let states = DisplayState::ALL.into_iter().filter(|state| state.is_trouble());
    let all: usize = states.clone().map(|state| listing.count(state)).sum();
    let most = states.max_by_key(|state| listing.count(*state))?;
    let path = link::with_query("/", &[("state", most.word())]) + "#tenants";
    (all > CONCERNS).then(|| (all - CONCERNS, path))
}

fn tiles(
    admin: &Admin,
    table: &RoutingTable,
    certificates: &[CertificateStatus],
    visit: &Visit<'_>,
) -> Vec<Tile> {
    vec![
        certificates_tile(admin, certificates, visit),
        folder_tile(admin, table, visit),
        listeners_tile(admin),
        store_tile(admin),
        version_tile(admin, visit),
    ]
    .into_iter()
    .chain(nodes_tile(admin))
    .collect()
}

/// The gateways of the cluster, if this is one of several.
fn nodes_tile(admin: &Admin) -> Option<Tile> {
    let state = admin.cluster.as_ref()?.state();
    let live = state.nodes.iter().filter(|node| node.state == NodeState::Live).count();
    let line = |node: &NodeStatus| {
        let this = if node.is_this { " (this one)" } else { "" };
        let entries = node.entries.map(|entries| format!(", entries: {entries}")).unwrap_or_default();
        let seen = Ago(node.seen_seconds_ago);
        let name = printable(&node.name);
        format!("{name}{this}: {}, version {}{entries}, heard of {seen}", node.state.as_str(), node.version)
    };
    let more = state.nodes.len().checked_sub(NODES).filter(|more| *more > 0);
    let lines = state.nodes.iter().take(NODES).map(line).chain(more.map(|more| format!("and {more} more")));
    let value = format!("{live} live");
    Some(Tile { title: "Gateways", path: None, value, lines: lines.collect() })
}

/// How many people are logged in, and how many logins there were. `None` without a store.
async fn logins_tile(admin: &Admin, visit: &Visit<'_>) -> Option<Tile> {
    let (value, lines) = match admin.logins.as_ref()?.summarize().await {
        Ok(LoginSummary { in_force, is_complete, last_day }) => {
            let more = if is_complete { "" } else { "more than " };
            let is_new = visit.now.duration_since(admin.startup.at) < SignedDuration::from_hours(24);
            let since = if is_new { "since the start" } else { "in the last 24 hours" };
            let DayOfLogins { succeeded, failed } = last_day;
            let lines = vec![format!("{succeeded} logged in {since}"), format!("{failed} did not get in")];
            (format!("{more}{in_force} in force"), lines)
        }
        Err(_) => ("unknown".to_owned(), vec!["the store cannot be read now".to_owned()]),
    };
    Some(Tile { title: "Logins", path: Some("/people"), value, lines })
}

fn certificates_tile(admin: &Admin, certificates: &[CertificateStatus], visit: &Visit<'_>) -> Tile {
    let healthy = certificates.iter().filter(|status| status.is_healthy()).count();
    let first_end = certificates.iter().filter_map(|status| Some((status.not_after?, &status.name))).min();
    let ends =
        first_end.map(|(end, name)| format!("{name} ends {}", Ago(visit.now.as_second() - end.as_second())));
    let value = match (admin.info.tls, certificates.len()) {
        (TlsMode::Off, _) => "TLS is off".to_owned(),
        (_, all) if all == healthy => format!("{all} valid"),
        (_, all) => format!("{healthy} of {all} valid"),
    };
    Tile { title: "Certificates", path: Some("/certificates"), value, lines: ends.into_iter().collect() }
}

/// When the folder was read, and how changes of it are noticed.
fn folder_tile(admin: &Admin, table: &RoutingTable, visit: &Visit<'_>) -> Tile {
    let health = admin.metrics.health();
    #[expect(clippy::cast_possible_truncation, reason = "seconds of this century fit")]
    let read = (health.last_completed_at > 0.0)
        .then(|| Ago(visit.now.as_second() - health.last_completed_at as i64).to_string());
    let watch = match health.is_folder_notified {
        true => "the system reports changes",
        false => "looked at every two seconds",
    };
    let mut lines = vec![watch.to_owned(), format!("generation {}", table.generation)];
    if health.unsettled > 0 {
        lines.push(format!("{} entries are still being written", health.unsettled));
    }
    let value = match (read, health.is_last_pass_complete) {
        (Some(read), true) => format!("read {read}"),
        (Some(read), false) => format!("failed; last read {read}"),
        (None, _) => "not read yet".to_owned(),
    };
    Tile { title: "Tenants folder", path: None, value, lines }
}

fn listeners_tile(admin: &Admin) -> Tile {
    let join = |addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let startup = &admin.startup;
    let mut lines = vec![format!("public: {}", join(&startup.listen))];
    if !startup.listen_http.is_empty() {
        lines.push(format!("plain HTTP: {}", join(&startup.listen_http)));
    }
    lines.extend(startup.admin.map(|address| format!("admin: {address}")));
    let open = admin.metrics.health().connections;
    Tile { title: "Listeners", path: None, value: format!("{open} connections"), lines }
}

fn store_tile(admin: &Admin) -> Tile {
    let value = match (&admin.store, admin.metrics.health().is_store_writable) {
        (None, _) => "none",
        (_, true) => "writable",
        (_, false) => "not writable",
    };
    let folder = admin.startup.state.display().to_string();
    Tile { title: "Store", path: None, value: value.to_owned(), lines: vec![folder] }
}

fn version_tile(admin: &Admin, visit: &Visit<'_>) -> Tile {
    let uptime = visit.now.as_second() - admin.startup.at.as_second();
    let uptime = RoundedDuration(uptime.max(0).unsigned_abs());
    let lines = vec![format!("version {}", admin.info.version), admin.info.public_base.clone()];
    Tile { title: "Running", path: None, value: format!("for {uptime}"), lines }
}
