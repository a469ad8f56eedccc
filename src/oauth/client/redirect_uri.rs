//! Where a client may be sent back to (OAuth 2.1 section 2.3.1, RFC 8252 section 7).

use std::fmt;
use std::sync::Arc;

const LONGEST: usize = 2048;
/// Schemes that a browser runs, reads files with, or shows text by.
const REFUSED_SCHEMES: [&str; 12] = [
    "javascript",
    "data",
    "file",
    "vbscript",
    "blob",
    "about",
    "view-source",
    "filesystem",
    "ftp",
    "ws",
    "wss",
    "mailto",
];

/// A redirect URI in the spelling that the client gave: https, http on loopback, or a private-use scheme.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedirectUri {
    text: Arc<str>,
    kind: Kind,
    /// `text` without the port: what is compared where the port is free.
    portless: Option<Arc<str>>,
}

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Web,
    Loopback,
    /// A private-use scheme of an application (RFC 8252 section 7.1).
    Application,
}

/// Why a text is no redirect URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    #[error("it is longer than 2048 characters")]
    TooLong,
    #[error("it is no absolute URI, or has characters that belong percent-encoded")]
    Malformed,
    #[error("its scheme is one that browsers run or read files with")]
    Scheme,
    #[error("http is for loopback only (127.0.0.1, [::1], localhost)")]
    PlainHttp,
    #[error("it has a user name or password")]
    UserInfo,
    #[error("it has a fragment")]
    Fragment,
    #[error("its path has a dot segment")]
    DotSegment,
    #[error("it has a wildcard")]
    Wildcard,
}

impl RedirectUri {
    /// Reads a redirect URI. Afterwards nothing about it is dangerous to be sent to; whether it is the client's is
    /// another question.
    pub fn parse(text: &str) -> Result<Self, RedirectFault> {
        if text.len() > LONGEST {
            return Err(RedirectFault::TooLong);
        }
        if !text.bytes().all(is_uri_character) {
            return Err(if text.contains('*') { RedirectFault::Wildcard } else { RedirectFault::Malformed });
        }
        if text.contains('#') {
            return Err(RedirectFault::Fragment);
        }
        let (scheme, rest) = text.split_once(':').ok_or(RedirectFault::Malformed)?;
        let scheme = check_scheme(scheme)?;
        if has_dot_segment(rest) {
            return Err(RedirectFault::DotSegment);
        }
        match scheme.as_str() {
            "https" | "http" => Self::of_the_web(text, rest, &scheme),
            _ => Self::of_an_application(text, rest),
        }
    }

    fn of_the_web(text: &str, rest: &str, scheme: &str) -> Result<Self, RedirectFault> {
        let authority = authority(rest).ok_or(RedirectFault::Malformed)?;
        if authority.contains('@') {
            return Err(RedirectFault::UserInfo);
        }
        let parsed = url::Url::parse(text).map_err(|_| RedirectFault::Malformed)?;
        let host = without_port(authority);
        // What the parser reads must be what stands there: `http:\\evil`, `0x7f.1` and their like read differently.
        if !parsed.host_str().is_some_and(|read| read.eq_ignore_ascii_case(host)) {
            return Err(RedirectFault::Malformed);
        }
        if scheme == "https" {
            return Ok(Self { text: text.into(), kind: Kind::Web, portless: None });
        }
        if !is_loopback(host) {
            return Err(RedirectFault::PlainHttp);
        }
        let after = &rest[2 + authority.len()..];
        let path =
            if after.is_empty() || after.starts_with('?') { format!("/{after}") } else { after.to_owned() };
        let portless = format!("http://{host}{path}");
        Ok(Self { text: text.into(), kind: Kind::Loopback, portless: Some(portless.into()) })
    }

    fn of_an_application(text: &str, rest: &str) -> Result<Self, RedirectFault> {
        if authority(rest).is_some_and(|authority| authority.contains('@')) {
            return Err(RedirectFault::UserInfo);
        }
        match rest.trim_matches('/').is_empty() {
            true => Err(RedirectFault::Malformed),
            false => Ok(Self { text: text.into(), kind: Kind::Application, portless: None }),
        }
    }

    /// Whether `asked` may stand for this registered one: the same bytes; on loopback the port is free.
    pub fn admits(&self, asked: &Self) -> bool {
        self.text == asked.text || (self.portless.is_some() && self.portless == asked.portless)
    }

    /// The same for one that is still a text.
    pub fn admits_text(&self, asked: &str) -> bool {
        Self::parse(asked).is_ok_and(|asked| self.admits(&asked))
    }

    /// As the client spelled it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What people are shown: the host of a web address, `this computer` on loopback, or the application's scheme.
    pub fn place(&self) -> &str {
        match self.kind {
            Kind::Loopback => "this computer",
            Kind::Application => self.text.split(':').next().unwrap_or_default(),
            Kind::Web => {
                let rest = self.text.split_once("//").map_or("", |(_, rest)| rest);
                rest.split(['/', '?']).next().unwrap_or_default()
            }
        }
    }

    /// Whether whatever runs on the person's own computer may answer there.
    pub fn is_loopback(&self) -> bool {
        self.kind == Kind::Loopback
    }

    /// Whether it is an https address.
    pub fn is_web(&self) -> bool {
        self.kind == Kind::Web
    }
}

