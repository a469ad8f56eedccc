//! Redirect URIs of clients (OAuth 2.1 section 2.3.1, RFC 8252 section 7).
//!
//! A scheme other than https opens a program on the person's device, and most programs are not safe
//! to be opened by strangers. So clients that introduced themselves may use only the schemes of
//! known applications, or a reversed domain name, as RFC 8252 section 7.1 requires. Operators may
//! enter others.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

const MAX_BYTES: usize = 2048;
/// The schemes of applications that log in at MCP servers. Other applications register a loopback
/// address, or the operator enters them.
const KNOWN_APP_SCHEMES: [&str; 20] = [
    "antigravity",
    "chatgpt",
    "claude",
    "codex",
    "cursor",
    "goose",
    "jetbrains",
    "kiro",
    "lmstudio",
    "opencode",
    "positron",
    "raycast",
    "trae",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "warp",
    "windsurf",
    "windsurf-next",
    "zed",
];
/// The first labels of schemes that contain a dot without being a domain name: they open parts of
/// the system.
const SYSTEM_SCHEME_PREFIXES: [&str; 2] = ["microsoft", "windows"];
/// Schemes with which browsers run code, read files or show given text. They are always refused.
const REFUSED_SCHEMES: [&str; 24] = [
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
    "chrome",
    "chrome-extension",
    "feed",
    "intent",
    "jar",
    "ms-msdt",
    "ms-officecmd",
    "res",
    "search-ms",
    "shell",
    "smb",
    "x-javascript",
];

/// A redirect URI as the client spelled it: https, http on loopback, or a private-use scheme.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedirectUri {
    text: Arc<str>,
    kind: RedirectUriKind,
    /// The `text` without the port, which is compared where the port is free.
    portless: Option<Arc<str>>,
}

/// The kind of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RedirectUriKind {
    Web,
    Loopback,
    /// An application with a private-use scheme (RFC 8252 section 7.1).
    PrivateUse,
}

