//! The authority of a request: whom it addresses, as `host[:port]` (RFC 9110 section 7.2, RFC 3986
//! section 3.2).

use std::borrow::Cow;

use http::{HeaderMap, header};

/// Returns the host of `host[:port]` in lower case, without the trailing dot of a fully qualified
/// name, and `None` if it cannot be a host. The port may be empty (RFC 3986 section 3.2.3).
pub fn host(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_port_valid =
        matches!(port, "" | ":") || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if !is_port_valid || !is_plausible(host) {
        return None;
    }
    let is_lower_case = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if is_lower_case { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

/// Returns the host of the Host header, if there is exactly one and its value is valid.
pub fn only_host(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(only), None) = (hosts.next(), hosts.next()) else { return None };
    host(only.to_str().ok()?)
}

fn is_plausible(host: &str) -> bool {
    let all = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| all(address, b":.")),
        None => all(host, b"-._"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_host_is_read() {
        let headers = |hosts: &[&str]| {
            let value = |host: &&str| (header::HOST, host.parse().expect("a header value"));
            hosts.iter().map(value).collect::<HeaderMap>()
        };
        assert_eq!(only_host(&headers(&["MCP.example.com:8443"])).as_deref(), Some("mcp.example.com"));
        assert_eq!(only_host(&headers(&[])), None);
        assert_eq!(only_host(&headers(&["localhost", "localhost"])), None);
        assert_eq!(only_host(&headers(&["user@localhost"])), None);
    }
}
