//! Scopes. A single one has an effect; clients request others out of habit, and are not refused for
//! it.

/// The scope for calling tools; there is no finer one.
pub const MCP_SCOPE: &str = "mcp:use";
/// Clients request it to get refresh tokens. All of them get one, so it has no effect.
pub(super) const OFFLINE_ACCESS_SCOPE: &str = "offline_access";

/// Returns the granted scopes for the requested ones, in the client's order: unknown scopes are
/// dropped, and the one for calling tools is always included.
pub(super) fn select_supported(asked: Option<&str>) -> String {
    let mut scopes: Vec<&str> = Vec::new();
    for scope in
        asked.unwrap_or_default().split(' ').filter(|scope| [MCP_SCOPE, OFFLINE_ACCESS_SCOPE].contains(scope))
    {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if !scopes.contains(&MCP_SCOPE) {
        scopes.insert(0, MCP_SCOPE);
    }
    scopes.join(" ")
}

/// Returns the granted scopes that a refresh request asks for (RFC 6749 section 6): never more than
/// were granted, and always the one for calling tools.
pub(super) fn narrow(granted: &str, asked: Option<&str>) -> String {
    let Some(asked) = asked else { return granted.to_owned() };
    let kept = |scope: &&str| *scope == MCP_SCOPE || asked.split(' ').any(|one| one == *scope);
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
            assert_eq!(narrow(given, asked), left, "{asked:?}");
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
            assert_eq!(select_supported(asked), given, "{asked:?}");
        }
    }
}
