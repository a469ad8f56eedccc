//! What a request says about the page that it comes from.
//!
//! Browsers name the page's origin with every request of a script to another origin and with every
//! form that is posted (`Origin`), and tell how a request relates to the page (`Sec-Fetch-Site`,
//! Fetch Metadata). Pages cannot leave these out or change them. Programs send neither.

use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::base::random;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Sender {
    /// A program: nothing points to a browser.
    Program,
    /// One of our own pages, or the person at the address bar.
    OwnPage,
    /// A link on another page, which leads the whole window here.
    Link,
    /// Another page.
    OtherPage,
}

/// Returns where a request comes from.
pub(in crate::admin) fn find_sender(head: &Parts, is_tls: bool) -> Sender {
    let headers = &head.headers;
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => {}
        (Some(origin), None) if is_own_origin(origin.to_str().unwrap_or_default(), headers, is_tls) => {}
        _ => return Sender::OtherPage,
    }
    match text(headers, "sec-fetch-site") {
        Some("same-origin" | "none") => Sender::OwnPage,
        Some(_) if is_navigation(head) => Sender::Link,
        Some(_) => Sender::OtherPage,
        None if headers.contains_key(header::ORIGIN) || Cookie::is_in(headers) => Sender::OwnPage,
        None => Sender::Program,
    }
}

/// Whether a page of this listener has this origin. A listener without TLS may have a proxy in
/// front that ends it, so both schemes are its own.
fn is_own_origin(origin: &str, headers: &HeaderMap, is_tls: bool) -> bool {
    let Some(host) = text(headers, "host").map(str::to_ascii_lowercase) else { return false };
    let is_of = |scheme: &str| origin.strip_prefix(scheme) == Some(&host);
    is_of("https://") || (!is_tls && is_of("http://"))
}

/// Whether the whole window goes to the address, so that no other page sees anything of it.
fn is_navigation(head: &Parts) -> bool {
    let is = |name, value| text(&head.headers, name) == Some(value);
    head.method == Method::GET && is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The cookie of a browser: the id of its session, if it has one, and what its CSRF tokens belong
/// to.
#[derive(Debug, Clone)]
pub(in crate::admin) struct Cookie {
    pub(in crate::admin) value: String,
    /// The browser does not have it yet.
    pub(in crate::admin) is_new: bool,
}

/// With TLS, the prefix keeps other hosts and plain pages from setting it (RFC 6265bis).
const SECURE_NAME: &str = "__Host-tenantd-admin";
const PLAIN_NAME: &str = "tenantd-admin";

impl Cookie {
    /// Returns the request's cookie, or makes a new one.
    pub(super) fn of(headers: &HeaderMap, is_tls: bool) -> Self {
        let known = find(headers, name(is_tls)).filter(|value| random::is_token(value));
        match known {
            Some(value) => Self { value: value.to_owned(), is_new: false },
            None => Self { value: random::token(), is_new: true },
        }
    }

    fn is_in(headers: &HeaderMap) -> bool {
        find(headers, SECURE_NAME).or_else(|| find(headers, PLAIN_NAME)).is_some()
    }
}

/// Returns the Set-Cookie value for a cookie of the browser's session.
pub(in crate::admin) fn set_cookie(value: &str, is_tls: bool) -> String {
    let secure = if is_tls { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}", name(is_tls))
}

fn name(is_tls: bool) -> &'static str {
    if is_tls { SECURE_NAME } else { PLAIN_NAME }
}

fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn sender(method: &str, headers: &[(&str, &str)], is_tls: bool) -> Sender {
        let request = Request::builder().method(method).header("host", "127.0.0.1:9900");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        find_sender(&request.body(()).expect("a request").into_parts().0, is_tls)
    }

    #[test]
    fn origins_tell_our_pages_from_others() {
        let of = |origin| sender("POST", &[("origin", origin)], false);
        assert_eq!(of("http://127.0.0.1:9900"), Sender::OwnPage);
        assert_eq!(of("https://127.0.0.1:9900"), Sender::OwnPage, "a proxy ends TLS");
        let tls = |origin| sender("POST", &[("origin", origin)], true);
        assert_eq!(tls("https://127.0.0.1:9900"), Sender::OwnPage);
        assert_eq!(tls("http://127.0.0.1:9900"), Sender::OtherPage);
        for other in
            ["null", "", "http://127.0.0.1", "http://127.0.0.1:9901", "http://localhost:9900", "file://"]
        {
            assert_eq!(of(other), Sender::OtherPage, "{other}");
        }
        let twice = [("origin", "http://127.0.0.1:9900"), ("origin", "http://evil.example")];
        assert_eq!(sender("GET", &twice, false), Sender::OtherPage);
    }

    #[test]
    fn fetch_metadata_tell_links_from_what_pages_load() {
        let site = |site: &'static str| ("sec-fetch-site", site);
        let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let of = |method, of: &'static str, more: &[(&'static str, &'static str)]| {
            let mut headers = vec![site(of)];
            headers.extend(more);
            sender(method, &headers, false)
        };
        assert_eq!(of("GET", "same-origin", &[]), Sender::OwnPage);
        assert_eq!(of("GET", "none", &link), Sender::OwnPage);
        assert_eq!(of("GET", "cross-site", &link), Sender::Link);
        assert_eq!(of("POST", "cross-site", &link), Sender::OtherPage);
        for other in ["cross-site", "same-site", "something"] {
            assert_eq!(of("GET", other, &[("sec-fetch-mode", "no-cors")]), Sender::OtherPage, "{other}");
        }
        let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert_eq!(of("GET", "cross-site", &frame), Sender::OtherPage);
    }

    #[test]
    fn a_program_shows_nothing_of_a_browser() {
        assert_eq!(sender("POST", &[], false), Sender::Program);
        assert_eq!(sender("POST", &[("cookie", "other=1")], false), Sender::Program);
        assert_eq!(sender("POST", &[("cookie", "tenantd-admin=1")], false), Sender::OwnPage);
    }

    #[test]
    fn only_a_cookie_of_our_making_is_kept() {
        let of = |line: &str| {
            Cookie::of(&HeaderMap::from_iter([(header::COOKIE, line.parse().expect("ASCII"))]), false)
        };
        let value = random::token();
        let kept = of(&format!("a=b; tenantd-admin={value}"));
        assert_eq!((kept.value.as_str(), kept.is_new), (value.as_str(), false));
        assert!(of("tenantd-admin=chosen").is_new);
    }
}
