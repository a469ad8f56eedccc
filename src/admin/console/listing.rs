//! The list of tenants: filtered by state, searched, and in pages, trouble first.

use super::concerns::explain;
use super::display_state::DisplayState;
use super::frame::Visit;
use super::link;
use super::relative_time::RelativeTime;
use crate::telemetry::printable::printable;
use crate::tenants::PublishedEntry;
use crate::tenants::registry::RoutingTable;

/// Tenants on one page.
const ROWS: usize = 50;
/// The longest search, in bytes.
const MAX_SEARCH: usize = 200;
const STATES: usize = DisplayState::ALL.len();

/// All entries by their state. The states are computed once for a page.
pub(super) struct Listing<'a> {
    /// In the order of [`DisplayState::ALL`].
    by_state: [Vec<&'a PublishedEntry>; STATES],
}

/// What the list is asked for.
pub(super) struct ListQuery {
    pub(super) search: String,
    pub(super) filter: Option<DisplayState>,
    page: usize,
}

/// One page of the list.
pub(super) struct ListPage {
    pub(super) rows: Vec<TenantRow>,
    /// How many tenants were found in all.
    pub(super) found: usize,
    pub(super) number: usize,
    pub(super) count: usize,
    pub(super) previous: Option<String>,
    pub(super) next: Option<String>,
}

/// A tenant in the list.
pub(super) struct TenantRow {
    pub(super) state: DisplayState,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) title: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) url: Option<String>,
    pub(super) since: RelativeTime,
}

/// A filter by state.
pub(super) struct Chip {
    pub(super) word: &'static str,
    pub(super) count: usize,
    pub(super) path: String,
    pub(super) is_current: bool,
}

impl ListQuery {
    pub(super) fn parse(visit: &Visit<'_>) -> Self {
        let mut search = visit.parameter("q").unwrap_or_default();
        search.truncate(search.floor_char_boundary(MAX_SEARCH));
        Self {
            search: search.trim().to_owned(),
            filter: visit.parameter("state").and_then(|word| DisplayState::parse(&word)),
            page: visit.parameter("page").and_then(|number| number.parse().ok()).unwrap_or(1),
        }
    }

    fn path(&self, filter: Option<DisplayState>, page: usize) -> String {
        let page = if page > 1 { page.to_string() } else { String::new() };
        let state = filter.map_or("", DisplayState::word);
        link::with_query("/", &[("q", &self.search), ("state", state), ("page", &page)]) + "#tenants"
    }
}

impl<'a> Listing<'a> {
    pub(super) fn collect(table: &'a RoutingTable) -> Self {
        let mut by_state = [const { Vec::new() }; STATES];
        for entry in table.entries.values() {
            by_state[DisplayState::from(entry) as usize].push(entry);
        }
        Self { by_state }
    }

    /// Returns the number of tenants in a state.
    pub(super) fn count(&self, state: DisplayState) -> usize {
        self.by_state[state as usize].len()
    }

    /// Returns the number of all tenants.
    pub(super) fn total(&self) -> usize {
        self.by_state.iter().map(Vec::len).sum()
    }

    /// Returns the tenants in trouble: those that answer nobody any more, then by their state.
    pub(super) fn troubled(&self) -> impl Iterator<Item = (DisplayState, &'a PublishedEntry)> {
        let all = || self.entries(None).filter(|(state, _)| state.is_trouble());
        all().filter(|(_, entry)| entry.is_closed()).chain(all().filter(|(_, entry)| !entry.is_closed()))
    }

    /// Returns the filters: all tenants, and each state that there is.
    pub(super) fn chips(&self, query: &ListQuery) -> Vec<Chip> {
        let states = DisplayState::ALL.into_iter().filter(|state| self.count(*state) > 0);
        let chip = |filter: Option<DisplayState>| Chip {
            word: filter.map_or("all", DisplayState::word),
            count: filter.map_or_else(|| self.total(), |state| self.count(state)),
            path: query.path(filter, 1),
            is_current: query.filter == filter,
        };
        std::iter::once(None).chain(states.map(Some)).map(chip).collect()
    }

    /// Returns the page that is asked for.
    pub(super) fn page(&self, query: &ListQuery, visit: &Visit<'_>) -> ListPage {
        let wanted = query.search.to_lowercase();
        let found: Vec<_> = self.entries(query.filter).filter(|(_, entry)| matches(entry, &wanted)).collect();
        let count = found.len().div_ceil(ROWS).max(1);
        let number = query.page.clamp(1, count);
        let rows = found.iter().skip((number - 1) * ROWS).take(ROWS);
        ListPage {
            rows: rows.map(|(state, entry)| TenantRow::new(*state, entry, visit)).collect(),
            found: found.len(),
            number,
            count,
            previous: (number > 1).then(|| query.path(query.filter, number - 1)),
            next: (number < count).then(|| query.path(query.filter, number + 1)),
        }
    }

    fn entries(
        &self,
        filter: Option<DisplayState>,
    ) -> impl Iterator<Item = (DisplayState, &'a PublishedEntry)> {
        let states = DisplayState::ALL.into_iter().zip(&self.by_state);
        let wanted = states.filter(move |(state, _)| filter.is_none_or(|filter| filter == *state));
        wanted.flat_map(|(state, entries)| entries.iter().map(move |entry| (state, *entry)))
    }
}

/// Whether a lower-case text is in the name, file, title or host of a tenant.
fn matches(entry: &PublishedEntry, wanted: &str) -> bool {
    let contains = |text: &str| text.to_lowercase().contains(wanted);
    let tenant = entry.tenant.as_deref();
    let mounts = tenant.into_iter().flat_map(|tenant| &tenant.spec.mounts);
    wanted.is_empty()
        || contains(entry.name())
        || contains(entry.entry_id())
        || tenant.is_some_and(|tenant| contains(&tenant.spec.title))
        || mounts.filter_map(|mount| mount.host.as_ref()).any(|host| contains(host.as_str()))
}

impl TenantRow {
    fn new(state: DisplayState, entry: &PublishedEntry, visit: &Visit<'_>) -> Self {
        let spec = entry.tenant.as_deref().map(|tenant| &tenant.spec);
        let title = spec.map(|spec| &*spec.title).filter(|title| *title != entry.name());
        Self {
            state,
            name: printable(entry.name()).into_owned(),
            path: link::tenant(entry.name()),
            title: title.map(|title| printable(title).into_owned()),
            reason: state.is_trouble().then(|| explain(entry).0).flatten(),
            url: spec.map(|spec| spec.public_url.connector_url()),
            since: visit.relative_time(entry.since()),
        }
    }
}
