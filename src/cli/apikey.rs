//! `tenantd apikey new`: creates an API key, or a program's secret, printed once, and the digest
//! for the tenant's file.

use anyhow::Context;
use jiff::Timestamp;

use super::args::{ApikeyAction, ApikeyArgs};
use super::{Exit, output};
use crate::base::clock::{Clock, SystemClock};
use crate::base::digest::Digest;
use crate::base::random;

/// Creates and prints a key.
pub(super) fn run(args: &ApikeyArgs) -> anyhow::Result<Exit> {
    let ApikeyAction::New { label, expires, machine } = &args.action;
    if let Some(id) = machine {
        check_label(label)?;
        check_machine_id(id)?;
        output::print(&machine_text(&new_secret(), id, label)?)?;
        return Ok(Exit::Fine);
    }
    let expires = expires.as_deref().map(parse_time).transpose()?;
    check_future(expires, SystemClock.now())?;
    check_label(label)?;
    output::print(&format_new_key(&new_key(), label, expires)?)?;
    Ok(Exit::Fine)
}

/// Returns 256 random bits with a prefix by which secret scanners recognize a leaked key.
fn new_key() -> String {
    format!("tk_{}", random::hex::<32>())
}

/// Returns 256 random bits with a prefix by which secret scanners recognize a leaked secret.
fn new_secret() -> String {
    format!("ts_{}", random::hex::<32>())
}

fn check_machine_id(id: &str) -> anyhow::Result<()> {
    let is_fine = (1..=64).contains(&id.len())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    anyhow::ensure!(
        is_fine,
        "`--machine` is {id:?}: write 1 to 64 letters, digits, `-` or `_`, for example `teams-agent`"
    );
    Ok(())
}

fn machine_text(secret: &str, id: &str, label: &str) -> anyhow::Result<String> {
    let digest = Digest::of(secret.as_bytes());
    let label = serde_json::to_string(label)?;
    Ok(format!(
        "The secret, which is shown only this once; give it to the program:\n\n  {secret}\n\n\
         The lines for the tenant's .yaml, beside its login; they contain no secret:\n\n\
         machine_clients:\n  - id: \"{id}\"\n    label: {label}\n    sha256: {digest}\n\n\
         The program gets a token with them at the tenant's token endpoint, {{connector URL without /mcp}}/token:\n\n  \
         curl -sS https://mcp.example.com/acme/token -u {id}:SECRET -d grant_type=client_credentials -d scope=mcp:use\n\n\
         and sends it as `Authorization: Bearer <token>`.\n"
    ))
}

fn parse_time(text: &str) -> anyhow::Result<Timestamp> {
    let midnight = |_| format!("{text}T00:00:00Z").parse();
    let parsed: Result<Timestamp, jiff::Error> = text.parse().or_else(midnight);
    parsed.with_context(|| {
        format!("`--expires` is {text:?}: write a date (2027-01-31) or a time (2027-01-31T12:00:00Z)")
    })
}

fn check_future(expires: Option<Timestamp>, now: Timestamp) -> anyhow::Result<()> {
    let Some(at) = expires.filter(|at| *at <= now) else { return Ok(()) };
    anyhow::bail!("`--expires` is {at}, which is in the past: nobody could use the key; write a future time")
}

fn check_label(label: &str) -> anyhow::Result<()> {
    let is_valid =
        !label.trim().is_empty() && label.chars().count() <= 64 && !label.chars().any(char::is_control);
    anyhow::ensure!(
        is_valid,
        "`--label` is {label:?}: write 1 to 64 characters, for example `nightly-report`"
    );
    Ok(())
}

fn format_new_key(key: &str, label: &str, expires: Option<Timestamp>) -> anyhow::Result<String> {
    let digest = Digest::of(key.as_bytes());
    // JSON is valid YAML, whatever the label contains.
    let label = serde_json::to_string(label)?;
    let expires = expires.map(|at| format!("    expires: {at}\n")).unwrap_or_default();
    Ok(format!(
        "The key, which is shown only this once; give it to the caller:\n\n  {key}\n\n\
         The lines for the tenant's .yaml; they contain no secret:\n\n\
         api_keys:\n  - label: {label}\n    sha256: {digest}\n{expires}\n\
         The caller sends it as `Authorization: Bearer <key>`.\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_hold_the_digest_and_not_the_key() {
        let expires = parse_time("2027-01-31").expect("a date");
        insta::assert_snapshot!(format_new_key("tk_00ff", "night \"shift\"", Some(expires)).expect("a text"));
    }

    #[test]
    fn a_key_that_nobody_could_use_is_refused() {
        let (past, now) =
            (parse_time("2027-01-31").expect("a date"), parse_time("2027-02-01").expect("a date"));
        assert!(check_future(Some(past), now).is_err() && check_future(Some(now), now).is_err());
        assert!(check_future(Some(now), past).is_ok() && check_future(None, now).is_ok());
    }

    #[test]
    fn keys_are_long_and_never_the_same() {
        assert_eq!(new_key().len(), "tk_".len() + 64);
        assert_ne!(new_key(), new_key());
    }

    #[test]
    fn a_program_gets_lines_for_a_tenant_with_a_login() {
        let text = machine_text("ts_00ff", "teams-agent", "Teams \"agent\"").expect("a text");
        insta::assert_snapshot!(text);
        assert!(check_machine_id("teams-agent").is_ok());
        for bad in ["", "a b", "a:b", "é", &"x".repeat(65)] {
            assert!(check_machine_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_moment_or_label_is_refused() {
        assert!(parse_time("tomorrow").is_err());
        assert_eq!(parse_time("2027-01-31T12:00:00Z").expect("a time").to_string(), "2027-01-31T12:00:00Z");
        assert!(check_label(" ").is_err() && check_label(&"x".repeat(65)).is_err());
    }
}
