//! Pages of the edge: the response that carries one, and the page of a refused request.

use askama::Template;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::base::body::{self, Body};

/// The Content Security Policy of a page without scripts.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Returns the response with a page. `policy` is its Content Security Policy.
pub(super) fn to_response(
    status: StatusCode,
    policy: &HeaderValue,
    html: impl Into<Bytes>,
) -> Response<Body> {
    let mut response =
        body::response(status, HeaderValue::from_static("text/html; charset=utf-8"), html.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Programs get another answer at the same URL, so caches must distinguish by Accept.
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Returns the page that tells a browser why its request was refused. `summary` and `help` are
/// those of the problem document that programs get.
pub(super) fn problem(status: StatusCode, summary: &str, help: Option<&str>) -> Response<Body> {
    let page = ProblemPage::new(status, summary, help);
    to_response(status, &POLICY, page.render().expect("the page is written to a String"))
}

/// The page for a browser whose request was refused.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    title: &'static str,
    summary: String,
    help: Option<String>,
    is_not_found: bool,
}

impl ProblemPage {
    fn new(status: StatusCode, summary: &str, help: Option<&str>) -> Self {
        let is_not_found = status == StatusCode::NOT_FOUND;
        let title = match status {
            _ if is_not_found => "There is nothing here",
            StatusCode::MISDIRECTED_REQUEST => "This host is not served here",
            StatusCode::SERVICE_UNAVAILABLE => "Not available at the moment",
            _ => "The request was refused",
        };
        // What a program should compare is of no use to a person who came to a wrong address.
        let help = help.filter(|_| !is_not_found).map(to_sentence);
        Self { title, summary: to_sentence(summary), help, is_not_found }
    }
}

/// Returns the text with a capital letter and a full stop.
fn to_sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    let mut sentence: String = first.chain(chars).collect();
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn html(status: StatusCode, summary: &str, help: Option<&str>) -> String {
        let response = problem(status, summary, help);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let bytes = response.into_body().collect().await.expect("a body cannot fail").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("HTML is UTF-8")
    }

    #[tokio::test]
    async fn a_person_at_a_wrong_address_learns_what_an_address_looks_like() {
        let html = html(StatusCode::NOT_FOUND, "no tenant <here>", Some("compare it")).await;
        assert!(
            html.contains("<h1>There is nothing here</h1>") && html.contains("No tenant &#60;here&#62;.")
        );
        assert!(html.contains("<code>/mcp</code>") && !html.contains("ompare it"));
    }

    #[tokio::test]
    async fn other_refusals_say_what_to_do() {
        let html = html(StatusCode::SERVICE_UNAVAILABLE, "it is starting", Some("try again")).await;
        assert!(html.contains("<p>It is starting.</p>") && html.contains("<p>Try again.</p>"));
        assert!(!html.contains("/mcp"));
    }
}
