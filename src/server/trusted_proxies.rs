//! Who called, where proxies stand between: the address that a request comes from.
//!
//! Forwarded headers count only if the peer of the connection is in `trusted_proxies`; from anybody
//! else they are a claim, and are not read. What a trusted proxy says in two ways must agree.
//! In doubt the caller is *unknown*: it gets the proxy's share of every limit, and is on no network
//! that somebody may be allowed from. `X-Forwarded-Proto` and `X-Forwarded-Host` mean nothing here,
//! because the public URLs are configured.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use http::HeaderMap;
use ipnet::IpNet;

use super::forwarded::{self, Hop, NoAddress};
use crate::base::log_limiter::LogLimiter;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;

/// How often the log says that a proxy did not name its callers.
const LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// The proxies whose word on their callers counts.
#[derive(Debug)]
pub(super) struct TrustedProxies {
    networks: Vec<IpNet>,
    /// How many proxies are in front, if the caller is found by counting.
    hops: Option<NonZeroU8>,
    log_limiter: LogLimiter,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerAddress {
    /// From this address.
    Known(IpAddr),
    /// From anywhere behind this proxy.
    Behind(IpAddr),
}

/// Why a trusted proxy's request does not tell its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    NotForwarded,
    Malformed,
    Contradictory,
    TooFewHops,
}

impl TrustedProxies {
    pub(super) fn new(settings: &Settings) -> Self {
        let networks = settings.trusted_proxies.clone();
        Self { networks, hops: settings.trusted_proxy_hops, log_limiter: LogLimiter::new(LOG_INTERVAL) }
    }

    /// Whether these settings trust the same proxies.
    pub(super) fn is_same_as(&self, settings: &Settings) -> bool {
        self.networks == settings.trusted_proxies && self.hops == settings.trusted_proxy_hops
    }

    /// Whether this is the address of a trusted proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Returns the caller of a request that came from a trusted proxy.
    pub(super) fn find_caller(
        &self,
        proxy: IpAddr,
        headers: &HeaderMap,
        metrics: &Metrics,
        now: Instant,
    ) -> CallerAddress {
        match self.read(headers) {
            Ok(address) => CallerAddress::Known(address),
            Err(reason) => {
                self.record(reason, proxy, metrics, now);
                CallerAddress::Behind(proxy)
            }
        }
    }

    fn record(&self, reason: Unknown, proxy: IpAddr, metrics: &Metrics, now: Instant) {
        metrics.record_unknown_caller(reason.label());
        let Some(suppressed) = self.log_limiter.check(now) else { return };
        tracing::warn!(
            %proxy,
            reason = reason.label(),
            suppressed,
            "a trusted proxy does not say who calls, so open tenants and tenants with allow_from do not answer: \
             have it set X-Forwarded-For (docs/behind-a-proxy.md)"
        );
    }

    /// Reads the caller from the headers. If both are there, both must say the same.
    fn read(&self, headers: &HeaderMap) -> Result<IpAddr, Unknown> {
        let common =
            forwarded::has_x_forwarded_for(headers).then(|| self.choose(forwarded::x_forwarded_for(headers)));
        let standard = forwarded::has_forwarded(headers).then(|| match forwarded::forwarded(headers) {
            Ok(hops) => self.choose(hops),
            Err(NoAddress) => Err(Unknown::Malformed),
        });
        match (common, standard) {
            (None, None) => Err(Unknown::NotForwarded),
            (Some(only), None) | (None, Some(only)) => only,
            (Some(one), Some(other)) if one == other => one,
            (Some(_), Some(_)) => Err(Unknown::Contradictory),
        }
    }

    /// Chooses among entries from right to left: with a number of hops that entry, else the first
    /// that is no proxy of ours. If all are, the leftmost one called.
    fn choose(&self, mut hops: impl Iterator<Item = Hop>) -> Result<IpAddr, Unknown> {
        let malformed = |NoAddress| Unknown::Malformed;
        if let Some(count) = self.hops {
            return hops.nth(usize::from(count.get()) - 1).ok_or(Unknown::TooFewHops)?.map_err(malformed);
        }
        let mut caller = None;
        for hop in hops {
            let address = hop.map_err(malformed)?;
            if !self.contains(address) {
                return Ok(address);
            }
            caller = Some(address);
        }
        caller.ok_or(Unknown::NotForwarded)
    }
}

impl CallerAddress {
    /// Returns the address to which limits apply.
    pub(super) fn ip(self) -> IpAddr {
        let (Self::Known(ip) | Self::Behind(ip)) = self;
        ip
    }

