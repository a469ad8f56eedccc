//! The addresses that proxies wrote into a request: `X-Forwarded-For`, and `for` in `Forwarded`
//! (RFC 7239). Pure; who wrote them and whether they count is decided in `trusted_proxies`.
//!
//! Every proxy appends the address that it was called from, so the first entry from the right is
//! the one that our peer wrote, and those further left are as true as the proxies between.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An entry that is no address: malformed, `unknown` or an obfuscated identifier (RFC 7239 section
/// 6.3), which all say nothing of who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAddress;

/// What one entry says.
pub(crate) type Hop = Result<IpAddr, NoAddress>;

/// Whether the request has an `X-Forwarded-For` header.
pub(crate) fn has_x_forwarded_for(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR)
}

/// Whether the request has a `Forwarded` header.
pub(crate) fn has_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

/// Returns the entries of all `X-Forwarded-For` headers from right to left. Does not allocate, and
/// reads no more than is asked for: what is further left may be a caller's invention.
pub(crate) fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Hop> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    // A recipient ignores empty list elements (RFC 9110 section 5.6.1.2).
    entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()).map(parse_address)
}

/// Returns the `for` of each element of all `Forwarded` headers from right to left, or nothing if
/// any of them breaks the grammar: then it is unknown where an element ends.
pub(crate) fn forwarded(headers: &HeaderMap) -> Result<impl Iterator<Item = Hop>, NoAddress> {
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED) {
        ElementReader { rest: value.as_bytes() }.read_into(&mut hops)?;
    }
    Ok(hops.into_iter().rev())
}

/// Parses an address with or without a port: `192.0.2.1`, `192.0.2.1:4711` (Azure's Application
/// Gateway), `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn parse_address(entry: &[u8]) -> Hop {
    let text = std::str::from_utf8(entry).map_err(|_| NoAddress)?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| bracketed().map(IpAddr::V6))
        .or_else(|| text.parse::<SocketAddr>().ok().filter(has_no_zone).map(|address| address.ip()));
    address.map(|address| address.to_canonical()).ok_or(NoAddress)
}

fn has_no_zone(address: &SocketAddr) -> bool {
    !matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0)
}

/// Reads `Forwarded = 1#forwarded-element` (RFC 7239 section 4). White space around separators is
/// tolerated, since several proxies write it.
struct ElementReader<'a> {
    rest: &'a [u8],
}

struct Pair<'a> {
    name: &'a [u8],
    /// Without its quotes; `None` if it has an escape, which no address needs.
    value: Option<&'a [u8]>,
}

impl<'a> ElementReader<'a> {
    fn read_into(mut self, hops: &mut Vec<Hop>) -> Result<(), NoAddress> {
        loop {
            if let Some(hop) = self.read_element()? {
                hops.push(hop);
            }
            match self.take() {
                None => return Ok(()),
                Some(b',') => {}
                Some(_) => return Err(NoAddress),
            }
        }
    }

    /// Reads up to the next comma. An empty element is `None`.
    fn read_element(&mut self) -> Result<Option<Hop>, NoAddress> {
        let mut hop = None;
        let mut is_empty = true;
        loop {
            self.skip_space();
            if let Some(Pair { name, value }) = self.read_pair()? {
                is_empty = false;
                if name.eq_ignore_ascii_case(b"for") {
                    let address = value.map_or(Err(NoAddress), parse_address);
                    // Two addresses for one hop leave open which of them called.
                    if hop.replace(address).is_some() {
                        return Err(NoAddress);
                    }
                }
            }
            self.skip_space();
            match self.rest.first() {
                Some(b';') => _ = self.take(),
                _ => return Ok((!is_empty).then(|| hop.unwrap_or(Err(NoAddress)))),
            }
        }
    }

