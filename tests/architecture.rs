//! Checks the source against ARCHITECTURE.md: modules import only from lower floors, crates are
//! named only where they belong, no banned crate is built, and nothing refers to a path outside the
//! project.

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/provider_words.rs"]
mod provider_words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floors, bottom first.
const FLOORS: &[&[&str]] = &[
    &["base", "telemetry"],
    &["spec"],
    &["bundle", "settings", "routing"],
    &["backend", "certs", "identity", "store", "usage"],
    &["mcp", "oauth"],
    &["tenants"],
    &["server", "admin", "alerts"],
    &["gateway", "fuzzing"],
    &["cli", "main"],
];

/// Crates that only these modules may name, so that each choice can be revised in one place.
const RESERVED: &[(&str, &[&str])] = &[
    ("rmcp", &["mcp"]),
    ("jsonschema", &["mcp"]),
    ("zip", &["bundle"]),
    ("flate2", &["backend"]),
    ("encoding_rs", &["backend"]),
    ("serde_saphyr", &["bundle", "settings"]),
    ("notify", &["tenants"]),
    ("kube", &["tenants"]),
    ("k8s_openapi", &["tenants"]),
    ("rusqlite", &["store"]),
    ("tokio_postgres", &["store"]),
    ("deadpool", &["store"]),
    ("rcgen", &["certs"]),
    ("x509_parser", &["certs"]),
    ("rustls_platform_verifier", &["backend", "base", "certs"]),
    // Two HTTP clients: `backend`'s refuses forbidden addresses, and `certs`' must reach the CA
    // wherever it is.
    ("hyper_util::client", &["backend", "certs"]),
    ("instant_acme", &["certs"]),
    ("askama", &["admin", "oauth", "server"]),
    ("prometheus_client", &["telemetry"]),
    ("opentelemetry_proto", &["telemetry"]),
    ("prost", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("secrecy", &["base"]),
    ("clap", &["cli", "main"]),
    ("anyhow", &["cli", "main"]),
    ("jsonwebtoken", &["identity", "oauth"]),
    // For Entra, whose address comes from the settings, and for client documents with URLs that
    // strangers choose, which use a resolver of our own; for webhooks, which the operator chooses;
    // and for the receiver of traces. `backend` checks addresses and needs its own client.
    // `base` only lets it look names up.
    ("reqwest", &["alerts", "base", "identity", "oauth", "telemetry"]),
];

/// A source file.
struct Source {
    path: PathBuf,
    /// The top-level module.
    module: String,
    text: String,
}

impl Source {
    /// Returns the text without comments and test-only code: test modules in files of their own,
    /// and everything from the first inline test item on.
    fn code(&self) -> String {
        let mut code = String::new();
        let mut lines = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        while let Some(line) = lines.next() {
            if line != "#[cfg(test)]" {
                code += line;
                code.push('\n');
                continue;
            }
            let only_in_tests = lines.next().unwrap_or_default();
            if !(only_in_tests.contains("mod ") && only_in_tests.ends_with(';')) {
                break;
            }
        }
        code
    }

    /// Returns the names of the enclosing modules and its own; empty for the crate root.
    fn module_path(&self) -> Vec<String> {
        let below = self.path.strip_prefix(root().join("src")).expect("below src").with_extension("");
        let names: Vec<_> = below.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if names == ["lib"] || names == ["main"] { Vec::new() } else { names }
    }

    fn is_test(&self) -> bool {
        self.path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all files below a folder that git would track.
fn files(folder: &Path) -> Vec<PathBuf> {
    let skipped = ["target", "node_modules", ".git", ".venv"];
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // In a git worktree `.git` is a file.
        if skipped.iter().any(|skipped| name == *skipped) {
            continue;
        }
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let rust = files(&src).into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    let sources: Vec<_> = rust
        .map(|path| {
            let first = path.strip_prefix(&src).expect("below src").iter().next().expect("a name");
            let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
            Source { text: fs::read_to_string(&path).expect("text"), module, path }
        })
        .collect();
    assert!(sources.len() > 100, "the source was not found");
    sources
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|floor| floor.contains(&module));
    floor.unwrap_or_else(|| panic!("{module} has no floor: give it one here and in ARCHITECTURE.md"))
}

/// Returns the modules that a text names as `crate::module`, also within braces.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let list = rest.strip_prefix('{').and_then(|rest| rest.split("};").next());
        let candidates = match list {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        let name =
            |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
        named.extend(candidates.into_iter().filter_map(name).filter(|name| !name.is_empty()));
    }
    named
}

/// Returns whether a text names `path` as a whole word.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(&format!("{path}::"))
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[test]
fn floors_import_downwards_and_never_in_a_circle() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_test() && source.module != "lib") {
        for target in named_modules(&source.code()) {
            assert!(
                floor(&target) <= floor(&source.module),
                "{} imports upwards, from {target}",
                source.path.display()
            );
            if target != source.module {
                edges.entry(source.module.clone()).or_default().insert(target);
            }
        }
    }
    assert!(edges["gateway"].contains("server"), "imports were not understood: {edges:?}");
    while let Some(leaf) = edges.iter().find(|(_, to)| to.iter().all(|to| !edges.contains_key(to))) {
        let leaf = leaf.0.clone();
        edges.remove(&leaf);
    }
    assert!(edges.is_empty(), "these import each other: {edges:?}");
}

