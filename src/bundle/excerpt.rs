//! Excerpts of source lines for findings, and the removal of secrets from findings.
//!
//! An excerpt shows a line's key, and its value only if the key is a known one whose value is not
//! secret. In doubt the value is hidden. As a second safeguard, [`Scrubber`] knows the values of
//! all secret-looking keys and hides them wherever they occur, for instance an API key inside a
//! URL.

use std::collections::BTreeSet;

use super::fields::{self, Visibility, is_field_name};
use super::tree::{ConfigNode, ConfigValue};
use crate::base::diagnostic::{Diagnostic, Report};

const HIDDEN: &str = "[hidden]";
const MAX_CHARS: usize = 120;
/// The limit on a message, in bytes.
const MAX_MESSAGE: usize = 2_000;

/// Whether a field's name suggests that its value is secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words =
        ["key", "secret", "token", "passw", "pwd", "credential", "auth", "cookie", "bearer", "private"];
    words.iter().any(|word| name.contains(word)) && !matches!(name.as_str(), "auth_header" | "oauth_enabled")
}

/// Returns line `number` (from 1) of a text, with its value hidden unless it is known to be
/// harmless.
pub(super) fn line_excerpt(text: &str, number: usize) -> Option<String> {
    let line = text.lines().nth(number.checked_sub(1)?)?;
    let line = line.trim_start_matches('\u{feff}').trim_end();
    if line.trim().is_empty() {
        return None;
    }
    let Some((head, name, value)) = split(line) else { return Some(HIDDEN.into()) };
    let shown = match (value.trim(), fields::visibility(&name.to_ascii_lowercase())) {
        ("", _) => String::new(),
        (value, Visibility::Shown) => show_plain(value),
        (value, Visibility::Url) => url_without_secrets(value),
        (value, Visibility::Section) => show_section(value),
        (_, Visibility::Hidden) => HIDDEN.into(),
    };
    Some(format!("{head}{shown}").trim_end().to_owned())
}

/// Splits `  - name: value` or `NAME=value` into the text before the value, the name, and the
/// value.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let indent = line.len() - line.trim_start_matches([' ', '-']).len();
    let rest = line[indent..].strip_prefix("export ").unwrap_or(&line[indent..]);
    let start = line.len() - rest.len();
    let end = rest.find([':', '='])?;
    let name = rest[..end].trim().trim_matches(['"', '\'']);
    let value = &rest[end + 1..];
    let yaml = rest.as_bytes()[end] == b':';
    if !is_field_name(name) || (yaml && !value.is_empty() && !value.starts_with([' ', '\t'])) {
        return None;
    }
    let blank = if yaml { value.len() - value.trim_start().len() } else { 0 };
    let cut = start + end + 1 + blank;
    Some((&line[..cut], name, &line[cut..]))
}

/// Returns a harmless field's value, or hides it if the line may contain more than that.
fn show_plain(value: &str) -> String {
    let value = value.split(" #").next().unwrap_or(value);
    match value.contains(['{', '}', '#', '=']) || value.contains(": ") {
        true => HIDDEN.into(),
        false => printable(value),
    }
}

/// Returns a flow mapping `{name: value, …}` with the values of harmless fields only. Any other
/// syntax, nesting or ambiguous splitting hides the whole value.
fn show_section(value: &str) -> String {
    let value = value.split(" #").next().unwrap_or(value).trim_end();
    let Some(inside) = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return HIDDEN.into();
    };
    let fields = inside.split(',').map(|field| field.split_once(": "));
    let fields: Option<Vec<_>> =
        fields.map(|field| field.map(|(name, value)| (name.trim(), value.trim()))).collect();
    let Some(fields) =
        fields.filter(|_| !inside.contains(['{', '}', '[', ']', '"', '\'', '&', '*', '!', '#', '=']))
    else {
        return HIDDEN.into();
    };
    let shown = |(name, value): (&str, &str)| match fields::visibility(&name.to_ascii_lowercase()) {
        Visibility::Shown => format!("{name}: {}", show_plain(value)),
        _ if is_field_name(name) => format!("{name}: {HIDDEN}"),
        _ => HIDDEN.to_owned(),
    };
    format!("{{{}}}", fields.into_iter().map(shown).collect::<Vec<_>>().join(", "))
}

fn printable(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}

/// Returns a URL without user, query and fragment, or hides it if it cannot be parsed.
pub(super) fn url_without_secrets(value: &str) -> String {
    let bare = value.trim_matches(['"', '\'']);
    let Ok(mut url) = url::Url::parse(bare) else { return HIDDEN.into() };
    if !matches!(url.scheme(), "http" | "https") {
        return HIDDEN.into();
    }
    let dropped = bare.contains(['?', '#', '@', ' ', '\\']);
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    match (cleared, dropped) {
        (Err(()), _) => HIDDEN.into(),
        (Ok(()), true) => format!("{}…", printable(url.as_str())),
        (Ok(()), false) => printable(value),
    }
}

/// Removes known secrets from findings.
#[derive(Default)]
pub(super) struct Scrubber(BTreeSet<String>);

impl Scrubber {
    /// Adds a secret. Those shorter than six characters are ignored: they would hide ordinary
    /// words.
    pub(super) fn learn(&mut self, secret: &str) {
        let secret = secret.trim().trim_matches(['"', '\'']);
        if secret.len() >= 6 && !secret.starts_with("${") {
            self.0.insert(secret.to_owned());
        }
    }

