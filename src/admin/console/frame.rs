//! What all pages have: the head, the links to the other pages, and the foot.

use askama::Template;
use jiff::Timestamp;

use super::assets;
use super::notices::Notice;
use super::relative_time::RelativeTime;
use crate::admin::call::Call;
use crate::admin::request::query_parameter;
use crate::settings::AdminRole;

/// One request for a page.
pub(super) struct Visit<'a> {
    pub(super) now: Timestamp,
    query: Option<&'a str>,
    /// What forms must carry; `None` if the caller may change nothing, and so gets no forms.
    pub(super) csrf_token: Option<String>,
    /// The name of the caller's token.
    operator: Option<String>,
    notice: Option<Notice>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(call: &'a Call<'_>) -> Self {
        let may_operate = call.caller.role >= Some(AdminRole::Operate);
        Self {
            now: call.admin.clock.now(),
            query: call.head.uri.query(),
            csrf_token: may_operate.then(|| call.csrf_token()),
            operator: call.caller.operator.as_deref().map(str::to_owned),
            notice: call.parameter("notice").and_then(|id| call.admin.console.notices.find(&id)),
        }
    }

    /// Returns a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        query_parameter(self.query, name)
    }

    pub(super) fn relative_time(&self, at: Timestamp) -> RelativeTime {
        RelativeTime::new(at, self.now)
    }
}

/// The pages that every page links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    People,
    Certificates,
    Alerts,
    Audit,
    Add,
}

impl Section {
    const ALL: [(Self, &str, &str); 6] = [
        (Self::Overview, "/", "Overview"),
        (Self::People, "/people", "People"),
        (Self::Certificates, "/certificates", "Certificates"),
        (Self::Alerts, "/alerts", "Alerts"),
        (Self::Audit, "/audit", "Audit"),
        (Self::Add, "/add", "Add"),
    ];
}

/// What surrounds the content of a page.
pub(super) struct Frame {
    pub(super) title: String,
    section: Section,
    pub(super) stamp: &'static str,
    pub(super) version: &'static str,
    pub(super) now: String,
    pub(super) notice: Option<Notice>,
    /// What forms must carry, if the caller may change something.
    pub(super) csrf_token: Option<String>,
    pub(super) operator: Option<String>,
}

/// A link to a page.
pub(super) struct SectionLink {
    pub(super) path: &'static str,
    pub(super) word: &'static str,
    pub(super) is_current: bool,
}

impl Frame {
    pub(super) fn new(title: impl Into<String>, section: Section, visit: &Visit<'_>) -> Self {
        Self {
            title: title.into(),
            section,
            stamp: assets::stamp(),
            version: env!("CARGO_PKG_VERSION"),
            now: visit.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            notice: visit.notice.clone(),
            csrf_token: visit.csrf_token.clone(),
            operator: visit.operator.clone(),
        }
    }

    /// Returns the links to the other pages.
    pub(super) fn links(&self) -> impl Iterator<Item = SectionLink> {
        let link = |(section, path, word)| SectionLink { path, word, is_current: section == self.section };
        let may_see = |(section, ..): &(Section, _, _)| *section != Section::Add || self.csrf_token.is_some();
        Section::ALL.into_iter().filter(may_see).map(link)
    }
}

#[derive(Template)]
#[template(path = "admin/not_found.html")]
struct NotFoundPage {
    frame: Frame,
}

/// Renders the page for a tenant that there is not.
pub(super) fn render_not_found(visit: &Visit<'_>) -> String {
    let page = NotFoundPage { frame: Frame::new("Not found", Section::Overview, visit) };
    page.render().expect("the page is written to a String")
}