    /// Returns the address that decides whether the caller may call, unless it is in doubt.
    pub(super) fn known(self) -> Option<IpAddr> {
        match self {
            Self::Known(ip) => Some(ip),
            Self::Behind(_) => None,
        }
    }
}

impl fmt::Display for CallerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl Unknown {
    fn label(self) -> &'static str {
        match self {
            Self::NotForwarded => "not_forwarded",
            Self::Malformed => "malformed",
            Self::Contradictory => "contradictory",
            Self::TooFewHops => "too_few_hops",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::base::clock::{Clock, SystemClock};

    const PROXY: &str = "10.0.0.1";

    fn proxies(hops: Option<u8>) -> TrustedProxies {
        let networks = ["10.0.0.0/29", "2001:db8:1::/64"].map(|net| net.parse().expect("a network"));
        TrustedProxies::new(&Settings {
            trusted_proxies: networks.into(),
            trusted_proxy_hops: hops.and_then(NonZeroU8::new),
            ..Settings::default()
        })
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        lines.iter().map(|(n, v)| (name(n), value(v))).collect()
    }

    fn found(proxies: &TrustedProxies, lines: &[(&str, &str)]) -> CallerAddress {
        let proxy = PROXY.parse().expect("an address");
        proxies.find_caller(proxy, &headers(lines), &Metrics::new(), SystemClock.monotonic())
    }

    fn known(address: &str) -> CallerAddress {
        CallerAddress::Known(address.parse().expect("an address"))
    }

    fn behind(address: &str) -> CallerAddress {
        CallerAddress::Behind(address.parse().expect("an address"))
    }

    #[test]
    fn only_listed_addresses_are_proxies() {
        let is_proxy = |address: &str| proxies(None).contains(address.parse().expect("an address"));
        assert!(["10.0.0.0", "10.0.0.7", "2001:db8:1::1"].into_iter().all(is_proxy));
        assert!(!["10.0.0.8", "192.0.2.9", "2001:db8:2::1"].into_iter().any(is_proxy));
    }

    #[test]
    fn the_caller_is_the_first_from_the_right_that_is_no_proxy() {
        for (line, caller) in [
            ("192.0.2.9", known("192.0.2.9")),
            ("192.0.2.9:4711", known("192.0.2.9")),
            ("203.0.113.1, 192.0.2.9, 10.0.0.2", known("192.0.2.9")),
            ("garbage, 192.0.2.9, 2001:db8:1::7", known("192.0.2.9")),
            ("10.0.0.3, 10.0.0.2", known("10.0.0.3")),
            ("192.0.2.9, garbage", behind(PROXY)),
            ("unknown", behind(PROXY)),
            ("", behind(PROXY)),
        ] {
            assert_eq!(found(&proxies(None), &[("x-forwarded-for", line)]), caller, "{line}");
        }
        assert_eq!(found(&proxies(None), &[]), behind(PROXY));
        assert_eq!(found(&proxies(None), &[("forwarded", "for=192.0.2.9")]), known("192.0.2.9"));
    }

    #[test]
    fn hops_are_counted_from_the_right() {
        for (hops, caller) in
            [(1, known("10.0.0.2")), (2, known("192.0.2.9")), (3, known("203.0.113.1")), (4, behind(PROXY))]
        {
            let line = [("x-forwarded-for", "203.0.113.1, 192.0.2.9"), ("x-forwarded-for", "10.0.0.2")];
            assert_eq!(found(&proxies(Some(hops)), &line), caller, "{hops}");
            let line = [("forwarded", "for=203.0.113.1, for=192.0.2.9, for=10.0.0.2")];
            assert_eq!(found(&proxies(Some(hops)), &line), caller, "{hops}");
        }
    }

    #[test]
    fn two_headers_that_disagree_name_nobody() {
        for (common, standard, caller) in [
            ("192.0.2.9", "for=192.0.2.9", known("192.0.2.9")),
            ("203.0.113.1, 192.0.2.9", "for=192.0.2.9;proto=https", known("192.0.2.9")),
            ("192.0.2.9", "for=10.9.9.9", behind(PROXY)),
            ("192.0.2.9", "for=unknown", behind(PROXY)),
            ("192.0.2.9", "for=\"192.0.2.9", behind(PROXY)),
            ("nobody", "for=192.0.2.9", behind(PROXY)),
        ] {
            let lines = [("x-forwarded-for", common), ("forwarded", standard)];
            assert_eq!(found(&proxies(None), &lines), caller, "{common} and {standard}");
        }
    }

    #[test]
    fn an_unknown_caller_counts_as_its_proxy_and_is_on_no_network() {
        let caller = behind(PROXY);
        assert_eq!((caller.ip().to_string().as_str(), caller.known()), (PROXY, None));
    }
}
