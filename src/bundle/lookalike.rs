//! Files whose names people mistake for one another, and what such a neighbour means for a tenant.
//!
//! `Acme.yaml`, `acme (1).yaml`, `acme.zip.yaml` and `acme.yaml.txt` are not the overlay of
//! `acme.zip`, but the operator who put one there believes that it is. If it restricts who may
//! call, the zip must not be open to everybody. Files are still grouped by their exact stem: an
//! entry's name must not depend on other files in the folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use icu_normalizer::ComposingNormalizerBorrowed;

use super::load_state::LoadState;
use super::tree::{ConfigNode, MAX_BYTES};
use super::yaml;
use super::{EntryFiles, dotenv, fields};
use crate::base::diagnostic::{Diagnostic, Location};
use crate::base::disk;
use crate::spec::TenantName;

/// The extensions of a tenant's configurations.
const CONFIG_SUFFIXES: [&str; 3] = [".yaml", ".yml", ".env"];
/// Extensions that do not tell tenants apart.
const KNOWN_SUFFIXES: [&str; 5] = [".zip", ".yaml", ".yml", ".env", ".txt"];
/// What programs and people append to the name of a copy.
const COPY_WORDS: [&str; 10] =
    ["copy", "kopie", "copie", "copia", "kopia", "bak", "backup", "old", "orig", "original"];
/// The limit on neighbours that are read; with more than this the tenant is in doubt anyway.
const MAX_READ: usize = 8;

/// Returns the kin keys of a stem: the name of its tenant, and the same without differences that
/// people overlook, such as case, Unicode form, white space, a repeated or hidden extension, the
/// mark of a copy. Stems that share a key are kin.
pub fn lookalike_keys(stem: &str) -> BTreeSet<String> {
    let text = ComposingNormalizerBorrowed::new_nfkc().normalize(stem).to_lowercase();
    BTreeSet::from([normalize_words(&text), normalize_words(strip_affixes(&text))])
}

/// Normalizes a text to a tenant name with single hyphens between its words, or returns it as it is
/// if no name can be made of it.
fn normalize_words(text: &str) -> String {
    let Some(name) = TenantName::from_entry_id(text) else { return text.to_owned() };
    name.as_str().split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

/// Whether a file was clearly meant to be a tenant's configuration but its name keeps it from being
/// one: `acme.yaml.txt`, `acme.yaml` followed by a space.
pub(super) fn is_misnamed(name: &str) -> bool {
    let is_configuration = |name: &str| {
        let name = name.to_ascii_lowercase();
        CONFIG_SUFFIXES.iter().any(|end| name.ends_with(end))
    };
    !is_configuration(name) && is_configuration(intended_name(name))
}

/// Returns a name without the extension that desktops hide, and without invisible characters.
pub(super) fn intended_name(name: &str) -> &str {
    let mut rest = name.trim_matches(is_invisible);
    while let Some(shorter) = strip_suffix_ignore_case(rest, ".txt") {
        rest = shorter.trim_end_matches(is_invisible);
    }
    rest
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn strip_suffix_ignore_case<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(end.len()).filter(|at| *at > 0)?;
    (text.is_char_boundary(at) && text[at..].eq_ignore_ascii_case(end)).then(|| &text[..at])
}

/// Returns a lower-case name without extensions and marks of copies.
fn strip_affixes(name: &str) -> &str {
    let mut rest = name.trim_matches(is_invisible);
    loop {
        let end = KNOWN_SUFFIXES.iter().find_map(|end| strip_suffix_ignore_case(rest, end));
        let shorter =
            end.or_else(|| strip_copy_marker(rest)).map(|shorter| shorter.trim_matches(is_invisible));
        match shorter.filter(|shorter| !shorter.is_empty()) {
            Some(shorter) => rest = shorter,
            None => return rest,
        }
    }
}

/// Returns the name of the original of a copy: `acme (1)`, `acme - copy`, `acme copy 2`,
/// `acme.bak`, `copy of acme`.
fn strip_copy_marker(name: &str) -> Option<&str> {
    if let Some(rest) = name.strip_prefix("copy of ") {
        return Some(rest);
    }
    if let Some((stem, inside)) = name.strip_suffix(')').and_then(|rest| rest.rsplit_once('(')) {
        let is_number = !inside.is_empty() && inside.bytes().all(|byte| byte.is_ascii_digit());
        return (is_number || is_copy_marker(inside)).then_some(stem);
    }
    let between = [' ', '-', '_', '.'];
    let counted = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let marked = [name, counted.trim_end_matches(between)].into_iter().find_map(|text| {
        let (stem, word) = text.rsplit_once(between)?;
        COPY_WORDS.contains(&word).then_some(stem)
    });
    marked.map(|stem| stem.trim_end_matches(between))
}

/// Whether a text in parentheses marks a copy: `copy`, `conflicted copy 2026-01-01`,
/// `case conflict`.
fn is_copy_marker(text: &str) -> bool {
    text.contains("conflict") || text.split(' ').any(|word| COPY_WORDS.contains(&word))
}

/// A neighbour that was read.
pub(super) struct Lookalike {
    file: PathBuf,
    content: LookalikeContent,
}

/// What a neighbour says about who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LookalikeContent {
    /// It has a field that restricts who may call.
    Guards,
    /// It could not be read, so it may have one.
    Unread,
    /// It is a complete open tenant of its own.
    Tenant,
    Nothing,
}

