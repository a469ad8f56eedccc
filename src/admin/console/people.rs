//! The people who are logged in, at all tenants or at one, and who is blocked.

use askama::Template;
use http::Response;
use serde_json::{Value, json};

use super::actions::perform;
use super::frame::{Frame, Section, Visit};
use super::link;
use super::relative_time::RelativeTime;
use crate::admin::Admin;
use crate::admin::call::Call;
use crate::admin::logins;
use crate::base::body::Body;
use crate::oauth::logins::{ListedBlock, Login, LoginFilter, LoginPage, PersonName, ProgramToken};
use crate::telemetry::printable::printable;

/// Logins on one page, and the most tokens of programs; more of those are only counted.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "admin/people.html")]
struct PeoplePage {
    frame: Frame,
    /// Why there are no logins at all.
    without: Option<&'static str>,
    person: String,
    tenant: String,
    client: String,
    logins: Vec<LoginView>,
    next: Option<String>,
    programs: Vec<ProgramView>,
    omitted_programs: usize,
    blocks: Vec<BlockView>,
}

/// A login.
pub(super) struct LoginView {
    pub(super) id: String,
    pub(super) tenant: String,
    pub(super) tenant_path: String,
    pub(super) person: String,
    /// What the person is blocked by: the account itself, since names change.
    pub(super) account: Option<String>,
    pub(super) client: String,
    pub(super) since: RelativeTime,
    pub(super) last_used: RelativeTime,
}

/// The token of a program.
struct ProgramView {
    id: String,
    tenant: String,
    tenant_path: String,
    label: String,
    since: RelativeTime,
    last_used: Option<RelativeTime>,
    expires: RelativeTime,
}

/// A block.
struct BlockView {
    person: String,
    place: String,
    reason: Option<String>,
    since: Option<RelativeTime>,
    until: Option<RelativeTime>,
    lift_path: String,
}

/// Renders the page.
pub(super) async fn render(admin: &Admin, visit: &Visit<'_>) -> String {
    let [person, tenant, client] =
        ["person", "tenant", "client"].map(|name| visit.parameter(name).unwrap_or_default());
    let filter = LoginFilter {
        tenant: Some(tenant.as_str()).filter(|text| !text.is_empty()).map(Into::into),
        person: PersonName::parse(&person),
        client: Some(client.clone()).filter(|text| !text.is_empty()),
        ..LoginFilter::default()
    };
    let after = visit.parameter("after");
    let (without, found, blocks) = match &admin.logins {
        None => (Some("This gateway runs without a store, so nobody can log in."), None, Vec::new()),
        Some(logins) => match logins.list(&filter, after.as_deref(), ROWS).await {
            Ok(found) => (None, Some(found), logins.blocks()),
            Err(_) => (Some("The store cannot be read now; the log says why."), None, logins.blocks()),
        },
    };
    let next = found.as_ref().and_then(|found| found.next.clone()).map(|next| {
        let parameters =
            [("person", &*person), ("tenant", &*tenant), ("client", &*client), ("after", &*next)];
        link::with_query("/people", &parameters)
    });
    let (logins, programs) =
        found.map(|LoginPage { logins, programs, .. }| (logins, programs)).unwrap_or_default();
    let page = PeoplePage {
        frame: Frame::new("People", Section::People, visit),
        without,
        logins: logins.into_iter().map(|login| LoginView::new(login, visit)).collect(),
        next,
        omitted_programs: programs.len().saturating_sub(ROWS),
        programs: programs.into_iter().take(ROWS).map(|token| ProgramView::new(token, visit)).collect(),
        blocks: blocks.into_iter().map(|block| BlockView::new(block, visit)).collect(),
        person,
        tenant,
        client,
    };
    page.render().expect("the page is written to a String")
}

