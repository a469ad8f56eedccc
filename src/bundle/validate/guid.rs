//! Ids of Entra (GUIDs).

use std::sync::Arc;

/// Parses a GUID (8-4-4-4-12 hexadecimal digits), in lower case.
pub(super) fn parse_guid(text: &str) -> Option<Arc<str>> {
    let text = text.to_ascii_lowercase();
    let groups = [8, 4, 4, 4, 12];
    let is_hex = |group: &str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fits = text.split('-').map(str::len).eq(groups) && text.split('-').all(is_hex);
    fits.then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_lower_case_and_nothing_else_is() {
        let id = "AAAAAAAA-0000-1111-2222-bbbbbbbbbbbb";
        assert_eq!(parse_guid(id).as_deref(), Some("aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb"));
        for text in [
            "",
            "contoso.com",
            "aaaaaaaa-0000-1111-2222-bbbbbbbbbbb",
            "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbg",
            "aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb-",
            "{aaaaaaaa-0000-1111-2222-bbbbbbbbbbbb}",
        ] {
            assert_eq!(parse_guid(text), None, "{text}");
        }
    }
}
