//! Builds the files that operators and attackers put into the folder.

use std::io::{Cursor, Write};
use std::path::Path;

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::base::diagnostic::{Diagnostic, Report};
use crate::base::secret::Secret;
use crate::bundle::{EntryFiles, LoadContext, LoadOutcome, list_entries, load, sample};
use crate::routing::GatewayHosts;
use crate::spec::{HostName, TenantSpec};

/// The vendor's configuration of a trained dataset.
pub(super) const SALES: &str = "\
search_url: https://portal.test/nlp-search
context_url: https://portal.test/nlp-context
api_key: key-of-sales-0001
connection_id: conn-sales-01
dataset: sales
display_name: Sales
description: Orders and customers.
trained_at: 2026-10-02T09:14:03Z
schema_version: 3
sample_questions:
  - How many orders were there last month?
semantic_model:
  entities: [{name: order, synonyms: [purchase]}]
";

/// A tenants folder in the making.
pub(super) struct TenantFixture {
    folder: tempfile::TempDir,
    pub(super) context: LoadContext,
}

impl TenantFixture {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), context: context() }
    }

    /// Creates one export `acme.zip`, with further lines in its configuration.
    pub(super) fn export(lines: &str) -> Self {
        Self::new().zip("acme.zip", &format!("{SALES}{lines}"))
    }

    /// Creates one tenant as a standalone YAML.
    pub(super) fn alone(lines: &str) -> Self {
        Self::new().file("acme.yaml", format!("{SALES}{lines}"))
    }

    /// Creates a standalone YAML in which `lines` replace the vendor's lines of the same keys.
    pub(super) fn with(lines: &str) -> Self {
        Self::new().file("acme.yaml", replaced(lines))
    }

    /// Adds an export whose configuration is `yaml`.
    pub(super) fn zip(self, name: &str, yaml: &str) -> Self {
        let bytes = archive(&[("mcp/server/configs/sales.yaml", yaml.as_bytes())]);
        self.file(name, bytes)
    }

    pub(super) fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, bytes).expect("written");
        self
    }

    pub(super) fn context(mut self, change: impl FnOnce(&mut LoadContext)) -> Self {
        change(&mut self.context);
        self
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn entries(&self) -> Vec<EntryFiles> {
        list_entries(self.path(), None).expect("listed")
    }

    /// Loads the only entry.
    pub(super) fn load(&self) -> LoadOutcome {
        let entries = self.entries();
        assert_eq!(entries.len(), 1, "one entry expected: {entries:?}");
        load(&entries[0], &self.context)
    }

    /// Returns the tenant, which must be valid.
    pub(super) fn spec(&self) -> TenantSpec {
        let loaded = self.load();
        let text = self.text(&loaded.report);
        loaded.spec.unwrap_or_else(|| panic!("refused:\n{text}"))
    }

    /// Returns the codes of the findings.
    pub(super) fn codes(&self) -> Vec<&'static str> {
        let loaded = self.load();
        assert_eq!(loaded.spec.is_none(), loaded.report.has_errors(), "{}", self.text(&loaded.report));
        loaded.report.iter().map(|diagnostic| diagnostic.code).collect()
    }

    /// Returns the findings as people see them, with paths that do not depend on the machine.
    pub(super) fn findings(&self) -> String {
        let loaded = self.load();
        assert_eq!(loaded.spec.is_none(), loaded.report.has_errors());
        self.text(&loaded.report)
    }

    fn text(&self, report: &Report) -> String {
        let root = format!("{}/", self.path().display());
        report.iter().map(shown).collect::<String>().replace(&root, "")
    }
}

fn shown(diagnostic: &Diagnostic) -> String {
    let severity = format!("{:?}", diagnostic.severity).to_ascii_lowercase();
    let mut out = format!("{severity}[{}] {}\n", diagnostic.code, diagnostic.message);
    if let Some(location) = &diagnostic.location {
        out.push_str(&format!("  at {location}\n"));
        out.extend(location.excerpt.as_ref().map(|excerpt| format!("   | {excerpt}\n")));
    }
    out.extend(diagnostic.help.as_ref().map(|help| format!("  help: {help}\n")));
    out
}

fn replaced(lines: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let names: Vec<String> = lines.lines().filter(|line| !line.starts_with([' ', '-'])).map(name).collect();
    let kept = SALES.lines().filter(|line| line.starts_with(' ') || !names.contains(&name(line)));
    kept.chain(lines.lines()).map(|line| format!("{line}\n")).collect()
}

pub(super) fn context() -> LoadContext {
    LoadContext {
        hosts: GatewayHosts::from_names(HostName::parse("mcp.test")),
        own_addresses: vec!["0.0.0.0:443".parse().expect("an address")],
        env: [("TENANT_ACME_KEY".to_owned(), Secret::new("variable-key-0001"))].into(),
        ..sample::sample_context()
    }
}

pub(super) fn options() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(0o644)
}

/// Returns a zip with these entries besides the vendor's launcher.
pub(super) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let launcher: [(&str, &[u8]); 2] =
        [("mcp/run.sh", b"#!/bin/sh\n"), ("mcp/server/main.py", b"# not run\n")];
    for (name, bytes) in launcher.iter().chain(entries) {
        zip.start_file(*name, options()).expect("started");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("finished").into_inner()
}

/// Replaces bytes everywhere, for names that a well-behaved writer refuses to write.
pub(super) fn patched(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        at += 1;
    }
    bytes
}
