//! Where a tenant answers: prefixes, host names and the public URL (design: prefix rules).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A path prefix in its only spelling: empty for the root, else up to eight times `/segment`, at
/// most 200 bytes. Segments match `[A-Za-z0-9._~-]+` and are neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(Arc<str>);

/// Why a text is not a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("it must begin with \"/\"")]
    NoLeadingSlash,
    #[error("it has an empty segment (\"//\" or a slash at its end)")]
    EmptySegment,
    #[error("it has a dot segment (\".\" or \"..\")")]
    DotSegment,
    #[error("{0:?} is not allowed; segments consist of letters, digits, \".\", \"_\", \"~\" and \"-\"")]
    Character(char),
    #[error("it has more than 8 segments")]
    TooDeep,
    #[error("it is longer than 200 bytes")]
    TooLong,
    #[error("\"/.well-known\" and \"/-\" belong to the gateway")]
    Reserved,
}

impl Prefix {
    /// Returns the root: the tenant's paths are directly below the host.
    pub fn root() -> Self {
        Self("".into())
    }

    /// Parses a prefix; `/` is the root. A trailing slash is refused: callers that tolerate it
    /// remove it first and say so.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        if text == "/" {
            return Ok(Self::root());
        }
        let Some(rest) = text.strip_prefix('/') else { return Err(PrefixError::NoLeadingSlash) };
        if text.len() > 200 {
            return Err(PrefixError::TooLong);
        }
        if rest.split('/').count() > 8 {
            return Err(PrefixError::TooDeep);
        }
        rest.split('/').try_for_each(check_segment)?;
        if matches!(rest.split('/').next(), Some(".well-known" | "-")) {
            return Err(PrefixError::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text to put before `/mcp`: empty for the root, else `/a/b`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the segments; the root has none.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }
}

fn check_segment(segment: &str) -> Result<(), PrefixError> {
    match segment {
        "" => Err(PrefixError::EmptySegment),
        "." | ".." => Err(PrefixError::DotSegment),
        _ => match segment.chars().find(|&c| !(c.is_ascii_alphanumeric() || "._~-".contains(c))) {
            Some(c) => Err(PrefixError::Character(c)),
            None => Ok(()),
        },
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { &self.0 })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

/// A DNS name or IP address in the form of a URL's host: lower case, without port, IPv6 in
/// brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Parses a host name or address; `None` if it could not be the host of a URL. The dot at the
    /// end of a fully qualified name (RFC 1034 section 3.1) is dropped: it names the same host.
    pub fn parse(text: &str) -> Option<Self> {
        let host = url::Host::parse(text.strip_suffix('.').unwrap_or(text)).ok()?;
        let text = host.to_string();
        let plausible = match &host {
            url::Host::Domain(name) => {
                name.len() <= 253
                    && name.split('.').all(|label| {
                        let inner =
                            label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                        inner && !label.is_empty() && label.len() <= 63
                    })
            }
            url::Host::Ipv4(_) | url::Host::Ipv6(_) => true,
        };
        plausible.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name without the brackets of IPv6, as certificates and resolvers have it.
    pub fn without_brackets(&self) -> &str {
        self.0.trim_matches(['[', ']'])
    }

    /// Returns the IP address, if it is one.
    pub fn ip_address(&self) -> Option<IpAddr> {
        self.without_brackets().parse().ok()
    }
}

/// Allows lookups by the host of a request.
impl std::borrow::Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One place at which a tenant answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mount {
    /// A listener of the tenant's own; `None` stands for those of the gateway.
    pub listener: Option<SocketAddr>,
    /// A host of the tenant's own; `None` stands for every host of the gateway.
    pub host: Option<HostName>,
    /// The prefix on that host.
    pub prefix: Prefix,
}

/// The public base URL of a tenant: scheme, host, port unless it is the scheme's default, and
/// prefix, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicUrl {
    text: Arc<str>,
    origin_len: usize,
    /// The operator gave the tenant no public URL: the origin is the gateway's.
    is_assumed: bool,
}

impl PublicUrl {
    /// Joins an origin (`https://host:8443`, without trailing slash) and a prefix.
    pub fn new(origin: &str, prefix: &Prefix) -> Self {
        let text = format!("{origin}{}", prefix.as_str()).into();
        Self { text, origin_len: origin.len(), is_assumed: false }
    }

    /// Marks it as the URL of a tenant for which the operator gave none.
    #[must_use]
    pub fn assumed(self) -> Self {
        Self { is_assumed: true, ..self }
    }

