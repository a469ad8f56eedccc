//! `tenantd admin-token new`: creates a token for the admin listener, printed once, and the lines
//! with its digest for the file of tokens. `check` says which tokens a file has.

use anyhow::Context;
use jiff::Timestamp;

use super::args::{AdminTokenAction, AdminTokenArgs};
use super::{Exit, output};
use crate::base::clock::{Clock, SystemClock};
use crate::base::digest::Digest;
use crate::base::disk;
use crate::base::random;
use crate::settings::{AdminToken, parse_admin_tokens};

/// The largest file that the gateway reads.
const MAX_BYTES: u64 = 256 << 10;

/// Creates and prints a token, or checks a file.
pub(super) fn run(args: &AdminTokenArgs) -> anyhow::Result<Exit> {
    let now = SystemClock.now();
    match &args.action {
        AdminTokenAction::New { name, role, expires } => {
            let token = format!("ta_{}", random::hex::<32>());
            let lines = format_lines(&token, name, role, expires.as_deref())?;
            // What is printed is what the gateway reads, so the gateway's rules judge it.
            let parsed = parse_admin_tokens(&format!("tokens:\n{lines}")).map_err(anyhow::Error::msg)?;
            anyhow::ensure!(
                parsed.iter().all(|token| !token.is_expired(now)),
                "`--expires` is in the past: nobody could use the token; write a future time"
            );
            output::print(&format_new_token(&token, &lines))?;
            Ok(Exit::Fine)
        }
        AdminTokenAction::Check { file } => {
            let text = disk::read_text(file, MAX_BYTES)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            match parse_admin_tokens(&text) {
                Ok(tokens) => {
                    output::print(&tokens.iter().map(|token| describe(token, now)).collect::<String>())?;
                    Ok(Exit::Fine)
                }
                Err(why) => {
                    output::print_error(format!("{}: {why}; with this file nobody gets in", file.display()));
                    Ok(Exit::Findings)
                }
            }
        }
    }
}

fn format_lines(token: &str, name: &str, role: &str, expires: Option<&str>) -> anyhow::Result<String> {
    // JSON is valid YAML, whatever the name contains.
    let name = serde_json::to_string(name)?;
    let digest = Digest::of(token.as_bytes());
    let expires = expires.map(serde_json::to_string).transpose()?;
    let expires = expires.map(|at| format!("    expires: {at}\n")).unwrap_or_default();
    Ok(format!("  - name: {name}\n    sha256: {digest}\n    role: {role}\n{expires}"))
}

fn format_new_token(token: &str, lines: &str) -> String {
    format!(
        "The token, which is shown only this once; give it to the operator:\n\n  {token}\n\n\
         The lines for the file that `admin_auth` names; they contain no secret:\n\n\
         tokens:\n{lines}\n\
         The operator pastes it into the console's login page, or puts it into a file of mode 0600 for\n\
         `tenantd … --admin-token-file FILE`. The gateway reads the file again when it changes.\n"
    )
}

fn describe(token: &AdminToken, now: Timestamp) -> String {
    let end = match token.expires {
        None => "does not expire".to_owned(),
        Some(at) if token.is_expired(now) => format!("expired {at}"),
        Some(at) => format!("expires {at}"),
    };
    format!("{:<24} {:<8} {end}\n", token.name, token.role.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_hold_the_digest_and_not_the_token() {
        let lines = format_lines("ta_00ff", "night \"shift\"", "operate", Some("2027-01-31")).expect("lines");
        assert!(!lines.contains("ta_00ff"), "{lines}");
        let tokens = parse_admin_tokens(&format!("tokens:\n{lines}")).expect("valid");
        assert_eq!(tokens[0].name, "night \"shift\"");
        assert_eq!(tokens[0].sha256, Digest::of(b"ta_00ff"));
        assert!(format_new_token("ta_00ff", &lines).contains("  ta_00ff\n"));
        let now = "2027-02-01T00:00:00Z".parse().expect("a time");
        assert_eq!(
            describe(&tokens[0], now),
            "night \"shift\"            operate  expired 2027-01-31T00:00:00Z\n"
        );
    }
}
