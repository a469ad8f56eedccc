//! The console: pages of the admin listener for operators. They are made on the server, complete
//! without JavaScript, and show what the JSON API has, by the same functions.
//!
//! Everything that a tenant's files, clients or people chose is text here: the templates escape it,
//! and the policy allows no script or style but the console's own files.

mod assets;
mod certificates;
mod concerns;
mod display_state;
mod events;
mod findings;
mod frame;
mod link;
mod listing;
mod moment;
mod overview;
mod revisions;
mod tenant;
mod traffic;

use http::{HeaderValue, Response, StatusCode, header};

pub use self::events::EventStreams;
use self::frame::Visit;
use super::Admin;
use super::call::Call;
use super::response;
use crate::base::body::Body;

/// Only the console's own files are loaded, and forms lead nowhere else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Answers a request for one of the files that the pages load.
pub(super) fn show_file(name: &str) -> Response<Body> {
    assets::find(name).unwrap_or_else(|| response::problem(StatusCode::NOT_FOUND, "there is no such file"))
}

/// Answers `/`.
pub(super) fn show_overview(call: &Call<'_>) -> Response<Body> {
    page(overview::render(call.admin, &Visit::new(call)))
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
