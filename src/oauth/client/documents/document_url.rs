//! URLs of clients' documents: `https`, with a domain name as the host, and in a single spelling,
//! so that the URL compared, shown and fetched is the same.

use std::sync::Arc;

const MAX_BYTES: usize = 1024;

/// The URL of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DocumentUrl {
    text: Arc<str>,
    host: Arc<str>,
}

/// Why a text is not such a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentUrlError {
    #[error("it is not an https URL in normalized form")]
    Spelling,
    #[error("it has a user name, a fragment or a port")]
    Parts,
    #[error("its path has a dot segment or is empty")]
    Path,
    #[error("its host is an address or not a public name")]
    Host,
}

impl DocumentUrl {
    /// Parses a client id.
    pub(crate) fn parse(text: &str) -> Result<Self, DocumentUrlError> {
        let url = url::Url::parse(text).map_err(|_| DocumentUrlError::Spelling)?;
        if url.scheme() != "https" || text.len() > MAX_BYTES || text.contains('\\') {
            return Err(DocumentUrlError::Spelling);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(DocumentUrlError::Parts);
        }
        let host = url.host_str().unwrap_or_default();
        if !matches!(url.host(), Some(url::Host::Domain(_))) || !is_public_name(host) {
            return Err(DocumentUrlError::Host);
        }
        if url.port().is_some() || text.get(8 + host.len()..).is_some_and(|rest| rest.starts_with(':')) {
            return Err(DocumentUrlError::Parts);
        }
        check_path(url.path(), text)?;
        // The parser normalizes case, dot segments and default ports. A text that it changed is not
        // in the one accepted spelling.
        match url.as_str() == text {
            true => Ok(Self { host: host.into(), text: text.into() }),
            false => Err(DocumentUrlError::Spelling),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// Verifies that the path has no dot segments and is more than `/`.
fn check_path(path: &str, text: &str) -> Result<(), DocumentUrlError> {
    let text = text.to_ascii_lowercase().replace("%2e", ".");
    let written = text.split('?').next().unwrap_or_default();
    let dots = written.split('/').any(|segment| matches!(segment, "." | ".."));
    if dots || path == "/" { Err(DocumentUrlError::Path) } else { Ok(()) }
}

/// Whether the name has an inner dot, no trailing one, and is not special to this machine or its
/// network.
fn is_public_name(host: &str) -> bool {
    const OWN: [&str; 7] = ["localhost", "local", "internal", "localdomain", "lan", "home.arpa", "onion"];
    let ends = |own: &&str| host == *own || host.strip_suffix(own).is_some_and(|front| front.ends_with('.'));
    host.contains('.') && !host.ends_with('.') && !OWN.iter().any(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_documents_have_such_addresses() {
        for text in [
            "https://claude.ai/oauth/mcp-oauth-client-metadata",
            "https://chatgpt.com/oauth/codex/client.json",
            "https://app.example.com/client?v=1",
        ] {
            assert!(DocumentUrl::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn ambiguous_document_urls_are_refused() {
        for (text, fault) in [
            ("http://a.example/c", DocumentUrlError::Spelling),
            ("HTTPS://a.example/c", DocumentUrlError::Spelling),
            ("https://A.example/c", DocumentUrlError::Spelling),
            ("https://a.example/c d", DocumentUrlError::Spelling),
            ("https://a.example\\c", DocumentUrlError::Spelling),
            ("ftp://a.example/c", DocumentUrlError::Spelling),
            ("c1.abc", DocumentUrlError::Spelling),
            ("https://u@a.example/c", DocumentUrlError::Parts),
            ("https://u:p@a.example/c", DocumentUrlError::Parts),
            ("https://a.example/c#f", DocumentUrlError::Parts),
            ("https://a.example:8443/c", DocumentUrlError::Parts),
            ("https://a.example:443/c", DocumentUrlError::Parts),
            ("https://a.example", DocumentUrlError::Path),
            ("https://a.example/", DocumentUrlError::Path),
            ("https://a.example/x/../c", DocumentUrlError::Path),
            ("https://a.example/x/%2e%2e/c", DocumentUrlError::Path),
            ("https://a.example/./c", DocumentUrlError::Path),
            ("https://127.0.0.1/c", DocumentUrlError::Host),
            ("https://2130706433/c", DocumentUrlError::Host),
            ("https://0x7f.1/c", DocumentUrlError::Host),
            ("https://[::1]/c", DocumentUrlError::Host),
            ("https://localhost/c", DocumentUrlError::Host),
            ("https://x.localhost/c", DocumentUrlError::Host),
            ("https://metadata.google.internal/c", DocumentUrlError::Host),
            ("https://a.example./c", DocumentUrlError::Host),
            ("https://intranet/c", DocumentUrlError::Host),
        ] {
            assert_eq!(DocumentUrl::parse(text), Err(fault), "{text}");
        }
    }
}