    /// Adds the values of all secret-looking keys in a text, well-formed or not.
    pub(super) fn learn_text(&mut self, text: &str) {
        for (_, name, value) in text.lines().filter_map(split) {
            if is_secret_name(name) {
                self.learn(value);
                self.learn(value.split(" #").next().unwrap_or(value));
            }
        }
    }

    /// Adds the values of all secret-looking keys in a tree, however they are written, and all
    /// values below them.
    pub(super) fn learn_tree(&mut self, node: &ConfigNode) {
        match &node.value {
            ConfigValue::Scalar { .. } => {}
            ConfigValue::List(items) => items.iter().for_each(|item| self.learn_tree(item)),
            ConfigValue::Map(pairs) => pairs.iter().for_each(|(key, node)| match is_secret_name(&key.text) {
                true => self.learn_all(node),
                false => self.learn_tree(node),
            }),
        }
    }

    fn learn_all(&mut self, node: &ConfigNode) {
        match &node.value {
            ConfigValue::Scalar { text, .. } => text.lines().for_each(|line| self.learn(line)),
            ConfigValue::List(items) => items.iter().for_each(|item| self.learn_all(item)),
            ConfigValue::Map(pairs) => pairs.iter().for_each(|(key, node)| {
                // Field names below a secret-looking key are harmless, as in
                // `api_keys: [{label: x, expires: y}]`.
                if fields::visibility(&key.text) != Visibility::Shown {
                    self.learn_all(node);
                }
            }),
        }
    }

    /// Returns the findings without those secrets.
    pub(super) fn scrub(&self, report: &Report) -> Report {
        let mut secrets: Vec<&str> = self.0.iter().map(String::as_str).collect();
        // The longest first, so that no secret is partly replaced by another one inside it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut out = Report::new();
        for diagnostic in report {
            out.push(scrub_diagnostic(diagnostic.clone(), &secrets));
        }
        out
    }
}

fn scrub_diagnostic(mut diagnostic: Diagnostic, secrets: &[&str]) -> Diagnostic {
    diagnostic.message = truncate(blank_secrets(secrets, diagnostic.message));
    diagnostic.help = diagnostic.help.map(|help| truncate(blank_secrets(secrets, help)));
    if let Some(location) = &mut diagnostic.location {
        location.excerpt = location.excerpt.take().map(|excerpt| blank_secrets(secrets, excerpt));
    }
    diagnostic
}

/// Shortens a message, since what it quotes from a file may be the whole file. Runs after the
/// secrets are hidden, so that none is left in part.
fn truncate(text: String) -> String {
    match text.len() > MAX_MESSAGE {
        true => format!("{}…", &text[..text.floor_char_boundary(MAX_MESSAGE)]),
        false => text,
    }
}

fn blank_secrets(secrets: &[&str], text: String) -> String {
    secrets.iter().fold(text, |text, secret| match text.contains(secret) {
        true => text.replace(secret, HIDDEN),
        false => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_blanked_unless_known_to_be_harmless() {
        let shown = |line: &str| line_excerpt(line, 1).expect("a line");
        assert_eq!(shown("api_key: canary"), "api_key: [hidden]");
        assert_eq!(shown("  - key: canary"), "  - key: [hidden]");
        assert_eq!(shown("API_KEY=canary"), "API_KEY=[hidden]");
        assert_eq!(shown("whatever: canary"), "whatever: [hidden]");
        assert_eq!(shown("canary canary"), "[hidden]");
        assert_eq!(shown("{api_key: canary}"), "[hidden]");
        assert_eq!(shown("api_key:canary"), "[hidden]");
        assert_eq!(shown("path_prefix: /a/../b"), "path_prefix: /a/../b");
        assert_eq!(shown("display_name: The sales of 2026"), "display_name: The sales of 2026");
        assert_eq!(shown("description: {api_key: canary}"), "description: [hidden]");
        assert_eq!(shown("search_url: https://u:canary@h/p?k=canary"), "search_url: https://h/p…");
        assert_eq!(shown("search_url: [canary"), "search_url: [hidden]");
        assert_eq!(
            shown("limits: {max_request: 1XiB, concurrent_calls: 0} # mine"),
            "limits: {max_request: 1XiB, concurrent_calls: 0}"
        );
        assert_eq!(
            shown("limits: {max_reqest: canary, max_result: 1MiB}"),
            "limits: {max_reqest: [hidden], max_result: 1MiB}"
        );
        assert_eq!(shown("access: {users: a b, can ary: canary}"), "access: {users: a b, [hidden]}");
        for doubtful in [
            "limits: {max_request: \"a, api_key: canary\"}",
            "limits: {max_request: {api_key: canary}}",
            "limits: {label: a, api_key=canary}",
            "limits: {canary}",
            "limits: canary",
            "limits: {label: canary",
            "limits: {label: [canary, b]}",
            "api_keys: {label: canary}",
            "backend: {title: canary}",
        ] {
            assert!(shown(doubtful).ends_with(": [hidden]"), "{}", shown(doubtful));
        }
    }

    #[test]
    fn a_known_secret_is_blanked_wherever_it_turns_up() {
        let mut scrubber = Scrubber::default();
        scrubber.learn_text("api_key: \"canary-1\" # mine\nname: x\n");
        let report = Report::from(Diagnostic::error("x", "found canary-1 here").help("not canary-1"));
        let text = format!("{:?}", scrubber.scrub(&report));
        assert!(!text.contains("canary-1") && text.contains("[hidden]"), "{text}");
    }
}
