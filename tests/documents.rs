//! The documents are current: settings and finding codes are those of the source, and links lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use tenantd::settings::Key;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder whose names end so; build outputs and other people's packages left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let skipped = ["target", "node_modules", ".git", ".venv"];
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !skipped.iter().any(|skipped| name == *skipped) {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// What stands between back-ticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_setting_is_documented_in_its_spellings() {
    let page = read("docs/configuration.md");
    for key in Key::ALL {
        for spelling in [key.as_str().to_owned(), key.variable()] {
            assert!(quoted(&page).any(|quoted| quoted == spelling), "docs/configuration.md lacks {spelling}");
        }
    }
}

#[test]
fn every_documented_finding_exists() {
    let source: String = files(&root().join("src"), ".rs").iter().map(read).collect();
    let page = read("docs/findings.md");
    let tables = page.split("## Codes").nth(1).expect("the page lists the codes");
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let codes: Vec<String> =
        rows.flat_map(|row| quoted(&format!("`{row}")).map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(codes.len() > 50, "the tables were not understood: {codes:?}");
    for code in codes {
        assert!(source.contains(&format!("\"{code}\"")), "docs/findings.md has {code}, the source has not");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for page in files(root(), ".md") {
        let text = read(&page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let path = target.split('#').next().unwrap_or_default();
            let folder = page.parent().expect("a file has a folder");
            assert!(folder.join(path).exists(), "{} links to {target}", page.display());
        }
    }
}
