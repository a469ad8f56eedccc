//! The words of an identity provider stand where that provider is, so that another one can be put
//! beside it without a search through the tree.

use std::collections::BTreeSet;
use std::fs;

use super::{Source, root};

/// The words of Microsoft Entra ID, in lower case.
const WORDS: [&str; 3] = ["aadsts", "entra", "microsoft"];

/// Where Entra is.
const HOME: &[&str] = &["identity/entra.rs", "identity/entra/", "bundle/validate/entra.rs"];

/// The other places, each with its reason.
const ELSEWHERE: &[(&str, &str)] = &[
    ("alerts/event/chat.rs", "the media type of an Adaptive Card"),
    ("bundle/fields.rs", "fields of the vendor's export, by name"),
    ("bundle/validate.rs", "names the module"),
    ("bundle/validate/fingerprint.rs", "takes each part of the spec apart"),
    ("bundle/validate/login.rs", "chooses the provider: there is one"),
    ("cli/args/run.rs", "the vendor's variables, by name, and the setting entra_authority"),
    ("cli/args/settings.rs", "the setting entra_authority"),
    ("cli/doctor/login.rs", "the setting entra_authority"),
    ("cli/doctor/sequence/clients.rs", "redirect URIs of clients"),
    ("cli/doctor/patient.rs", "the setting entra_authority"),
    ("cli/migrate/values.rs", "variables of the vendor's server, by name"),
    ("cli/run/variables.rs", "the vendor's variables, by name"),
    ("gateway/building.rs", "the setting entra_authority"),
    ("gateway/running.rs", "the setting entra_authority"),
    ("identity.rs", "names the module"),
    ("identity/error.rs", "the log field aadsts, and error numbers as people search them"),
    ("identity/provider_login.rs", "chooses the app by its provider"),
    ("identity/provider.rs", "the provider's variant, and the setting entra_authority"),
    ("oauth/client/redirect_uri.rs", "link schemes of Windows, which no client may have"),
    ("settings.rs", "the setting entra_authority"),
    ("settings/key.rs", "the setting entra_authority"),
    ("settings/parse.rs", "the setting entra_authority"),
    ("settings/reader.rs", "the setting entra_authority"),
    ("settings/view.rs", "the setting entra_authority"),
    ("spec.rs", "the provider's part of the spec"),
    ("spec/login.rs", "the provider's part of the spec"),
    ("telemetry/metrics.rs", "the help text of a metric"),
];

/// The words of names and texts, in lower case: `EntraSpec` and `entra_spec` have two each.
fn words(code: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::from([String::new()]);
    let mut word = String::new();
    for letter in code.chars().chain([' ']) {
        let begins =
            letter.is_ascii_uppercase() && word.chars().last().is_some_and(|last| last.is_ascii_lowercase());
        if begins || !letter.is_ascii_alphabetic() {
            words.insert(std::mem::take(&mut word).to_ascii_lowercase());
        }
        if letter.is_ascii_alphabetic() {
            word.push(letter);
        }
    }
    words
}

fn names_the_provider(code: &str) -> bool {
    words(code)
        .iter()
        .any(|word| word == "entra" || word.starts_with("aadsts") || word.starts_with("microsoft"))
}

fn is_only_for_tests(source: &Source) -> bool {
    source.is_test() || source.path.ends_with("testkit.rs")
}

#[test]
fn a_providers_words_stand_where_it_is() {
    let src = root().join("src");
    let mut listed: BTreeSet<&str> = ELSEWHERE.iter().map(|(file, _)| *file).collect();
    for source in super::sources().iter().filter(|source| !is_only_for_tests(source)) {
        let file = source.path.strip_prefix(&src).expect("below src").to_str().expect("text");
        if HOME.iter().any(|home| file.starts_with(home)) || !names_the_provider(&source.code()) {
            continue;
        }
        assert!(listed.remove(file), "{file} names one of {WORDS:?}: leave that to identity/entra");
    }
    assert!(listed.is_empty(), "these no longer name the provider, so they need not be listed: {listed:?}");
}

#[test]
fn pages_take_a_providers_words_from_its_brand() {
    for page in super::files(&root().join("templates")) {
        let text = fs::read_to_string(&page).expect("text");
        // The name of a client, which people add a tenant to.
        let text = text.replace("Microsoft Copilot Studio", "");
        assert!(!names_the_provider(&text), "{} names one of {WORDS:?}", page.display());
    }
}

#[test]
fn words_are_told_from_parts_of_words() {
    for (text, names) in [
        ("struct EntraSpec", true),
        ("entra_authority", true),
        ("\"login.microsoftonline.com\"", true),
        ("AADSTS50011", true),
        ("the central entrance", false),
        ("ENTRAILS", false),
    ] {
        assert_eq!(names_the_provider(text), names, "{text}");
    }
}
