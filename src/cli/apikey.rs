//! `tenantd apikey new`: creates an API key, printed once, and the digest for the tenant's file.

use anyhow::Context;
use jiff::Timestamp;

use super::args::{ApikeyAction, ApikeyArgs};
use super::{Exit, output};
use crate::base::clock::{Clock, SystemClock};
use crate::base::digest::Digest;
use crate::base::random;

/// Creates and prints a key.
pub(super) fn run(args: &ApikeyArgs) -> anyhow::Result<Exit> {
    let ApikeyAction::New { label, expires } = &args.action;
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

fn parse_time(text: &str) -> anyhow::Result<Timestamp> {
    let at_midnight = |_| format!("{text}T00:00:00Z").parse();
    let parsed: Result<Timestamp, jiff::Error> = text.parse().or_else(at_midnight);
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
    fn a_bad_moment_or_label_is_refused() {
        assert!(parse_time("tomorrow").is_err());
        assert_eq!(parse_time("2027-01-31T12:00:00Z").expect("a time").to_string(), "2027-01-31T12:00:00Z");
        assert!(check_label(" ").is_err() && check_label(&"x".repeat(65)).is_err());
    }
}