    /// Returns whether the operator gave the tenant no public URL.
    pub fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    /// Returns the same prefix at another origin.
    #[must_use]
    pub fn at_origin(&self, origin: &str) -> Self {
        let text = format!("{origin}{}", &self.text[self.origin_len..]).into();
        Self { text, origin_len: origin.len(), ..*self }
    }

    /// Returns the URL, e.g. `https://mcp.example.com/acme`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the origin, e.g. `https://mcp.example.com`.
    pub fn origin(&self) -> &str {
        &self.text[..self.origin_len]
    }

    /// Returns the URL that people paste into a client, e.g. `https://mcp.example.com/acme/mcp`.
    pub fn connector_url(&self) -> String {
        format!("{}/mcp", self.text)
    }

    /// Returns the redirect URI to which Microsoft sends people back, which must be registered with
    /// the app.
    pub fn callback_url(&self) -> String {
        self.join_path("/auth/ms-callback")
    }

    /// Returns the URL of the page where people see and end what they have connected.
    pub fn account_url(&self) -> String {
        self.join_path("/auth/account")
    }

    /// Returns a URL below it, e.g. `https://mcp.example.com/acme/token`. `path` begins with a
    /// slash.
    pub fn join_path(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Returns the URL of the gateway's own icon below the prefix.
    pub fn icon_url(&self) -> String {
        self.join_path("/favicon.ico")
    }

    /// Returns the identifier of the tenant as a protected resource, in this spelling.
    pub fn resource_url(&self, spelling: ResourceSpelling) -> String {
        self.join_path(spelling.suffix())
    }

    /// Returns the URL of that resource's metadata for `WWW-Authenticate` (RFC 9728 section 5.1).
    /// It is below the prefix, so that a proxy that forwards the prefix forwards it too. RFC 9728
    /// section 3.1 places it in front of the path; that URL is answered as well, but many proxies
    /// do not forward it.
    pub fn resource_metadata_url(&self, spelling: ResourceSpelling) -> String {
        self.join_path(match spelling {
            ResourceSpelling::Connector => "/.well-known/oauth-protected-resource",
            ResourceSpelling::ConnectorSlash => "/.well-known/oauth-protected-resource/mcp/",
            ResourceSpelling::Base => "/.well-known/oauth-protected-resource/",
        })
    }

    /// Returns which spelling of this tenant a `resource` parameter (RFC 8707) is, or `None` for
    /// another resource. The case of scheme and host, the scheme's default port and the root's
    /// slash make no difference (RFC 3986 section 6.2), nor does a query, since ChatGPT may add
    /// one. Clients derive all of these from the URL that people typed.
    pub fn match_resource(&self, text: &str) -> Option<ResourceSpelling> {
        let text = text.split_once('?').map_or(text, |(text, _)| text);
        let authority = text.find("://")? + 3;
        let (origin, path) =
            text.split_at(text[authority..].find('/').map_or(text.len(), |at| authority + at));
        if !is_same_origin(origin, self.origin()) {
            return None;
        }
        match path.strip_prefix(&self.text[self.origin_len..])? {
            "/" => Some(ResourceSpelling::Base),
            rest => ResourceSpelling::ALL.into_iter().find(|spelling| spelling.suffix() == rest),
        }
    }
}

/// Returns whether `text`, a scheme and an authority, is another spelling of this origin.
fn is_same_origin(text: &str, origin: &str) -> bool {
    // `url` tolerates user info, escapes and white space, which no origin has.
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_[]".contains(c);
    text == origin
        || text.chars().all(plain)
            && url::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == origin)
}

/// The spellings of a tenant as a protected resource that clients use. Metadata echoes the spelling
/// requested, because some clients compare it with the URL as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceSpelling {
    /// `{public_url}/mcp`: the audience of all tokens.
    Connector,
    /// `{public_url}/mcp/`, from people who typed the slash.
    ConnectorSlash,
    /// `{public_url}`.
    Base,
}

impl ResourceSpelling {
    const ALL: [Self; 3] = [Self::Connector, Self::ConnectorSlash, Self::Base];

