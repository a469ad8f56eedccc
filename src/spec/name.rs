//! The name of a tenant.

use std::fmt;
use std::sync::Arc;

/// The name of a tenant: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct TenantName(Arc<str>);

impl TenantName {
    /// Parses a name; `None` if the text does not have its form.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let inner = bytes.iter().all(|&b| ok(b) || b == b'-');
        let ends = bytes.first().is_some_and(|&b| ok(b)) && bytes.last().is_some_and(|&b| ok(b));
        (inner && ends && bytes.len() <= 63).then(|| Self(text.into()))
    }

    /// Derives a name from a file's stem: letters in lower case, `-` for every other character, at
    /// most 63 characters. `None` if nothing remains.
    pub fn from_entry_id(stem: &str) -> Option<Self> {
        let small = |c: char| {
            let c = c.to_ascii_lowercase();
            if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }
        };
        let text: String = stem.chars().map(small).collect();
        let text = text.trim_matches('-');
        let text = text[..text.len().min(63)].trim_end_matches('-');
        Self::parse(text)
    }

    /// Returns the name as text that can be shared.
    pub fn as_arc(&self) -> &Arc<str> {
        &self.0
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_become_names() {
        let name = |stem| TenantName::from_entry_id(stem).map(|name| name.to_string());
        assert_eq!(name("Acme Corp").as_deref(), Some("acme-corp"));
        assert_eq!(name("mcp_export (1)").as_deref(), Some("mcp-export--1"));
        assert_eq!(name("---"), None);
        assert_eq!(name("größe").as_deref(), Some("gr--e"));
        assert_eq!(name(&"a".repeat(90)).map(|n| n.len()), Some(63));
    }
}
