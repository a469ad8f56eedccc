//! Paths of the console's pages.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Returns a segment of a path, encoded.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Returns the path of a tenant's page.
pub(super) fn tenant(name: &str) -> String {
    format!("/tenants/{}", segment(name))
}

/// Returns a path with these parameters; empty ones are left out.
pub(super) fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut link = path.to_owned();
    let mut sign = '?';
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        write!(link, "{sign}{name}={}", segment(value)).expect("a String takes what is written");
        sign = '&';
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_name_contains_changes_the_path() {
        assert_eq!(tenant("a/../b?c=\"<&"), "/tenants/a%2F%2E%2E%2Fb%3Fc%3D%22%3C%26");
        assert_eq!(with_query("/", &[("q", "a b"), ("state", ""), ("page", "2")]), "/?q=a%20b&page=2");
    }
}
