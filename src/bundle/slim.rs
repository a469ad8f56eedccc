//! Makes an export small: keeps its configurations, which are all that is ever read of it.

use std::path::Path;

use super::BoxedDiagnostic;
use super::archive::{Archive, ArchiveError};
use super::pack::pack;
use crate::base::diagnostic::{Diagnostic, Location};

/// An export without the files that nothing reads.
pub struct SlimExport {
    /// The new archive.
    pub bytes: Vec<u8>,
    /// The names in the archive of what it kept.
    pub kept: Vec<String>,
}

impl SlimExport {
    /// Keeps the configurations of an export, each under its own name.
    ///
    /// # Errors
    /// A finding about `file`: it is no archive that a gateway would read, a name in it cannot be
    /// read, or it has no configuration.
    pub fn from_export(file: &Path, bytes: Vec<u8>) -> Result<Self, BoxedDiagnostic> {
        let at = || Location::file(file);
        let refused = |fault: ArchiveError| {
            Box::new(Diagnostic::error(fault.code(), fault.to_string()).help(fault.help()).at(at()))
        };
        let mut archive = Archive::open(bytes).map_err(refused)?;
        if let Some(config) = archive.configs.iter().find(|config| config.is_name_guessed) {
            let message = format!("the name of {:?} is not UTF-8", config.entry);
            let help = "rename the file in the archive, with letters of plain ASCII";
            return Err(Box::new(Diagnostic::error("zip-names", message).help(help).at(at())));
        }
        if archive.configs.is_empty() {
            let help = "it should be at mcp/server/configs/<dataset>.yaml; use mcp_export.zip as exported";
            let message = "the archive has no configuration";
            return Err(Box::new(Diagnostic::error("config-missing", message).help(help).at(at())));
        }
        let mut kept = Vec::with_capacity(archive.configs.len());
        for which in 0..archive.configs.len() {
            kept.push((archive.configs[which].entry.clone(), archive.text(which).map_err(refused)?));
        }
        let files = kept.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        let bytes = pack(files).map_err(|error| {
            let message = format!("its configurations cannot be packed: {error}");
            Box::new(Diagnostic::error("zip-damaged", message).at(at()))
        })?;
        Ok(Self { bytes, kept: kept.into_iter().map(|(name, _)| name).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{LoadOutcome, list_entries, load, sample};
    use super::*;

    const YAML: &str = "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\n\
                        connection_id: c\napi_key: key-0123456789\n";

    fn load_export(bytes: &[u8]) -> LoadOutcome {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("acme.zip"), bytes).expect("written");
        load(&list_entries(folder.path(), None).expect("listed")[0], &sample::sample_context())
    }

    #[test]
    fn a_slim_export_is_the_same_tenant() {
        let padding = "x".repeat(5_000);
        let whole = sample::build_export("sales", &format!("{YAML}# {padding}\n"));
        let slim = SlimExport::from_export(Path::new("acme.zip"), whole.clone()).expect("a slim export");
        assert_eq!(slim.kept, ["mcp/server/configs/sales.yaml"]);
        assert!(slim.bytes.len() < whole.len());
        let (before, after) = (load_export(&whole), load_export(&slim.bytes));
        assert!(before.spec.is_some(), "{:?}", before.report);
        assert_eq!((after.spec, after.digest), (before.spec, before.digest), "not even a new revision");
    }

    #[test]
    fn what_is_no_export_is_refused_with_a_finding() {
        let code =
            |bytes: Vec<u8>| SlimExport::from_export(Path::new("a.zip"), bytes).err().map(|it| it.code);
        assert_eq!(code(Vec::new()), Some("zip-incomplete"));
        assert_eq!(code(pack([("readme.txt", &b"hello"[..])]).expect("packed")), Some("config-missing"));
    }
}
