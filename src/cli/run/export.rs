//! The export that is served: where it is, and what the vendor's server says of it.

use std::path::{Path, PathBuf};

use super::refusal::StartRefusal;
use super::start_log::StartLog;
use super::tree;
use crate::bundle::{self, EntryFiles};

/// Where a container has its export.
pub(in crate::cli) const MOUNTED_ZIP: &str = "/app/server.zip";

/// An export, or another tenant.
pub(super) struct Export {
    /// Its absolute path: a file or a folder.
    pub(super) path: PathBuf,
    pub(super) entry: EntryFiles,
    kind: ExportKind,
}

enum ExportKind {
    /// A zip, by the path as it was given.
    Zip(PathBuf),
    /// An unpacked export, or a file of the operator's.
    Unpacked,
}

impl Export {
    /// Finds the export at a path, or where one is expected.
    pub(super) fn find(given: Option<&Path>) -> Result<Self, StartRefusal> {
        let (shown, path) = match given {
            Some(path) => (path.to_owned(), tree::above_mcp(path)),
            None => match tree::find_here() {
                Some(tree) => (tree.clone(), tree),
                None => (MOUNTED_ZIP.into(), MOUNTED_ZIP.into()),
            },
        };
        let path = std::path::absolute(&path).unwrap_or(path);
        let listing = bundle::list_single(&path);
        let Some(entry) = listing.entries.into_iter().next() else {
            return Err(missing(&shown, given.is_some()));
        };
        if path.is_dir() && entry.files.is_empty() {
            return Err(empty_folder(&shown, &entry));
        }
        let zip = entry
            .files
            .iter()
            .find(|file| file.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip")));
        let kind = match zip {
            Some(zip) if *zip == path => ExportKind::Zip(shown),
            Some(zip) => ExportKind::Zip(zip.clone()),
            None => ExportKind::Unpacked,
        };
        Ok(Self { path, entry, kind })
    }

    /// Whether it is a zip.
    pub(super) fn is_zip(&self) -> bool {
        matches!(self.kind, ExportKind::Zip(_))
    }

    /// Returns the folder in which the state is by default.
    pub(super) fn default_state(&self) -> PathBuf {
        match self.path.is_dir() {
            true => self.path.join("state"),
            false => "state".into(),
        }
    }

    /// Returns what the configuration is called: its dataset, or the name of its file.
    pub(super) fn config_name(&self, dataset: Option<&str>) -> String {
        let stem = || self.entry.files.first().and_then(|file| file.file_stem());
        match dataset {
            Some(dataset) => dataset.to_owned(),
            None => stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        }
    }

    /// Prints what the vendor's server prints of its configuration.
    pub(super) fn announce(&self, dataset: Option<&str>, lines: &mut StartLog) {
        if let ExportKind::Zip(zip) = &self.kind {
            lines.print(&format!("Extracting config from {}...", zip.display()));
            let Some(dataset) = dataset else { return };
            lines.print(&format!("Extracted: {dataset}.yaml"));
            lines.print("Extraction complete.");
        }
        if dataset.is_some() || !bundle::is_unpacked_export(&self.path) {
            lines.print(&format!("Auto-detected config: {}", self.config_name(dataset)));
        }
    }
}

fn missing(path: &Path, is_given: bool) -> StartRefusal {
    let help = match is_given {
        true => "check the path: it must be mcp_export.zip, or the folder in which it was unpacked",
        false => {
            "in a container, mount the export there (-v /opt/tursio/mcp_export.zip:/app/server.zip:ro; with \
             Compose, check ZIP_PATH in .env); elsewhere give its path: tenantd run /opt/tursio-mcp"
        }
    };
    StartRefusal::new(format!("No server.zip found at {}", path.display())).help(help)
}

/// The refusal of a folder without a tenant. Docker makes an empty one where the mounted file does
/// not exist.
fn empty_folder(path: &Path, entry: &EntryFiles) -> StartRefusal {
    if bundle::is_unpacked_export(path) {
        let configs = path.join("mcp/server/configs");
        return StartRefusal::new(format!("No .yaml config files found in {}", configs.display()))
            .help("unpack mcp_export.zip here again, or export it again from the portal");
    }
    if !entry.report.iter().any(|finding| finding.code == "folder-empty") {
        return StartRefusal::from_report(&entry.report);
    }
    let help = match path == Path::new(MOUNTED_ZIP) {
        true => {
            "it is an empty folder, which Docker makes if the file on the host does not exist: check the path \
             before the colon (ZIP_PATH in .env), and start the container anew"
        }
        false => "unpack mcp_export.zip there, or give the zip's path",
    };
    StartRefusal::new(format!("No server.zip found at {}", path.display())).help(help)
}