/// Why a text is not an accepted redirect URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectUriError {
    #[error("it is longer than 2048 characters")]
    TooLong,
    #[error("it is not an absolute URI, or has characters that must be percent-encoded")]
    Malformed,
    #[error("its scheme runs code or reads files in browsers, or opens parts of the system")]
    DangerousScheme,
    #[error(
        "its scheme belongs to no known application and is not a reversed domain name such as \
         com.example.app; use https or a loopback address, or ask this server's operator to add the client"
    )]
    UnknownScheme,
    #[error("http is allowed for loopback only (127.0.0.1, [::1], localhost)")]
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
    /// Parses a redirect URI of a client that introduced itself. The result is safe to redirect to;
    /// whether it belongs to the client is checked elsewhere.
    ///
    /// # Errors
    /// Returns what is wrong with it, in words for the client's developer.
    pub fn parse(text: &str) -> Result<Self, RedirectUriError> {
        let uri = Self::parse_trusted(text)?;
        match uri.private_use_scheme() {
            Some(scheme) if !is_allowed_app_scheme(scheme) => Err(RedirectUriError::UnknownScheme),
            _ => Ok(uri),
        }
    }

    /// Parses a redirect URI that the operator enters: any scheme that is not dangerous, as the
    /// operator knows the application.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse_trusted(text: &str) -> Result<Self, RedirectUriError> {
        if text.len() > MAX_BYTES {
            return Err(RedirectUriError::TooLong);
        }
        if !text.bytes().all(is_uri_character) {
            return Err(if text.contains('*') {
                RedirectUriError::Wildcard
            } else {
                RedirectUriError::Malformed
            });
        }
        if text.contains('#') {
            return Err(RedirectUriError::Fragment);
        }
        let (scheme, rest) = text.split_once(':').ok_or(RedirectUriError::Malformed)?;
        let scheme = check_scheme(scheme)?;
        if has_dot_segment(rest) {
            return Err(RedirectUriError::DotSegment);
        }
        match scheme.as_str() {
            "https" | "http" => Self::parse_http(text, rest, &scheme),
            _ => Self::parse_private_use(text, rest),
        }
    }

    fn parse_http(text: &str, rest: &str, scheme: &str) -> Result<Self, RedirectUriError> {
        let authority = parse_authority(rest).ok_or(RedirectUriError::Malformed)?;
        if authority.contains('@') {
            return Err(RedirectUriError::UserInfo);
        }
        let parsed = url::Url::parse(text).map_err(|_| RedirectUriError::Malformed)?;
        let host = strip_port(authority);
        // The parsed host must be the one in the text: `http:\\evil`, `0x7f.1` and the like are
        // parsed as another.
        if !parsed.host_str().is_some_and(|read| read.eq_ignore_ascii_case(host)) {
            return Err(RedirectUriError::Malformed);
        }
        if scheme == "https" {
            return Ok(Self { text: text.into(), kind: RedirectUriKind::Web, portless: None });
        }
        if !is_loopback(host) {
            return Err(RedirectUriError::PlainHttp);
        }
        let after = &rest[2 + authority.len()..];
        let path =
            if after.is_empty() || after.starts_with('?') { format!("/{after}") } else { after.to_owned() };
        let portless = format!("http://{host}{path}");
        Ok(Self { text: text.into(), kind: RedirectUriKind::Loopback, portless: Some(portless.into()) })
    }

    fn parse_private_use(text: &str, rest: &str) -> Result<Self, RedirectUriError> {
        if parse_authority(rest).is_some_and(|authority| authority.contains('@')) {
            return Err(RedirectUriError::UserInfo);
        }
        match rest.trim_matches('/').is_empty() {
            true => Err(RedirectUriError::Malformed),
            false => Ok(Self { text: text.into(), kind: RedirectUriKind::PrivateUse, portless: None }),
        }
    }

    /// Whether a request may use `asked` where this URI is registered: the same bytes, except for
    /// the port on loopback.
    pub fn matches(&self, asked: &Self) -> bool {
        self.text == asked.text || (self.portless.is_some() && self.portless == asked.portless)
    }

    /// Whether `matches` holds for a text that is not parsed yet.
    pub fn matches_text(&self, asked: &str) -> bool {
        Self::parse_trusted(asked).is_ok_and(|asked| self.matches(&asked))
    }

    /// Returns the client's spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the destination in words for people: the host of an https URI, `this computer` for
    /// loopback, or the links that an application handles, since a scheme can look like a host.
    pub fn describe_destination(&self) -> Cow<'_, str> {
        match (self.kind, self.private_use_scheme()) {
            (RedirectUriKind::Loopback, _) => "this computer".into(),
            (_, Some(scheme)) => format!("an application on this device that handles {scheme}: links").into(),
            (_, None) => {
                let rest = self.text.split_once("//").map_or("", |(_, rest)| rest);
                rest.split(['/', '?']).next().unwrap_or_default().into()
            }
        }
    }

    /// Returns the scheme of an application on the person's device; `None` for other kinds.
    pub fn private_use_scheme(&self) -> Option<&str> {
        let scheme = || self.text.split(':').next().unwrap_or_default();
        (self.kind == RedirectUriKind::PrivateUse).then(scheme)
    }

    /// Whether a program on the person's own computer answers there.
    pub fn is_loopback(&self) -> bool {
        self.kind == RedirectUriKind::Loopback
    }

    /// Whether it is an https URI.
    pub fn is_web(&self) -> bool {
        self.kind == RedirectUriKind::Web
    }
}

/// Whether the byte may occur in a URI (RFC 3986). `*` is legal there, but means a wildcard when
/// clients send it.
fn is_uri_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()+,;=%".contains(&byte)
}

fn check_scheme(scheme: &str) -> Result<String, RedirectUriError> {
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    match is_scheme {
        false => Err(RedirectUriError::Malformed),
        true if REFUSED_SCHEMES.contains(&&*scheme) => Err(RedirectUriError::DangerousScheme),
        true => Ok(scheme),
    }
}

