//! The console: pages of the admin listener for operators. They are made on the server, complete
//! without JavaScript, and show what the JSON API has, by the same functions.
//!
//! Everything that a tenant's files, clients or people chose is text here: the templates escape it,
//! and the policy allows no script or style but the console's own files.

mod actions;
mod add;
mod alerts;
mod assets;
mod audit;
mod certificates;
mod concerns;
mod display_state;
mod drafts;
mod events;
mod findings;
mod frame;
mod link;
mod listing;
mod notices;
mod overview;
mod people;
mod prose;
mod relative_time;
mod revisions;
mod tenant;
mod traffic;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use self::actions::perform;
use self::drafts::Drafts;
use self::events::EventStreams;
use self::frame::Visit;
use self::notices::Notices;
use super::Admin;
use super::call::Call;
use super::{commands, response};
use crate::base::body::Body;

/// Only the console's own files are loaded, and forms lead nowhere else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What the console keeps in memory: open streams, the last notices, files that were checked.
#[derive(Debug, Default)]
pub struct ConsoleState {
    streams: EventStreams,
    notices: Notices,
    drafts: Drafts,
}

/// Answers a request for one of the files that the pages load.
pub(super) fn show_file(name: &str) -> Response<Body> {
    assets::find(name).unwrap_or_else(|| response::problem(StatusCode::NOT_FOUND, "there is no such file"))
}

/// Answers `/`.
pub(super) async fn show_overview(call: Call<'_>) -> Response<Body> {
    page(overview::render(call.admin, &Visit::new(&call)).await)
}

/// Answers `/audit`.
pub(super) async fn show_audit(call: Call<'_>) -> Response<Body> {
    page(audit::render(call.admin, &Visit::new(&call)).await)
}

/// Answers `/alerts`.
pub(super) fn show_alerts(call: &Call<'_>) -> Response<Body> {
    page(alerts::render(call.admin, &Visit::new(call)))
}

/// Sends a test event to the targets.
pub(super) async fn test_alerts(call: Call<'_>) -> Response<Body> {
    alerts::test(call).await
}

/// Answers `/certificates`.
pub(super) fn show_certificates(call: &Call<'_>) -> Response<Body> {
    page(certificates::render(call.admin, &Visit::new(call)))
}

/// Answers `/tenants/NAME`.
pub(super) async fn show_tenant(call: Call<'_>) -> Response<Body> {
    let visit = Visit::new(&call);
    page_or_not_found(tenant::render(call.admin, call.segment(0), &visit).await, &visit)
}

/// Answers `/tenants/NAME/diff`.
pub(super) async fn show_diff(call: Call<'_>) -> Response<Body> {
    let visit = Visit::new(&call);
    page_or_not_found(revisions::render_diff(call.admin, call.segment(0), &visit).await, &visit)
}

/// Opens a stream of events for one page.
pub(super) fn open_events(admin: &Admin) -> Response<Body> {
    events::open(admin)
}

/// Answers `/people`.
pub(super) async fn show_people(call: Call<'_>) -> Response<Body> {
    page(people::render(call.admin, &Visit::new(&call)).await)
}

/// Ends a login.
pub(super) async fn end_login(call: Call<'_>) -> Response<Body> {
    people::end(call).await
}

/// Blocks a person.
pub(super) async fn block(call: Call<'_>) -> Response<Body> {
    people::block(call).await
}

/// Lifts a block.
pub(super) async fn unblock(call: Call<'_>) -> Response<Body> {
    people::unblock(call).await
}

/// Answers `GET /add`.
pub(super) fn show_add(call: &Call<'_>) -> Response<Body> {
    page(add::render(call))
}

/// Checks a file that was chosen on the page.
pub(super) async fn check_file(mut call: Call<'_>) -> Response<Body> {
    match add::check(&mut call).await {
        Ok(html) => page(html),
        Err(refusal) => *refusal,
    }
}

/// Puts a file that was checked into the tenants folder.
pub(super) async fn accept_file(call: Call<'_>) -> Response<Body> {
    add::accept(call).await
}

/// Scans the tenants folder.
pub(super) async fn reload(call: Call<'_>) -> Response<Body> {
    let done = |_: &Value| "The tenants folder was read.".to_owned();
    perform(call, |call| Box::pin(commands::reload(call)), "/", done).await
}

/// Renews a certificate.
pub(super) async fn renew(call: Call<'_>) -> Response<Body> {
    let done = format!("The certificate of {} was renewed.", call.segment(0));
    perform(call, |call| Box::pin(commands::renew(call)), "/certificates", |_| done).await
}

/// Pauses a tenant.
pub(super) async fn pause(call: Call<'_>) -> Response<Body> {
    let done = "Paused: callers are refused until somebody resumes it.";
    perform_on_tenant(call, |call| Box::pin(commands::pause(call)), done).await
}

/// Resumes a tenant.
pub(super) async fn resume(call: Call<'_>) -> Response<Body> {
    perform_on_tenant(call, |call| Box::pin(commands::resume(call)), "Resumed.").await
}

/// Gives a tenant what its files claim.
pub(super) async fn accept(call: Call<'_>) -> Response<Body> {
    perform_on_tenant(call, |call| Box::pin(commands::accept(call)), "Accepted what its files claim.").await
}

/// Puts the change in force that waits for approval.
pub(super) async fn approve(call: Call<'_>) -> Response<Body> {
    let done = "Approved: the change is in force.";
    perform_on_tenant(call, |call| Box::pin(commands::approve(call)), done).await
}

/// Puts a stored revision in force.
pub(super) async fn roll_back(call: Call<'_>) -> Response<Body> {
    let number = call.parameter("revision").unwrap_or_default();
    let done = format!("Revision {number} is in force until the files change.");
    perform_on_tenant(call, |call| Box::pin(commands::roll_back(call)), &done).await
}

async fn perform_on_tenant(call: Call<'_>, order: actions::Order, done: &str) -> Response<Body> {
    let path = link::tenant(call.segment(0));
    perform(call, order, &path, |_| done.to_owned()).await
}

fn page_or_not_found(html: Option<String>, visit: &Visit<'_>) -> Response<Body> {
    match html {
        Some(html) => page(html),
        None => {
            let html = frame::render_not_found(visit);
            with_policy(response::with_content(StatusCode::NOT_FOUND, HTML, html))
        }
    }
}

fn page(html: String) -> Response<Body> {
    with_policy(response::with_content(StatusCode::OK, HTML, html))
}

fn with_policy(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response
}