/// Reads the neighbours of an entry. The results are part of the entry's digest.
pub(super) fn read_lookalikes(entry: &EntryFiles, state: &mut LoadState<'_>) -> Vec<Lookalike> {
    if state.source.is_snapshot() {
        return Vec::new();
    }
    let one = |(number, file): (usize, &PathBuf)| {
        let says =
            if number < MAX_READ { classify_content(entry, file, state) } else { LookalikeContent::Unread };
        state.hasher.update_field(file.file_name().unwrap_or_default().as_encoded_bytes());
        state.hasher.update_field(format!("{says:?}").as_bytes());
        Lookalike { file: file.clone(), content: says }
    };
    entry.lookalikes.iter().take(MAX_READ + 1).enumerate().map(one).collect()
}

fn classify_content(entry: &EntryFiles, file: &Path, state: &LoadState<'_>) -> LookalikeContent {
    let is_in_folder = entry.folder.as_deref().is_some_and(|folder| file.starts_with(folder));
    let cap = MAX_BYTES as u64;
    let bytes = if is_in_folder { state.read(file, cap) } else { disk::read(file, cap) };
    let Some(text) = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return LookalikeContent::Unread;
    };
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_env = intended_name(name).to_lowercase().ends_with(".env");
    let root = if is_env { dotenv::parse(&text).root } else { yaml::parse(&text) };
    match root {
        Err(_) => LookalikeContent::Unread,
        Ok(root) if root.pairs().iter().any(|(key, node)| is_guard_entry(&key.text, node)) => {
            LookalikeContent::Guards
        }
        Ok(root) if root.member("search_url").is_some() => LookalikeContent::Tenant,
        Ok(_) => LookalikeContent::Nothing,
    }
}

/// Whether a field restricts who may call, or is meant to. An empty `access:` is not a request to
/// be open.
fn is_guard_entry(name: &str, node: &ConfigNode) -> bool {
    let Some(field) = fields::find_nearest(fields::TENANT, name).filter(|field| fields::is_guard(field))
    else {
        return false;
    };
    match field.owner {
        fields::FieldOwner::Guard => true,
        _ => !node.is_blank() && node.text().and_then(fields::parse_flag) != Some(false),
    }
}

impl Lookalike {
    /// Returns the finding for a tenant with this neighbour; `is_open`: the tenant asks callers for
    /// no credential.
    pub(super) fn to_diagnostic(&self, is_open: bool) -> Option<Diagnostic> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let help = match intended_name(&name) {
            meant if is_misnamed(&name) => {
                format!(
                    "rename it to {meant} if it is part of the tenant (a desktop may hide the end of its \
                     name), or remove it"
                )
            }
            _ => "give it the same name as the tenant's other files, up to the dot; or move it out of the \
                  folder"
                .to_owned(),
        };
        let found = match self.content {
            LookalikeContent::Guards if is_open => Diagnostic::error(
                "overlay-misnamed",
                "this file says who may call and has almost the name of this tenant, but it is not part of \
                 it; the tenant stays closed",
            ),
            LookalikeContent::Unread if is_open => Diagnostic::error(
                "overlay-misnamed",
                "this file has almost the name of this tenant and cannot be read, so it may say who may \
                 call; the tenant stays closed",
            ),
            _ if is_misnamed(&name) => Diagnostic::warning(
                "overlay-misnamed",
                "this file has almost the name of one of this tenant's files; it is ignored",
            ),
            LookalikeContent::Nothing => Diagnostic::warning(
                "overlay-misnamed",
                "this file has almost the name of this tenant, but it is not part of it",
            ),
            LookalikeContent::Guards | LookalikeContent::Unread | LookalikeContent::Tenant => return None,
        };
        Some(found.help(help).at(Location::file(&self.file)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn are_kin(one: &str, other: &str) -> bool {
        !lookalike_keys(one).is_disjoint(&lookalike_keys(other))
    }

    #[test]
    fn stems_that_people_take_for_one_another_are_kin() {
        for stem in [
            "Acme",
            "acme (1)",
            "acme(12)",
            "acme - Copy",
            "Copy of acme",
            "acme copy 2",
            "acme_copy",
            "acme - Kopie (2)",
            "acme.zip",
            "acme.yaml.txt",
            " acme ",
            "acme.yaml\u{a0}",
            "acme.bak",
            "acme_old",
            "acme.env.TXT",
            "\u{ff21}cme",
            "acme\u{200b}",
            "acme (conflicted copy 2026-01-01)",
        ] {
            assert!(are_kin("acme", stem), "{stem}");
        }
        assert!(
            are_kin("mu\u{308}ller", "m\u{fc}ller")
                && are_kin("a_b", "A b")
                && are_kin("acme--1", "acme (1)")
        );
        for (one, other) in
            [("acme", "acme-prod"), ("acme", "acme2"), ("a-b", "ab"), ("acme", "acme (eu)"), ("東", "西")]
        {
            assert!(!are_kin(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_hidden_end_and_blanks_keep_a_file_from_being_a_configuration() {
        for name in ["acme.yaml.txt", "acme.ENV.TXT", "acme.yml ", "acme.yaml.txt.txt", "acme.env\u{a0}"] {
            assert!(is_misnamed(name), "{name}");
        }
        for name in
            ["acme.yaml", "acme.env", "notes.txt", "acme.zip.txt", "acme yaml.txt", "acme.yaml.bak", ""]
        {
            assert!(!is_misnamed(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn stems_of_one_tenant_name_are_kin(one in "[aAbB1_ .()-]{1,6}", other in "[aAbB1_ .()-]{1,6}") {
            let name = TenantName::from_entry_id(&one);
            if name.is_some() && name == TenantName::from_entry_id(&other) {
                prop_assert!(are_kin(&one, &other));
            }
        }

        #[test]
        fn any_stem_is_its_own_kin(stem in "\\PC{0,40}") {
            prop_assert!(are_kin(&stem, &stem));
        }
    }
}
