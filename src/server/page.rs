//! The page for people at `{prefix}/`: the connector URL, and how to add it to each client.
//!
//! Plain HTML without script or foreign assets. It shows what a caller may know anyway: no backend, no key, no count.

use askama::Template;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::reply;
use crate::base::body::{self, Body};
use crate::settings::OpenTenants;
use crate::spec::TenantSpec;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    name: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    dataset: &'a str,
    url: String,
    access: &'static str,
    tools: Vec<&'a str>,
    /// A key is asked for.
    keyed: bool,
    /// Only private networks are answered.
    local: bool,
}

impl<'a> Page<'a> {
    fn of(spec: &'a TenantSpec, open: OpenTenants) -> Self {
        let keyed = !spec.access.is_open();
        let local = !keyed && !spec.access.public && open != OpenTenants::Public;
        Self {
            name: spec.name.as_str(),
            title: &spec.title,
            description: spec.description.as_deref(),
            dataset: &spec.dataset,
            url: spec.public_url.connector(),
            access: match (keyed, local) {
                (true, _) => "with an API key",
                (_, true) => "open to this machine and private networks, no key needed",
                _ => "open to everybody, no key needed",
            },
            tools: spec.tools.iter().map(|tool| &*tool.name).collect(),
            keyed,
            local,
        }
    }
}

/// Answers a request for the page.
pub(super) fn answer(spec: &TenantSpec, open: OpenTenants, method: &Method) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return reply::method_not_allowed("GET, HEAD");
    }
    let html = Page::of(spec, open).render().expect("the page is written to a String");
    let length = HeaderValue::from(html.len());
    let mut response =
        reply::of_type(StatusCode::OK, HeaderValue::from_static("text/html; charset=utf-8"), html);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // The MCP endpoint shows this page to browsers, so caches must look at what was asked for.
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if *method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, length);
        *response.body_mut() = body::empty();
    }
    response
}