/// Whether the scheme belongs to an application that a person may plausibly connect.
fn is_allowed_app_scheme(scheme: &str) -> bool {
    let scheme = scheme.to_ascii_lowercase();
    KNOWN_APP_SCHEMES.contains(&&*scheme) || is_reversed_domain(&scheme)
}

/// Whether the scheme is a reversed domain name (RFC 8252 section 7.1), beginning with a top-level
/// domain.
fn is_reversed_domain(scheme: &str) -> bool {
    let is_label = |label: &str| {
        let ends = label.starts_with('-') || label.ends_with('-');
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !ends
    };
    let Some((top, _)) = scheme.split_once('.') else { return false };
    let is_top = top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_top = is_top || top.starts_with("xn--");
    is_top && !SYSTEM_SCHEME_PREFIXES.contains(&top) && scheme.split('.').all(is_label)
}

/// Returns the `//authority` before a path or query.
fn parse_authority(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("//")?;
    let authority = rest.split(['/', '?']).next()?;
    (!authority.is_empty()).then_some(authority)
}

fn strip_port(authority: &str) -> &str {
    let after_host = authority.rfind(']').map_or(0, |end| end + 1);
    let end = authority[after_host..].find(':').map_or(authority.len(), |at| after_host + at);
    &authority[..end]
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "127.0.0.1" | "[::1]" | "localhost")
}