    fn suffix(self) -> &'static str {
        match self {
            Self::Connector => "/mcp",
            Self::ConnectorSlash => "/mcp/",
            Self::Base => "",
        }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_one_spelling() {
        for good in ["/", "/a", "/tenant-a", "/a/b.c/~d_", "/a..b", "/...", "/A"] {
            assert!(Prefix::parse(good).is_ok(), "{good}");
        }
        let refused = [
            ("", PrefixError::NoLeadingSlash),
            ("a", PrefixError::NoLeadingSlash),
            ("/a/", PrefixError::EmptySegment),
            ("//a", PrefixError::EmptySegment),
            ("/a/../b", PrefixError::DotSegment),
            ("/a/%2e", PrefixError::Character('%')),
            ("/ä", PrefixError::Character('ä')),
            ("/a;b", PrefixError::Character(';')),
            ("/.well-known/x", PrefixError::Reserved),
            ("/-/healthz", PrefixError::Reserved),
            ("/1/2/3/4/5/6/7/8/9", PrefixError::TooDeep),
        ];
        for (bad, why) in refused {
            assert_eq!(Prefix::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn hosts_are_lower_case_and_plausible() {
        let host = |text| HostName::parse(text).map(|host| host.to_string());
        assert_eq!(host("MCP.Example.com").as_deref(), Some("mcp.example.com"));
        assert_eq!(host("127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(host("[::1]").as_deref(), Some("[::1]"));
        assert_eq!(host("a b"), None);
        assert_eq!(host("a..b"), None);
        assert_eq!(host("mcp.example.com.").as_deref(), Some("mcp.example.com"));
        assert_eq!(host("127.0.0.1.").as_deref(), Some("127.0.0.1"));
        for bad in [".", "a..", ""] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_public_url_is_origin_and_prefix() {
        let url = PublicUrl::new("https://h:8443", &Prefix::parse("/a").expect("a prefix"));
        assert_eq!((url.as_str(), url.origin()), ("https://h:8443/a", "https://h:8443"));
        assert_eq!(PublicUrl::new("https://h", &Prefix::root()).connector_url(), "https://h/mcp");
    }

    #[test]
    fn a_resource_has_three_spellings_and_no_more() {
        let url = PublicUrl::new("https://h", &Prefix::parse("/a").expect("a prefix"));
        for (text, named) in [
            ("https://h/a/mcp", Some(ResourceSpelling::Connector)),
            ("https://h/a/mcp?x=1", Some(ResourceSpelling::Connector)),
            ("https://h/a/mcp/", Some(ResourceSpelling::ConnectorSlash)),
            ("https://h/a", Some(ResourceSpelling::Base)),
            ("https://h/a/", Some(ResourceSpelling::Base)),
            ("https://H/a/mcp", Some(ResourceSpelling::Connector)),
            ("HTTPS://h:443/a/mcp", Some(ResourceSpelling::Connector)),
            ("https://h/b/mcp", None),
            ("https://h/a/mcp/x", None),
            ("https://h/A/mcp", None),
            ("https://h/a//mcp", None),
            ("https://h.evil/a/mcp", None),
            ("https://h:444/a/mcp", None),
            ("http://h/a/mcp", None),
            ("https://u@h/a/mcp", None),
            ("https://h\\/a/mcp", None),
            ("https://h#/a/mcp", None),
            ("https://%68/a/mcp", None),
            ("https:///h/a/mcp", None),
            ("h/a/mcp", None),
            ("", None),
        ] {
            assert_eq!(url.match_resource(text), named, "{text}");
        }
    }

    #[test]
    fn the_root_and_other_ports_have_equivalent_spellings() {
        let root = PublicUrl::new("https://h:8443", &Prefix::root());
        for (text, named) in [
            ("https://h:8443", Some(ResourceSpelling::Base)),
            ("https://H:8443/", Some(ResourceSpelling::Base)),
            ("https://h:8443/mcp", Some(ResourceSpelling::Connector)),
            ("https://h/", None),
            ("https://h:8443//", None),
        ] {
            assert_eq!(root.match_resource(text), named, "{text}");
        }
        let address = PublicUrl::new("http://[::1]:8080", &Prefix::root());
        assert_eq!(address.match_resource("http://[0:0::1]:8080/mcp"), Some(ResourceSpelling::Connector));
    }

    #[test]
    fn metadata_are_below_the_prefix() {
        let url = PublicUrl::new("https://h", &Prefix::parse("/a").expect("a prefix"));
        let metadata = "https://h/a/.well-known/oauth-protected-resource";
        assert_eq!(url.resource_metadata_url(ResourceSpelling::Connector), metadata);
        assert_eq!(url.resource_metadata_url(ResourceSpelling::ConnectorSlash), format!("{metadata}/mcp/"));
        assert_eq!(url.resource_metadata_url(ResourceSpelling::Base), format!("{metadata}/"));
        let root = PublicUrl::new("https://h", &Prefix::root());
        assert_eq!(
            root.resource_metadata_url(ResourceSpelling::Connector),
            "https://h/.well-known/oauth-protected-resource"
        );
    }
}
