//! The page of one tenant: what is wrong and where, how to reach it, who may call it, what it
//! calls, and what its files were before.

use std::time::Instant;

use askama::Template;

use super::audit::{self, LastCalls};
use super::concerns::explain;
use super::display_state::DisplayState;
use super::findings::{self, FindingView};
use super::frame::{Frame, Section, Visit};
use super::link;
use super::people::{self, LoginView};
use super::relative_time::{RelativeTime, RoundedDuration};
use super::revisions::{self, RevisionView};
use super::traffic::TrafficView;
use crate::admin::Admin;
use crate::backend::CircuitState;
use crate::identity;
use crate::spec::AccessSpec;
use crate::telemetry::printable::printable;
use crate::tenants::PublishedEntry;
use crate::tenants::cluster_view::{NodeState, TenantOnNode};
use crate::tenants::status::TenantStatus;
use crate::tenants::tenant::Tenant;

#[derive(Template)]
#[template(path = "admin/tenant.html")]
struct TenantPage {
    frame: Frame,
    name: String,
    title: Option<String>,
    state: DisplayState,
    path: String,
    is_closed: bool,
    is_paused: bool,
    /// Whether its files claim what was another tenant's when they were refused.
    may_be_accepted: bool,
    /// The revision to go back to when the one in force misbehaves.
    rollback: Option<u64>,
    is_rolled_back: bool,
    since: RelativeTime,
    reason: Option<String>,
    help: Option<String>,
    findings: Vec<FindingView>,
    connector_url: Option<String>,
    redirect_uri: Option<String>,
    page_url: Option<String>,
    access: Option<AccessView>,
    people: Option<PeopleView>,
    traffic: TrafficView,
    last_calls: Option<LastCalls>,
    backend: Option<BackendView>,
    /// The tenant as each gateway of the cluster has it.
    nodes: Vec<NodeView>,
    files: Vec<String>,
    revisions: Vec<RevisionView>,
    /// Why there are no revisions.
    without_revisions: Option<String>,
}

/// Who may call.
struct AccessView {
    summary: String,
    keys: Vec<KeyView>,
    login: Option<ProviderView>,
    networks: Vec<String>,
    clients: Vec<ClientView>,
}

/// Who is logged in.
struct PeopleView {
    logins: Vec<LoginView>,
    /// Where the others are listed, if there are more.
    more_path: Option<String>,
}

/// An API key. Only its digest is known here, and not even that is shown.
struct KeyView {
    label: String,
    expires: Option<RelativeTime>,
    is_expired: bool,
}

struct ProviderView {
    provider: &'static str,
    app: String,
}

/// A client that an operator registered.
struct ClientView {
    name: String,
    id: String,
    kind: &'static str,
    added: RelativeTime,
}

/// What the tenant calls.
struct BackendView {
    origin: String,
    circuit: String,
    is_well: bool,
    in_flight: usize,
    last_problem: Option<(String, RelativeTime)>,
}

/// The tenant as one gateway has it.
struct NodeView {
    name: String,
    /// The class and the word of its state.
    class: &'static str,
    word: String,
    revision: Option<String>,
    since: Option<RelativeTime>,
}

impl NodeView {
    fn new(tenant: TenantOnNode, visit: &Visit<'_>) -> Self {
        let gone = (tenant.node_state != NodeState::Live).then(|| tenant.node_state.as_str());
        let word = match (gone, tenant.state) {
            (Some(gone), _) => format!("gateway {gone}"),
            (None, Some(state)) => printable(&state).into_owned(),
            (None, None) => "missing".to_owned(),
        };
        let is_well = gone.is_none() && tenant.in_force.is_some();
        Self {
            name: printable(&tenant.node).into_owned(),
            class: if is_well { "ok" } else { "warning" },
            word,
            revision: tenant.in_force,
            since: tenant.since.map(|since| visit.relative_time(since)),
        }
    }
}