/// Whether the path has a dot segment. Encoded dots count, since some recipients decode first.
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
    fn redirect_uris_of_known_clients_are_accepted() {
        for (text, place) in [
            ("https://claude.ai/api/mcp/auth_callback", "claude.ai"),
            ("https://chatgpt.com/connector_platform_oauth_redirect", "chatgpt.com"),
            ("http://localhost:8787/callback", "this computer"),
            ("http://127.0.0.1/", "this computer"),
            ("http://127.0.0.1", "this computer"),
            ("http://[::1]:3000/callback?x=1", "this computer"),
            (
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "an application on this device that handles cursor: links",
            ),
            (
                "com.example.app:/callback",
                "an application on this device that handles com.example.app: links",
            ),
            ("claude.ai:/api/cb", "an application on this device that handles claude.ai: links"),
            ("VSCode://a.b/cb", "an application on this device that handles VSCode: links"),
            ("https://global.consent.azure-apim.net/redirect/acme-5f1", "global.consent.azure-apim.net"),
            ("https://app.example:8443/cb", "app.example:8443"),
        ] {
            assert_eq!(parse(text).describe_destination(), place, "{text}");
        }
    }

    #[test]
    fn dangerous_redirect_uris_are_refused() {
        for (text, fault) in [
            ("javascript:alert(1)", RedirectUriError::DangerousScheme),
            ("JavaScript:alert(1)", RedirectUriError::DangerousScheme),
            ("data:text/html,x", RedirectUriError::DangerousScheme),
            ("file:///etc/passwd", RedirectUriError::DangerousScheme),
            ("vbscript:x", RedirectUriError::DangerousScheme),
            ("blob:https://a/b", RedirectUriError::DangerousScheme),
            ("about:blank", RedirectUriError::DangerousScheme),
            ("http://example.com/cb", RedirectUriError::PlainHttp),
            ("http://127.0.0.2/cb", RedirectUriError::PlainHttp),
            ("http://localhost.evil.example/cb", RedirectUriError::PlainHttp),
            ("http://127.0.0.1.evil.example/cb", RedirectUriError::PlainHttp),
            ("http://localhost@evil.example/cb", RedirectUriError::UserInfo),
            ("https://claude.ai@evil.example/cb", RedirectUriError::UserInfo),
            ("https://a.example/cb#x", RedirectUriError::Fragment),
            ("https://a.example/x/../cb", RedirectUriError::DotSegment),
            ("https://a.example/x/%2e%2E/cb", RedirectUriError::DotSegment),
            ("https://*.example/cb", RedirectUriError::Wildcard),
            ("https://a.example\\@evil.example/cb", RedirectUriError::Malformed),
            ("https:a.example/cb", RedirectUriError::Malformed),
            ("http://0x7f.1/cb", RedirectUriError::Malformed),
            ("https:///cb", RedirectUriError::Malformed),
            ("//a.example/cb", RedirectUriError::Malformed),
            ("https://a.example/c b", RedirectUriError::Malformed),
            ("https://ä.example/cb", RedirectUriError::Malformed),
            ("cursor:", RedirectUriError::Malformed),
            ("cursor://", RedirectUriError::Malformed),
            ("", RedirectUriError::Malformed),
        ] {
            assert_eq!(RedirectUri::parse(text), Err(fault), "{text}");
        }
        assert_eq!(
            RedirectUri::parse(&format!("https://a/{}", "x".repeat(2048))),
            Err(RedirectUriError::TooLong)
        );
    }

    #[test]
    fn a_scheme_is_a_known_application_or_a_reversed_domain_name() {
        for scheme in [
            "ms-msdt",
            "search-ms",
            "ms-officecmd",
            "ms-appinstaller",
            "ms-settings",
            "intent",
            "shell",
            "smb",
            "ssh",
            "telnet",
            "ldap",
            "tel",
            "sms",
            "facetime",
            "itms-apps",
            "steam",
            "zoommtg",
            "slack",
            "x-apple.systempreferences",
            "microsoft.windows.camera",
            "x.y",
            "1.example",
            "com..example",
            "com.-example",
            "com.example.",
            "com.ex+ample",
            "feed",
            "x-javascript",
            "jar",
            "res",
            "chrome-extension",
            "myapp",
        ] {
            let refused = RedirectUri::parse(&format!("{scheme}://x/cb"));
            let expected = [
                RedirectUriError::UnknownScheme,
                RedirectUriError::DangerousScheme,
                RedirectUriError::Malformed,
            ];
            assert!(refused.as_ref().is_err_and(|fault| expected.contains(fault)), "{scheme}: {refused:?}");
        }
        for scheme in
            ["com.example.app", "vscode-insiders", "com.anthropic.claude", "com.googleusercontent.apps.1-a"]
        {
            assert!(RedirectUri::parse(&format!("{scheme}:/cb")).is_ok(), "{scheme}");
        }
        assert!(RedirectUri::parse_trusted("myapp://x/cb").is_ok(), "the operator knows it");
        for scheme in REFUSED_SCHEMES {
            let refused = RedirectUri::parse_trusted(&format!("{scheme}://x/cb"));
            assert_eq!(refused, Err(RedirectUriError::DangerousScheme), "{scheme}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_stranger_gives_leads_to_the_web_loopback_or_a_known_application(
            scheme in "[a-zA-Z][a-zA-Z0-9+.-]{0,16}",
            rest in "(:|:/|://)[ -~]{0,40}",
        ) {
            let text = format!("{scheme}{rest}");
            if let Ok(uri) = RedirectUri::parse(&text) {
                let scheme = scheme.to_ascii_lowercase();
                let is_good = scheme == "https"
                    || (scheme == "http" && uri.is_loopback())
                    || KNOWN_APP_SCHEMES.contains(&&*scheme)
                    || scheme.contains('.');
                proptest::prop_assert!(is_good, "{}", text);
                proptest::prop_assert!(RedirectUri::parse_trusted(&text).is_ok());
                proptest::prop_assert!(uri.matches(&uri) && uri.matches_text(&text));
                // Only a web URI is shown as a host, and no other kind looks like one.
                let place = uri.describe_destination().into_owned();
                proptest::prop_assert_eq!(uri.is_web(), !place.contains(' '), "{}", place);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let (stranger, operator) = (RedirectUri::parse(&text), RedirectUri::parse_trusted(&text));
            proptest::prop_assert!(stranger.is_err() || operator == stranger);
        }
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
            assert_eq!(parse(registered).matches(&parse(asked)), same, "{registered} {asked}");
        }
    }
}