/// Returns the first logins at a tenant, and whether there are more.
pub(super) async fn find_logins(admin: &Admin, tenant: &str, visit: &Visit<'_>) -> (Vec<LoginView>, bool) {
    let Some(logins) = &admin.logins else { return (Vec::new(), false) };
    let filter = LoginFilter { tenant: Some(tenant.into()), ..LoginFilter::default() };
    // A store that cannot be read is named on the overview.
    let Ok(found) = logins.list(&filter, None, 10).await else { return (Vec::new(), false) };
    (found.logins.into_iter().map(|login| LoginView::new(login, visit)).collect(), found.next.is_some())
}

/// Ends the login or the program's token that a form names.
pub(super) async fn end(call: Call<'_>) -> Response<Body> {
    let order = json!({ "id": call.field("id") });
    let done = |answer: &Value| format!("Signed out: {} login ended.", answer["ended"]);
    perform(call.with_json(&order), |call| Box::pin(logins::end(call)), "/people", done).await
}

/// Blocks the person that a form names.
pub(super) async fn block(call: Call<'_>) -> Response<Body> {
    let given = |name: &str| call.field(name).filter(|text| !text.trim().is_empty());
    let (person, tenant) = (given("person").unwrap_or_default(), given("tenant"));
    let mut order = json!({ "person": person, "all_tenants": tenant.is_none(), "reason": given("reason") });
    if let Some(tenant) = tenant {
        order["tenant"] = json!(tenant);
    }
    let done = |answer: &Value| {
        let notice = answer["notice"].as_str().map(|notice| format!(" {notice}.")).unwrap_or_default();
        format!("Blocked until you lift it; logins ended: {}.{notice}", answer["logins_ended"])
    };
    perform(call.with_json(&order), |call| Box::pin(logins::block(call)), "/people", done).await
}

/// Lifts a block.
pub(super) async fn unblock(call: Call<'_>) -> Response<Body> {
    let done = |_: &Value| "The block is lifted.".to_owned();
    perform(call, |call| Box::pin(logins::unblock(call)), "/people", done).await
}

impl LoginView {
    fn new(login: Login, visit: &Visit<'_>) -> Self {
        let person = login.person.as_ref();
        let name = person.and_then(|person| person.user.as_deref().or(person.name.as_deref()));
        Self {
            id: login.id,
            tenant_path: link::tenant(&login.tenant),
            tenant: login.tenant.to_string(),
            person: printable(name.or(person.map(|person| &*person.oid)).unwrap_or("unreadable"))
                .into_owned(),
            account: person.map(|person| format!("{}/{}", person.tid, person.oid)),
            client: printable(login.client_name.as_deref().unwrap_or(&login.client_id)).into_owned(),
            since: visit.relative_time(login.since),
            last_used: visit.relative_time(login.last_used),
        }
    }
}

impl ProgramView {
    fn new(token: ProgramToken, visit: &Visit<'_>) -> Self {
        Self {
            id: token.id,
            tenant_path: link::tenant(&token.tenant),
            tenant: token.tenant.to_string(),
            label: printable(&token.label).into_owned(),
            since: visit.relative_time(token.since),
            last_used: token.last_used.map(|at| visit.relative_time(at)),
            expires: visit.relative_time(token.expires_at),
        }
    }
}

impl BlockView {
    fn new(listed: ListedBlock, visit: &Visit<'_>) -> Self {
        let block = listed.block.as_ref().map(|block| json!(block)).unwrap_or_default();
        let text = |name: &str| block[name].as_str().map(|text| printable(text).into_owned());
        let relative_time = |name: &str| {
            block[name].as_str().and_then(|at| at.parse().ok()).map(|at| visit.relative_time(at))
        };
        Self {
            person: text("user").or_else(|| text("oid")).unwrap_or_else(|| "unreadable".to_owned()),
            place: text("tenant").unwrap_or_else(|| "all tenants".to_owned()),
            reason: text("reason"),
            since: relative_time("since"),
            until: relative_time("until"),
            lift_path: format!("/people/unblock/{}", link::segment(&listed.id)),
        }
    }
}
