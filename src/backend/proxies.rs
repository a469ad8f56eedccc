//! The proxies between this machine and backends, taken from the environment: `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case, as for the login.
//!
//! Loopback is always reached directly, since no proxy leads to this machine.

use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::Host;

/// The proxies, read once.
#[derive(Debug, Default)]
pub(super) struct Proxies(Option<Matcher>);

impl Proxies {
    /// Reads the proxies from the environment.
    pub(super) fn from_env() -> Self {
        Self(Some(Matcher::from_env()))
    }

    #[cfg(test)]
    pub(super) fn for_all(proxy: &str) -> Self {
        Self(Some(Matcher::builder().all(proxy.to_owned()).build()))
    }

    /// Returns the proxy to use for a URL, if any.
    pub(super) fn proxy_for(&self, target: &Uri) -> Option<Intercept> {
        let proxy = self.0.as_ref()?.intercept(target)?;
        let is_supported = matches!(proxy.uri().scheme_str(), Some("http" | "https"));
        (is_supported && !is_loopback(target.host()?)).then_some(proxy)
    }

    /// Returns the credentials for the proxy, sent with each request that it forwards unencrypted.
    pub(super) fn authorization(&self, target: &Uri) -> Option<HeaderValue> {
        if target.scheme_str() != Some("http") {
            return None;
        }
        self.proxy_for(target)?.basic_auth().cloned()
    }
}

/// Parses a host as an IP address in any spelling, with or without the brackets of IPv6. Returns
/// `None` for a name.
pub(super) fn parse_ip_literal(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    match Host::parse(host).ok()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || parse_ip_literal(host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("a URI")
    }

    #[test]
    fn a_proxy_leads_everywhere_but_to_this_machine() {
        let proxies = Proxies::for_all("http://ann:secret@proxy.example:3128");
        for target in ["https://portal.example/x", "http://portal.example:8080/x", "https://10.0.0.1/x"] {
            let proxy = proxies.proxy_for(&uri(target)).expect("a proxy");
            assert_eq!(proxy.uri().authority().map(|it| it.as_str()), Some("proxy.example:3128"));
        }
        for target in [
            "http://localhost:1/x",
            "http://a.localhost./x",
            "http://127.0.0.1:1/x",
            "http://127.9.9.9/x",
            "http://2130706433/x",
            "http://[::1]/x",
            "http://[::ffff:127.0.0.1]/x",
        ] {
            assert!(proxies.proxy_for(&uri(target)).is_none(), "{target}");
        }
        assert!(Proxies::default().proxy_for(&uri("https://portal.example/x")).is_none());
    }

    #[test]
    fn the_proxys_password_goes_to_the_proxy_only() {
        let proxies = Proxies::for_all("http://ann:secret@proxy.example:3128");
        let sent = proxies.authorization(&uri("http://portal.example/x")).expect("a header");
        assert!(sent.is_sensitive() && sent.as_bytes().starts_with(b"Basic "));
        assert!(
            proxies.authorization(&uri("https://portal.example/x")).is_none(),
            "a tunnel's own is the backend's"
        );
        assert!(!format!("{proxies:?}").contains("secret"));
    }

    #[test]
    fn a_proxy_with_an_unsupported_scheme_is_ignored() {
        assert!(
            Proxies::for_all("socks5://proxy.example").proxy_for(&uri("https://portal.example/")).is_none()
        );
    }
}
