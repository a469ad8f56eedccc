//! Scopes. There is one that means something; clients ask for others out of habit, and are not refused for it.

use super::metadata::{OFFLINE, SCOPE};

/// What a client that asks for these scopes is granted, in its own words and order: unknown ones are dropped, and the
/// one that lets it call tools is always there.
pub(super) fn granted(asked: Option<&str>) -> String {
    let mut scopes: Vec<&str> = Vec::new();
    for scope in asked.unwrap_or_default().split(' ').filter(|scope| [SCOPE, OFFLINE].contains(scope)) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if !scopes.contains(&SCOPE) {
        scopes.insert(0, SCOPE);
    }
    scopes.join(" ")
}

/// What is left of granted scopes when a client asks for these of them (RFC 6749 section 6): never more, and always what lets it
/// call tools.
pub(super) fn narrowed(granted: &str, asked: Option<&str>) -> String {
    let Some(asked) = asked else { return granted.to_owned() };
    let kept = |scope: &&str| *scope == SCOPE || asked.split(' ').any(|one| one == *scope);
    granted.split(' ').filter(kept).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_narrowed_and_never_widened() {
        for (given, asked, left) in [
            ("mcp:use offline_access", Some("mcp:use"), "mcp:use"),
            ("mcp:use", Some("mcp:use offline_access"), "mcp:use"),
            ("offline_access mcp:use", Some("offline_access"), "offline_access mcp:use"),
            ("mcp:use offline_access", Some("openid"), "mcp:use"),
            ("mcp:use offline_access", None, "mcp:use offline_access"),
        ] {
            assert_eq!(narrowed(given, asked), left, "{asked:?}");
        }
    }

    #[test]
    fn habits_are_forgiven() {
        for (asked, given) in [
            (None, "mcp:use"),
            (Some(""), "mcp:use"),
            (Some("openid email profile"), "mcp:use"),
            (Some("offline_access mcp:use"), "offline_access mcp:use"),
            (Some("offline_access"), "mcp:use offline_access"),
            (Some("mcp:use mcp:use admin"), "mcp:use"),
        ] {
            assert_eq!(granted(asked), given, "{asked:?}");
        }
    }
}
