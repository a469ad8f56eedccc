//! The file of the admin listener's tokens (`admin_auth`): names, roles and digests, no secret.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// The largest name of a token, in characters.
const MAX_NAME_CHARS: usize = 64;

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// See everything.
    Read,
    /// Change things, too.
    Operate,
}

impl AdminRole {
    /// Returns the role as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// One token, known by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Whose it is; the audit names it.
    pub name: String,
    /// The digest of the token's text.
    pub sha256: Digest,
    /// What its holder may do.
    pub role: AdminRole,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}

impl AdminToken {
    /// Whether the token is valid no longer.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    tokens: Vec<WrittenToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    sha256: String,
    role: AdminRole,
    expires: Option<String>,
}

/// Parses the file. One wrong entry makes the whole file wrong, so that no operator relies on half
/// of it.
///
/// # Errors
/// What is wrong, and where.
pub fn parse_admin_tokens(text: &str) -> Result<Vec<AdminToken>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: TokensFile = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| error.without_snippet().render().lines().next().unwrap_or("not YAML").to_owned())?;
    let tokens: Vec<AdminToken> = file.tokens.into_iter().map(validate).collect::<Result<_, _>>()?;
    let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for token in &tokens {
        if !names.insert(&token.name) {
            return Err(format!("two tokens have the name {:?}", token.name));
        }
        if !digests.insert(token.sha256) {
            return Err(format!("the token {:?} has the digest of another one", token.name));
        }
    }
    Ok(tokens)
}

fn validate(written: WrittenToken) -> Result<AdminToken, String> {
    let WrittenToken { name, sha256, role, expires } = written;
    if !is_valid_name(&name) {
        return Err(format!("the name {name:?} must have 1 to {MAX_NAME_CHARS} characters"));
    }
    let Some(sha256) = Digest::parse_hex(&sha256) else {
        return Err(format!("`sha256` of {name:?} is not a digest of 64 hexadecimal digits"));
    };
    let expires = match expires.as_deref().map(parse_time) {
        None => None,
        Some(Some(end)) => Some(end),
        Some(None) => return Err(format!("`expires` of {name:?} is neither a date nor a time")),
    };
    Ok(AdminToken { name, sha256, role, expires })
}

/// Whether a token may have this name.
pub(super) fn is_valid_name(name: &str) -> bool {
    !name.trim().is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control)
}

/// Parses a time, or a date, which is its first moment in UTC.
fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, digit: char, more: &str) -> String {
        let digest = digit.to_string().repeat(64);
        format!("  - name: {name}\n    sha256: \"{digest}\"\n    {more}\n")
    }

    #[test]
    fn tokens_are_read_with_role_and_end() {
        let text = format!(
            "tokens:\n{}{}",
            entry("ann", 'a', "role: operate"),
            entry("wall", 'b', "role: read\n    expires: 2027-01-31")
        );
        let tokens = parse_admin_tokens(&text).expect("valid");
        assert_eq!((tokens[0].name.as_str(), tokens[0].role), ("ann", AdminRole::Operate));
        let end: Timestamp = "2027-01-31T00:00:00Z".parse().expect("a time");
        assert!(tokens[1].is_expired(end) && !tokens[1].is_expired(end - jiff::SignedDuration::from_secs(1)));
        assert!(!tokens[0].is_expired(end));
    }

    #[test]
    fn one_wrong_entry_makes_the_file_wrong() {
        let good = entry("ann", 'a', "role: operate");
        for bad in [
            entry("bob", 'b', "role: admin"),
            entry("bob", 'b', "rolle: read"),
            entry("bob", 'x', "role: read"),
            entry("ann", 'b', "role: read"),
            entry("bob", 'a', "role: read"),
            entry("\"\"", 'b', "role: read"),
            entry("bob", 'b', "role: read\n    expires: soon"),
        ] {
            assert!(parse_admin_tokens(&format!("tokens:\n{good}{bad}")).is_err(), "{bad}");
        }
        for bad in ["", "tokens", "[]", "tokens: {}", "other: []"] {
            assert!(parse_admin_tokens(bad).is_err(), "{bad:?}");
        }
    }
}