#[test]
fn crates_are_named_where_they_belong() {
    for source in sources().iter().filter(|source| !source.is_test()) {
        let code = source.code();
        for (name, modules) in RESERVED {
            let allowed = modules.contains(&source.module.as_str());
            assert!(allowed || !names(&code, name), "{} names {name}", source.path.display());
        }
    }
}

/// Whoever hands a host name to the system has it looked up by a thread that others need.
#[test]
fn names_are_looked_up_in_one_place() {
    let elsewhere = |source: &&Source| !source.is_test() && !source.path.ends_with("base/dns.rs");
    for source in sources().iter().filter(elsewhere) {
        for way in ["to_socket_addrs", "lookup_host", "::connect(("] {
            assert!(!source.code().contains(way), "{} looks names up by {way}", source.path.display());
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for source in sources() {
        let says = source.text.starts_with("//! ") || source.is_test();
        assert!(says, "{} does not open with //!", source.path.display());
        assert!(source.path.file_name().is_some_and(|name| name != "mod.rs"), "{}", source.path.display());
    }
}

/// Returns the crates that `deny.toml` names, each as `name` (banned) or `name@version` (built
/// beside another version).
fn named_in_deny_toml() -> (BTreeSet<String>, BTreeSet<String>) {
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let names = deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next());
    let (twice, banned): (BTreeSet<_>, BTreeSet<_>) =
        names.map(str::to_owned).partition(|name| name.contains('@'));
    assert!(banned.len() > 5, "deny.toml was not understood");
    (banned, twice)
}

/// Returns the versions of each crate that is built. The lock file also lists optional dependencies
/// that never are.
fn built_crates(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--all-features", "--edges", edges, "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8(tree.stdout).expect("text");
    let mut built: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        built.entry(name.to_owned()).or_default().insert(version.trim_start_matches('v').to_owned());
    }
    assert!(built.contains_key("rustls"), "the tree was not understood: {tree}");
    built
}

#[test]
fn nothing_banned_is_built() {
    let (banned, _) = named_in_deny_toml();
    let built = built_crates("normal,build,dev");
    for name in banned {
        assert!(!built.contains_key(&name), "{name} is banned; `cargo tree -i {name}` says who wants it");
    }
}

#[test]
fn a_crate_is_built_in_one_version_unless_it_is_named() {
    let (_, mut named) = named_in_deny_toml();
    for (name, versions) in built_crates("normal,build").into_iter().filter(|(_, all)| all.len() > 1) {
        let older: Vec<_> = versions
            .iter()
            .filter(|version| {
                let known = named.iter().find(|known| {
                    known.split_once('@').is_some_and(|(crate_name, start)| {
                        crate_name == name && version.starts_with(&format!("{start}."))
                    })
                });
                known.cloned().is_none_or(|known| !named.remove(&known))
            })
            .collect();
        assert!(older.len() <= 1, "{name} is built as {older:?}; use one, or name it in deny.toml");
    }
    assert!(named.is_empty(), "no longer built in two versions: {named:?}");
}

#[test]
fn the_project_stands_alone() {
    // Concatenated, so that this file does not contain the paths itself.
    let outside = [["..", "/shared"].concat(), ["/work", "/"].concat(), ["/home", "/"].concat()];
    for path in files(root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for pointer in &outside {
            assert!(!text.contains(pointer.as_str()), "{} points to {pointer}", path.display());
        }
    }
}

#[test]
fn the_top_level_is_what_was_agreed() {
    for name in [
        "Cargo.toml",
        "src",
        "tenants.d",
        "certs",
        "tests",
        "benches",
        "deploy",
        "Dockerfile",
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE",
        "clippy.toml",
        "deny.toml",
        "rust-toolchain.toml",
        "scripts/test.sh",
        "tenants.d/README.md",
        "certs/README.md",
    ] {
        assert!(root().join(name).exists(), "{name} is missing");
    }
}