/// RFC 3986, without the fragment's own rules; `*` is legal there and never meant as itself here.
fn is_uri_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()+,;=%".contains(&byte)
}

fn check_scheme(scheme: &str) -> Result<String, RedirectFault> {
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    match is_scheme {
        false => Err(RedirectFault::Malformed),
        true if REFUSED_SCHEMES.contains(&&*scheme) => Err(RedirectFault::Scheme),
        true => Ok(scheme),
    }
}

/// `//authority` in front of a path or query.
fn authority(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("//")?;
    let authority = rest.split(['/', '?']).next()?;
    (!authority.is_empty()).then_some(authority)
}

fn without_port(authority: &str) -> &str {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    let end = authority[after_host..].find(':').map_or(authority.len(), |at| after_host + at);
    &authority[..end]
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "[::1]" | "localhost")
}

/// Encoded dots count as dots: some parties decode before they look.
fn has_dot_segment(rest: &str) -> bool {
    let path = rest.split('?').next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

impl fmt::Debug for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedirectUri({})", self.text)
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedirectUri {
        RedirectUri::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn what_real_clients_register_is_accepted() {
        for (text, place) in [
            ("https://claude.ai/api/mcp/auth_callback", "claude.ai"),
            ("https://chatgpt.com/connector_platform_oauth_redirect", "chatgpt.com"),
            ("http://localhost:8787/callback", "this computer"),
            ("http://127.0.0.1/", "this computer"),
            ("http://127.0.0.1", "this computer"),
            ("http://[::1]:3000/callback?x=1", "this computer"),
            ("cursor://anysphere.cursor-mcp/oauth/callback", "cursor"),
            ("com.example.app:/callback", "com.example.app"),
            ("https://global.consent.azure-apim.net/redirect/acme-5f1", "global.consent.azure-apim.net"),
            ("https://app.example:8443/cb", "app.example:8443"),
        ] {
            assert_eq!(parse(text).place(), place, "{text}");
        }
    }

    #[test]
    fn what_is_dangerous_is_refused() {
        for (text, fault) in [
            ("javascript:alert(1)", RedirectFault::Scheme),
            ("JavaScript:alert(1)", RedirectFault::Scheme),
            ("data:text/html,x", RedirectFault::Scheme),
            ("file:///etc/passwd", RedirectFault::Scheme),
            ("vbscript:x", RedirectFault::Scheme),
            ("blob:https://a/b", RedirectFault::Scheme),
            ("about:blank", RedirectFault::Scheme),
            ("http://example.com/cb", RedirectFault::PlainHttp),
            ("http://127.0.0.2/cb", RedirectFault::PlainHttp),
            ("http://localhost.evil.example/cb", RedirectFault::PlainHttp),
            ("http://127.0.0.1.evil.example/cb", RedirectFault::PlainHttp),
            ("http://localhost@evil.example/cb", RedirectFault::UserInfo),
            ("https://claude.ai@evil.example/cb", RedirectFault::UserInfo),
            ("https://a.example/cb#x", RedirectFault::Fragment),
            ("https://a.example/x/../cb", RedirectFault::DotSegment),
            ("https://a.example/x/%2e%2E/cb", RedirectFault::DotSegment),
            ("https://*.example/cb", RedirectFault::Wildcard),
            ("https://a.example\\@evil.example/cb", RedirectFault::Malformed),
            ("https:a.example/cb", RedirectFault::Malformed),
            ("http://0x7f.1/cb", RedirectFault::Malformed),
            ("https:///cb", RedirectFault::Malformed),
            ("//a.example/cb", RedirectFault::Malformed),
            ("https://a.example/c b", RedirectFault::Malformed),
            ("https://ä.example/cb", RedirectFault::Malformed),
            ("cursor:", RedirectFault::Malformed),
            ("cursor://", RedirectFault::Malformed),
            ("", RedirectFault::Malformed),
        ] {
            assert_eq!(RedirectUri::parse(text), Err(fault), "{text}");
        }
        assert_eq!(
            RedirectUri::parse(&format!("https://a/{}", "x".repeat(2048))),
            Err(RedirectFault::TooLong)
        );
    }

    #[test]
    fn only_the_port_of_loopback_is_free() {
        for (registered, asked, same) in [
            ("https://a.example/cb", "https://a.example/cb", true),
            ("https://a.example/cb", "https://a.example:8443/cb", false),
            ("https://a.example/cb", "https://a.example/cb/", false),
            ("https://a.example/cb", "https://A.example/cb", false),
            ("https://a.example/cb", "https://a.example/cb?x=1", false),
            ("http://localhost/callback", "http://localhost:61234/callback", true),
            ("http://localhost:1/callback", "http://localhost:2/callback", true),
            ("http://localhost/callback", "http://127.0.0.1:2/callback", false),
            ("http://127.0.0.1/callback", "http://[::1]:2/callback", false),
            ("http://127.0.0.1/callback", "http://127.0.0.1:2/other", false),
            ("http://127.0.0.1/callback", "http://127.0.0.1:2/callback?x=1", false),
            ("http://127.0.0.1/", "http://127.0.0.1:33418", true),
            ("cursor://a/cb", "cursor://a/cb", true),
            ("cursor://a/cb", "cursor://a:1/cb", false),
        ] {
            assert_eq!(parse(registered).admits(&parse(asked)), same, "{registered} {asked}");
        }
    }
}