/// Renders the page; `None` if there is no such tenant.
pub(super) async fn render(admin: &Admin, name: &str, visit: &Visit<'_>) -> Option<String> {
    let entry = admin.registry.load().find_entry(name)?.clone();
    let (revisions, without_revisions) = match admin.reconciler.history(name).await {
        Ok(revisions) => (revisions::views(entry.name(), revisions, visit), None),
        Err(refusal) => (Vec::new(), Some(refusal.to_string())),
    };
    let access = match entry.tenant.as_deref() {
        Some(tenant) => Some(AccessView::load(tenant, visit).await),
        None => None,
    };
    let has_login = entry.tenant.as_ref().is_some_and(|tenant| tenant.login.is_some());
    let people = match has_login {
        true => Some(PeopleView::load(admin, entry.name(), visit).await),
        false => None,
    };
    let status = entry.status();
    let in_force = revisions.iter().position(|revision| revision.in_force);
    let rollback = in_force.and_then(|at| revisions.get(at + 1)).map(|revision| revision.number);
    let last_calls = match entry.tenant.is_some() {
        true => Some(audit::find_last_calls(admin, entry.name()).await),
        false => None,
    };
    let nodes = match &admin.cluster {
        // A database that is away is named on the overview.
        Some(cluster) => cluster.find_tenant(&status.stem).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let page = TenantPage {
        nodes: nodes.into_iter().map(|node| NodeView::new(node, visit)).collect(),
        access,
        last_calls,
        people,
        rollback,
        revisions,
        without_revisions,
        ..TenantPage::new(admin, &entry, status, visit)
    };
    Some(page.render().expect("the page is written to a String"))
}

impl TenantPage {
    /// Creates the page without what has to be loaded.
    fn new(admin: &Admin, entry: &PublishedEntry, status: TenantStatus, visit: &Visit<'_>) -> Self {
        let (state, tenant) = (DisplayState::from(entry), entry.tenant.as_deref());
        let (reason, help) = if state.is_trouble() { explain(entry) } else { (None, None) };
        let name = printable(entry.name()).into_owned();
        Self {
            frame: Frame::new(name.clone(), Section::Overview, visit),
            title: status.title.filter(|title| *title != name).map(|title| printable(&title).into_owned()),
            name,
            state,
            path: link::tenant(entry.name()),
            is_closed: status.closed,
            is_paused: status.paused,
            may_be_accepted: entry.findings().iter().any(|finding| finding.code == "claim-free"),
            rollback: None,
            is_rolled_back: status.rolled_back,
            since: visit.relative_time(status.since),
            reason,
            help,
            findings: findings::views(entry.findings()),
            connector_url: status.connector_url,
            redirect_uri: status.redirect_uri,
            page_url: tenant.map(|tenant| tenant.spec.public_url.join_path("/")),
            access: None,
            people: None,
            traffic: TrafficView::from(admin.usage.tenant_traffic(entry.name())),
            last_calls: None,
            backend: tenant.map(|tenant| BackendView::new(tenant, admin.clock.monotonic(), visit)),
            nodes: Vec::new(),
            files: status.files.iter().map(|file| printable(file).into_owned()).collect(),
            revisions: Vec::new(),
            without_revisions: None,
        }
    }
}

impl PeopleView {
    async fn load(admin: &Admin, tenant: &str, visit: &Visit<'_>) -> Self {
        let (logins, has_more) = people::find_logins(admin, tenant, visit).await;
        Self { logins, more_path: has_more.then(|| link::with_query("/people", &[("tenant", tenant)])) }
    }
}

impl AccessView {
    async fn load(tenant: &Tenant, visit: &Visit<'_>) -> Self {
        let clients = match &tenant.login {
            // A store that cannot be read is named on the overview.
            Some(login) => login.clients().list().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let client = |client: crate::oauth::client::preregistered::ClientListing| ClientView {
            name: printable(&client.name).into_owned(),
            id: client.client_id,
            kind: if client.public { "without a secret" } else { "with a secret" },
            added: visit.relative_time(client.entered_at),
        };
        Self {
            clients: clients.into_iter().map(client).collect(),
            ..Self::new(&tenant.spec.access, tenant.bearer.describe(), visit)
        }
    }

    fn new(access: &AccessSpec, summary: String, visit: &Visit<'_>) -> Self {
        let key = |key: &crate::spec::ApiKeySpec| KeyView {
            label: printable(&key.label).into_owned(),
            expires: key.expires.map(|expires| visit.relative_time(expires)),
            is_expired: key.expires.is_some_and(|expires| expires <= visit.now),
        };
        let networks = access.allow_from.networks().into_iter().flatten();
        Self {
            summary,
            keys: access.api_keys.iter().map(key).collect(),
            login: access.login.as_ref().map(|login| ProviderView {
                provider: identity::find_brand(&login.provider).name,
                app: login.provider.client_id().to_string(),
            }),
            networks: networks.map(ToString::to_string).collect(),
            clients: Vec::new(),
        }
    }
}

impl BackendView {
    fn new(tenant: &Tenant, now: Instant, visit: &Visit<'_>) -> Self {
        let circuit = tenant.slot.backend.circuit_state(now);
        let problem = tenant.mcp.degradation();
        Self {
            origin: find_origin(tenant.spec.backend.context.url.head()),
            circuit: match circuit {
                CircuitState::Closed { outages: 0 } => "closed: calls go through".to_owned(),
                CircuitState::Closed { outages } => {
                    format!("closed: calls go through; the last {outages} failed")
                }
                CircuitState::Open { pause } => {
                    format!(
                        "open: calls are refused at once; the next is tried in {}",
                        RoundedDuration(pause.as_secs() + 1)
                    )
                }
                CircuitState::HalfOpen => "half open: the next call decides".to_owned(),
            },
            is_well: matches!(circuit, CircuitState::Closed { .. }) && problem.is_none(),
            in_flight: tenant.mcp.in_flight_count(),
            last_problem: problem
                .map(|problem| (printable(&problem.reason).into_owned(), visit.relative_time(problem.since))),
        }
    }
}

/// Returns scheme, host and port of a URL. Its path and query may hold secrets.
fn find_origin(url: &str) -> String {
    let origin = url::Url::parse(url).map(|url| url.origin().ascii_serialization());
    origin.unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_backends_url_only_the_origin_is_shown() {
        let url = "https://user:word@api.example.com:8443/nlp-context?key=k-0001";
        assert_eq!(find_origin(url), "https://api.example.com:8443");
        assert_eq!(find_origin("/relative"), "unknown");
    }
}