    /// Reads `token "=" value`; there may be none before a separator.
    fn read_pair(&mut self) -> Result<Option<Pair<'a>>, NoAddress> {
        let name = self.read_token();
        if name.is_empty() {
            return Ok(None);
        }
        if self.take() != Some(b'=') {
            return Err(NoAddress);
        }
        if self.rest.first() == Some(&b'"') {
            return self.read_quoted().map(|value| Some(Pair { name, value }));
        }
        match self.read_token() {
            b"" => Err(NoAddress),
            value => Ok(Some(Pair { name, value: Some(value) })),
        }
    }

    fn read_quoted(&mut self) -> Result<Option<&'a [u8]>, NoAddress> {
        let quoted = &self.rest[1..];
        let (mut at, mut is_escaped) = (0, false);
        loop {
            match quoted.get(at) {
                None => return Err(NoAddress),
                Some(b'"') => break,
                Some(b'\\') => (at, is_escaped) = (at + 2, true),
                Some(_) => at += 1,
            }
        }
        self.rest = &quoted[at + 1..];
        Ok((!is_escaped).then_some(&quoted[..at]))
    }

    /// Reads a token; a bare IPv4 address with a port is tolerated, though `:` wants quotes.
    fn read_token(&mut self) -> &'a [u8] {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(byte);
        let end = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let value = |text: &&str| HeaderValue::from_bytes(text.as_bytes()).expect("a value");
        values.iter().map(|text| (name.clone(), value(text))).collect()
    }

    fn shown(hops: impl Iterator<Item = Hop>) -> Vec<String> {
        hops.map(|hop| hop.map_or("-".to_owned(), |address| address.to_string())).collect()
    }

    fn read_forwarded(values: &[&str]) -> Option<Vec<String>> {
        forwarded(&headers(FORWARDED, values)).ok().map(shown)
    }

    #[test]
    fn entries_are_read_from_the_right_over_all_headers() {
        let read = |values: &[&str]| shown(x_forwarded_for(&headers(X_FORWARDED_FOR, values)));
        assert_eq!(
            read(&["a, 192.0.2.1", "10.0.0.1,[2001:db8::1]:80 ,"]),
            ["2001:db8::1", "10.0.0.1", "192.0.2.1", "-"]
        );
        assert_eq!(read(&["192.0.2.1:4711"]), ["192.0.2.1"]);
        assert_eq!(
            read(&["2001:db8::1, [2001:db8::2], ::ffff:192.0.2.1"]),
            ["192.0.2.1", "2001:db8::2", "2001:db8::1"]
        );
        for none in
            ["unknown", "_hidden", "192.0.2.1:x", "192.0.2", "fe80::1%1", "[fe80::1%1]:80", "\"1.2.3.4\""]
        {
            assert_eq!(read(&[none]), ["-"], "{none}");
        }
        assert!(read(&["", " , ,"]).is_empty());
    }

    #[test]
    fn an_element_of_forwarded_names_one_caller() {
        for (value, expected) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", vec!["192.0.2.60"]),
            ("For=\"[2001:db8:cafe::17]:4711\"", vec!["2001:db8:cafe::17"]),
            ("for=192.0.2.43, for=198.51.100.17", vec!["198.51.100.17", "192.0.2.43"]),
            ("proto=https ; for=192.0.2.43:80,", vec!["192.0.2.43"]),
            ("for=_gazonk, for=unknown, proto=http", vec!["-", "-", "-"]),
            ("host=\"a,for=10.0.0.1\";for=192.0.2.1", vec!["192.0.2.1"]),
            ("for=\"\\1.2.3.4\"", vec!["-"]),
            ("", vec![]),
        ] {
            assert_eq!(
                read_forwarded(&[value]),
                Some(expected.iter().map(|it| (*it).to_owned()).collect()),
                "{value}"
            );
        }
        assert_eq!(
            read_forwarded(&["for=192.0.2.1", "for=192.0.2.2"]),
            Some(vec!["192.0.2.2".into(), "192.0.2.1".into()])
        );
    }

    /// A caller must not swallow what a proxy appends to its header.
    #[test]
    fn a_header_that_breaks_the_grammar_says_nothing() {
        for value in [
            "for=\"x, for=10.0.0.1",
            "for=\"x\\",
            "for=1.2.3.4;for=10.0.0.1",
            "for=1.2.3.4 5.6.7.8",
            "for",
            "for=",
            "for=1.2.3.4=5",
            "=1.2.3.4",
            "for=[2001:db8::1]",
        ] {
            assert_eq!(read_forwarded(&[value]), None, "{value}");
        }
    }
}
