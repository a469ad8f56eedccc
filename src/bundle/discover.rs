//! Finds which files belong to one entry: groups them by entry id, and finds files whose names are
//! almost an entry's (`lookalike`).
//!
//! Ignored silently: dot files, `*~`, `#*#`, `*.tmp`, `*.part`, `*.filepart`, `*.crdownload`,
//! `*.swp`, `*.status.json`, `*.usage.json`, `README*`, `LICENSE*`, `*.md`, `*.txt` (not
//! `*.yaml.txt`), `lost+found`. [`find_stray_files`] reports all other files that belong to no
//! tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::confinement::secret_file_owner;
use super::{EntryFiles, archive, lookalike};
use crate::base::diagnostic::{Diagnostic, Location, Report};
use crate::base::similarity;
use crate::base::{disk, permission};

const EXTENSIONS: &[&str] = &["zip", "yaml", "yml", "env"];
/// Compose files, which lie beside the export of a Compose project and are no tenant's.
const COMPOSE_FILES: [&str; 6] = [
    "compose.yaml",
    "compose.yml",
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];
const MAX_LISTED: usize = 1_000;
/// Up to this many entries are looked up by name; for more of them one listing is cheaper.
const MAX_PROBED: usize = 32;

/// The files in the folder with one entry id.
#[derive(Default)]
pub(super) struct EntryGroup {
    zips: Vec<PathBuf>,
    yamls: Vec<PathBuf>,
    envs: Vec<PathBuf>,
    folder: Option<PathBuf>,
    /// A misnamed configuration; its whole name is the entry id.
    misnamed: Option<PathBuf>,
    /// Whether it is the only entry of a gateway.
    is_single: bool,
}

/// The contents of the tenants folder.
#[derive(Debug, Default)]
pub struct FolderListing {
    /// The entries, ordered by entry id.
    pub entries: Vec<EntryFiles>,
    /// The names of misnamed configurations (`acme.yaml.txt`), whether or not a tenant has a
    /// similar name.
    pub misnamed: Vec<String>,
}

/// Lists a folder and groups its files into entries, ordered by entry id. `only` restricts the
/// listing to some entry ids; if they are few they are looked up by name, at a cost that does not
/// depend on the size of the folder. Ignored names (dot files, `*~`, `*.tmp`, `*.part`, `*.swp`,
/// `*.status.json`, our own README) are omitted. Lookalikes are found only among the listed
/// entries, so `only` must include theirs.
///
/// # Errors
/// Fails if the folder cannot be read.
pub fn list_entries(folder: &Path, only: Option<&BTreeSet<String>>) -> io::Result<Vec<EntryFiles>> {
    list_folder(folder, only).map(|listing| listing.entries)
}

/// Lists a folder like `list_entries`, including misnamed configurations.
///
/// # Errors
/// Fails if the folder cannot be read.
pub fn list_folder(folder: &Path, only: Option<&BTreeSet<String>>) -> io::Result<FolderListing> {
    let probed = only.filter(|only| only.len() <= MAX_PROBED).map(|only| probe_groups(folder, only));
    let groups = match probed.filter(|groups| !groups.values().any(EntryGroup::has_duplicates)) {
        Some(groups) => groups,
        // On a case-insensitive file system several names of a kind may be one file; only a listing
        // tells.
        None => read_groups(folder, only)?,
    };
    Ok(build_listing(groups))
}

type EntryGroups = BTreeMap<String, EntryGroup>;

fn build_listing(groups: EntryGroups) -> FolderListing {
    let lone = find_lone_configs(&groups);
    let mut listing = FolderListing::default();
    for (stem, group) in groups {
        if group.misnamed.is_some() {
            listing.misnamed.push(stem);
            continue;
        }
        let namesakes = match lone.is_empty() {
            true => Vec::new(),
            false => find_lookalikes(&stem, &lone),
        };
        let mut entry = group.into_entry_files(stem);
        entry.lookalikes.extend(namesakes);
        listing.entries.push(entry);
    }
    listing
}

/// Configurations without a zip or folder, each with its entry id, by their lookalike keys.
type LoneConfigs = BTreeMap<String, Vec<(String, PathBuf)>>;

fn find_lone_configs(groups: &EntryGroups) -> LoneConfigs {
    let mut lone = LoneConfigs::new();
    for (stem, group) in groups.iter().filter(|(_, group)| group.zips.is_empty() && group.folder.is_none()) {
        let files = group.yamls.iter().chain(&group.envs).chain(&group.misnamed);
        let files: Vec<_> = files.map(|file| (stem.clone(), file.clone())).collect();
        for kin in lookalike::lookalike_keys(stem) {
            lone.entry(kin).or_default().extend(files.iter().cloned());
        }
    }
    lone
}

fn find_lookalikes(stem: &str, lone: &LoneConfigs) -> Vec<PathBuf> {
    let kin = lookalike::lookalike_keys(stem);
    let files = kin.iter().filter_map(|kin| lone.get(kin)).flatten();
    let others: BTreeSet<_> =
        files.filter(|(other, _)| other != stem).map(|(_, file)| file.clone()).collect();
    others.into_iter().collect()
}

fn read_groups(folder: &Path, only: Option<&BTreeSet<String>>) -> io::Result<EntryGroups> {
    let mut groups = EntryGroups::new();
    for entry in std::fs::read_dir(folder)? {
        let mut path = entry?.path();
        // `read_dir` returns paths with spare capacity, and these are kept.
        path.shrink_to_fit();
        let Some(name) = path.file_name().and_then(OsStr::to_str).filter(|name| !is_ignored(name)) else {
            continue;
        };
        let stem = entry_id_of_name(name);
        if only.is_some_and(|only| !only.contains(stem)) {
            continue;
        }
        if lookalike::is_misnamed(name) {
            if !path.is_dir() {
                groups.entry(name.to_owned()).or_default().misnamed = Some(path.clone());
            }
            continue;
        }
        let has_extension = stem.len() < name.len();
        if has_extension || path.is_dir() {
            groups.entry(stem.to_owned()).or_default().add_file(path, has_extension);
        }
    }
    Ok(groups)
}

/// Finds the same groups as [`read_groups`], by looking up each name.
fn probe_groups(folder: &Path, stems: &BTreeSet<String>) -> EntryGroups {
    let mut groups = EntryGroups::new();
    for stem in stems {
        let names = EXTENSIONS.iter().flat_map(|extension| case_variants(extension));
        let files = names.map(|extension| format!("{stem}.{extension}"));
        for name in files.filter(|name| !is_ignored(name)) {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                groups.entry(stem.clone()).or_default().add_file(path, true);
            }
        }
        let path = folder.join(stem);
        if lookalike::is_misnamed(stem) {
            if !is_ignored(stem) && path.symlink_metadata().is_ok() && !path.is_dir() {
                groups.entry(stem.clone()).or_default().misnamed = Some(path);
            }
            continue;
        }
        if !is_ignored(stem) && entry_id_of_name(stem) == stem && path.is_dir() {
            groups.entry(stem.clone()).or_default().add_file(path, false);
        }
    }
    groups
}

/// Finds the files in a folder with one entry id.
pub(super) fn probe_group(folder: &Path, stem: &str) -> Option<EntryGroup> {
    probe_groups(folder, &BTreeSet::from([stem.to_owned()])).remove(stem)
}

/// Returns the files in a folder whose names are almost those of an entry.
pub(super) fn lookalikes_in(folder: &Path, stem: &str) -> io::Result<Vec<PathBuf>> {
    Ok(find_lookalikes(stem, &find_lone_configs(&read_groups(folder, None)?)))
}

/// Returns all combinations of lower and upper case of a word.
fn case_variants(word: &str) -> impl Iterator<Item = String> {
    (0..1_u32 << word.len()).map(move |capitals| {
        let spelled = |(at, letter): (usize, char)| match capitals >> at & 1 {
            0 => letter,
            _ => letter.to_ascii_uppercase(),
        };
        word.chars().enumerate().map(spelled).collect()
    })
}

/// Returns the entry as it would be with this file in the folder.
pub(super) fn entry_with_file(folder: &Path, stem: &str, file: &Path) -> io::Result<EntryFiles> {
    let mut groups = read_groups(folder, None)?;
    let group = groups.entry(stem.to_owned()).or_default();
    for files in [&mut group.zips, &mut group.yamls, &mut group.envs] {
        files.retain(|known| known != file);
    }
    group.add_file(file.to_owned(), true);
    let entry = build_listing(groups).entries.into_iter().find(|entry| entry.id == stem);
    Ok(entry.expect("a group with a file in it is an entry"))
}

/// Returns the entry id that a path in the folder belongs to, `None` for ignored names. For file
/// events: the entry to look at.
pub fn entry_id_of(folder: &Path, path: &Path) -> Option<String> {
    let inside = path.strip_prefix(folder).ok()?;
    let name = inside.components().next()?.as_os_str().to_str()?;
    match inside.components().count() {
        _ if is_ignored(name) => None,
        1 => Some(entry_id_of_name(name).to_owned()),
        // An event anywhere below a tenant's folder may be the `..data` link of a mounted Secret
        // changing.
        _ => Some(name.to_owned()),
    }
}

/// Returns a notice for each file in the folder that belongs to no entry and is not ignored
/// silently.
///
/// # Errors
/// Fails if the folder cannot be read.
pub fn find_stray_files(folder: &Path) -> io::Result<Report> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(MAX_LISTED * 10) {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str);
        let is_secret = name.and_then(secret_file_owner).is_some_and(|stem| has_own_file(folder, stem));
        let is_left_out = |name: &str| !is_ignored(name) && entry_id_of_name(name) == name && !path.is_dir();
        let stray = !is_secret && name.is_none_or(is_left_out);
        if stray {
            names.push(path);
        }
    }
    names.sort();
    let mut report = Report::new();
    for path in names.into_iter().take(MAX_LISTED) {
        let name = path.file_name().and_then(OsStr::to_str).filter(|name| lookalike::is_misnamed(name));
        let help = match name.map(lookalike::intended_name) {
            Some(meant) => format!("rename it to {meant} if it is part of a tenant"),
            None => {
                "a tenant consists of .zip, .yaml, .yml and .env files, or of a folder with them".to_owned()
            }
        };
        report.push(
            Diagnostic::notice("stray-file", "this file belongs to no tenant; it is ignored")
                .help(help)
                .at(Location::file(path)),
        );
    }
    Ok(report)
}

/// Whether the entry has a file of the operator's; only those may name files with secrets.
fn has_own_file(folder: &Path, stem: &str) -> bool {
    ["yaml", "yml", "env"].iter().any(|extension| folder.join(format!("{stem}.{extension}")).is_file())
}

fn is_ignored(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut ends = [
        "~",
        ".tmp",
        ".part",
        ".filepart",
        ".crdownload",
        ".swp",
        ".status.json",
        ".usage.json",
        ".md",
        ".txt",
    ]
    .iter();
    name.starts_with('.')
        || (name.starts_with('#') && name.ends_with('#'))
        || (ends.any(|extension| lower.ends_with(extension)) && !lookalike::is_misnamed(name))
        || lower.starts_with("readme")
        || lower.starts_with("license")
        || lower == "lost+found"
}

/// Returns the entry id: `acme.zip` → `acme`. A name without one of our extensions is its own entry
/// id.
pub(super) fn entry_id_of_name(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension))
            if !stem.is_empty() && EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) =>
        {
            stem
        }
        _ => name,
    }
}

fn lowercase_extension(path: &Path) -> String {
    path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase()
}

impl EntryGroup {
    fn add_file(&mut self, path: PathBuf, has_extension: bool) {
        match lowercase_extension(&path).as_str() {
            _ if !has_extension => self.folder = Some(path),
            "zip" => self.zips.push(path),
            "yaml" | "yml" => self.yamls.push(path),
            // `.env` itself has no extension.
            _ => self.envs.push(path),
        }
    }

    /// Makes it the only entry of a gateway, at the path that was given.
    pub(super) fn set_single(&mut self, path: &Path) {
        self.is_single = true;
        self.folder = None;
        let is_known =
            [&self.zips, &self.yamls, &self.envs].into_iter().any(|files| files.iter().any(|it| it == path));
        if !is_known {
            self.add_file(path.to_owned(), !path.is_dir());
        }
    }

    /// Whether there are several files of one kind.
    fn has_duplicates(&self) -> bool {
        [&self.zips, &self.yamls, &self.envs].into_iter().any(|files| files.len() > 1)
    }

    pub(super) fn into_entry_files(mut self, stem: String) -> EntryFiles {
        let mut report = Report::new();
        let beside = !(self.zips.is_empty() && self.yamls.is_empty() && self.envs.is_empty());
        let folder = self.folder.take();
        let (mut unpacked, mut namesakes) = (Vec::new(), Vec::new());
        if let Some(folder) = &folder {
            if beside {
                report.push(folder_and_file_error(folder));
            } else {
                (unpacked, namesakes) = self.collect_folder(folder, &mut report);
            }
        }
        for (kind, files) in [("zip", &mut self.zips), ("yaml", &mut self.yamls), ("env", &mut self.envs)] {
            files.sort();
            if files.len() > 1 {
                report.push(duplicate_files_error(kind, files));
            }
        }
        if let (Some(zip), false) = (self.zips.first(), unpacked.is_empty()) {
            report.push(
                Diagnostic::error("two-exports", "the folder contains a zip and an unpacked export")
                    .help("remove one of them")
                    .at(Location::file(zip)),
            );
        }
        let files = self.zips.into_iter().chain(unpacked).chain(self.yamls).chain(self.envs).collect();
        EntryFiles { id: stem, folder: folder.filter(|_| !beside), files, lookalikes: namesakes, report }
    }

    /// Collects the files of a tenant's own folder. Returns the configurations of an export that
    /// was unpacked there, and the misnamed configurations.
    fn collect_folder(&mut self, folder: &Path, report: &mut Report) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let names = match list_files(folder) {
            Ok(names) => names,
            Err(error) => {
                let (code, help) = match disk::is_resource_exhaustion(&error) {
                    true => (super::OUT_OF_RESOURCES, super::OUT_OF_RESOURCES_HELP.to_owned()),
                    false => ("unreadable", permission::read_help(folder, &error)),
                };
                let what = format!("the folder cannot be read: {}", disk::why(&error));
                report.push(Diagnostic::error(code, what).help(help).at(Location::file(folder)));
                return (Vec::new(), Vec::new());
            }
        };
        let is_anothers = |path: &Path| self.is_single && is_compose_file(path);
        let files: Vec<_> = names.iter().filter(|path| is_tenant_file(path) && !is_anothers(path)).collect();
        for path in files {
            self.add_file(path.clone(), true);
        }
        let unpacked = find_unpacked_configs(folder, &names);
        if self.is_single && !unpacked.is_empty() {
            // The vendor's server read the unpacked files, and so where somebody edited them.
            self.zips.drain(..).for_each(|zip| report.push(packed_export_warning(&zip)));
        }
        if unpacked.is_empty() && self.zips.is_empty() && self.yamls.is_empty() && self.envs.is_empty() {
            report.push(empty_folder_error(folder));
        }
        let misnamed = names.into_iter().filter(|path| is_misnamed_in_folder(path)).collect();
        (unpacked, misnamed)
    }
}

/// Whether a file in a tenant's own folder is one of its files. `.env` itself is: Compose projects
/// use that name.
fn is_tenant_file(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name == ".env" || (!is_ignored(name) && entry_id_of_name(name).len() < name.len())
}

fn is_compose_file(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| COMPOSE_FILES.contains(&name))
}

fn is_misnamed_in_folder(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let is_hidden = name.starts_with('.') && lookalike::intended_name(name) != ".env";
    lookalike::is_misnamed(name) && !is_hidden && !path.is_dir()
}

/// Returns the configurations of an export that was unpacked in a folder.
pub(super) fn unpacked_configs(folder: &Path) -> Vec<PathBuf> {
    find_unpacked_configs(folder, &list_files(folder).unwrap_or_default())
}

/// Whether the folder itself is an unpacked export, and so a single tenant.
pub fn is_unpacked_export(folder: &Path) -> bool {
    folder.join("mcp/server/configs").is_dir()
}

/// Returns a sibling folder with a similar name that contains tenants.
pub fn folder_like(path: &Path) -> Option<PathBuf> {
    let around = path.parent().filter(|around| !around.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folders =
        list_files(around).unwrap_or_default().into_iter().filter(|other| other.is_dir() && other != path);
    let named: Vec<_> = folders
        .filter_map(|folder| {
            Some((folder.file_name()?.to_str()?.to_ascii_lowercase().replace(['-', '.', ' '], "_"), folder))
        })
        .collect();
    let nearest = similarity::closest(
        path.file_name()?.to_str()?,
        named.iter().map(|(name, folder)| (name.as_str(), folder)),
    )?;
    let has_tenants = list_folder(nearest, None).is_ok_and(|listing| !listing.entries.is_empty());
    has_tenants.then(|| nearest.clone())
}

/// Returns the files `mcp/server/configs/*.yaml` of the folder and of the folders directly inside
/// it.
fn find_unpacked_configs(folder: &Path, names: &[PathBuf]) -> Vec<PathBuf> {
    let roots = std::iter::once(folder).chain(names.iter().map(PathBuf::as_path));
    let mut configs: Vec<PathBuf> = roots
        .filter(|root| !root.file_name().is_some_and(|name| name.to_string_lossy().starts_with("..")))
        .filter_map(|root| list_files(&root.join("mcp/server/configs")).ok())
        .flatten()
        .filter(|path| {
            let inside = path.strip_prefix(folder).ok().and_then(Path::to_str);
            inside.is_some_and(|inside| archive::parse_dataset(&inside.replace('\\', "/")).is_some())
        })
        .collect();
    configs.sort();
    configs
}

fn list_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
        .take(MAX_LISTED)
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

fn empty_folder_error(folder: &Path) -> Diagnostic {
    Diagnostic::error("folder-empty", format!("No server.zip found at {}", folder.display()))
        .help("put the export into the folder as server.zip, or a complete tenant as a .yaml")
        .at(Location::file(folder))
}

fn packed_export_warning(zip: &Path) -> Diagnostic {
    Diagnostic::warning("zip-ignored", "the export is unpacked beside this zip; the zip is ignored")
        .help("move the zip away; to use it, unpack it here, or give its path instead of the folder's")
        .at(Location::file(zip))
}

fn folder_and_file_error(folder: &Path) -> Diagnostic {
    Diagnostic::error(
        "folder-and-file",
        "a folder and a file have the same name; it is not clear which of them is the tenant",
    )
    .help("move the files into the folder, or remove the folder")
    .at(Location::file(folder))
}

fn duplicate_files_error(kind: &str, files: &[PathBuf]) -> Diagnostic {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).take(10).collect();
    Diagnostic::error("several-files", format!("the tenant has several {kind} files: {}", names.join(", ")))
        .help("keep one of them")
        .at(Location::file(&files[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            match name.ends_with('/') {
                true => std::fs::create_dir_all(path).expect("made"),
                false => std::fs::write(path, b"").expect("written"),
            }
        }
        folder
    }

    fn found(names: &[&str]) -> Vec<(String, Vec<String>, Vec<&'static str>)> {
        let folder = folder(names);
        let name = |path: &PathBuf| path.strip_prefix(folder.path()).expect("inside").display().to_string();
        list_entries(folder.path(), None)
            .expect("listed")
            .into_iter()
            .map(|entry| {
                let codes = entry.report.iter().map(|diagnostic| diagnostic.code).collect();
                (entry.id, entry.files.iter().map(name).collect(), codes)
            })
            .collect()
    }

    #[test]
    fn files_are_grouped_by_stem_in_order_of_precedence() {
        let names = [
            "b.yml",
            "acme.env",
            "acme.yaml",
            "acme.zip",
            "acme.status.json",
            ".x.zip",
            "y.zip~",
            "README.md",
        ];
        let all = found(&names);
        assert_eq!(
            all[0],
            ("acme".into(), vec!["acme.zip".into(), "acme.yaml".into(), "acme.env".into()], vec![])
        );
        assert_eq!(all[1], ("b".into(), vec!["b.yml".into()], vec![]));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn what_is_looked_for_by_name_is_what_a_listing_finds() {
        let names = [
            "a.zip",
            "a.YaMl",
            "b/",
            "b/server.zip",
            "c.env",
            "c.ENV",
            "d.zip.zip",
            "readme.yaml",
            "e",
            "f.d/",
            "g.zip/",
        ];
        let folder = folder(&names);
        let stems: BTreeSet<String> =
            ["a", "b", "c", "d", "d.zip", "e", "f.d", "g", "readme", "x"].map(str::to_owned).into();
        let listed = read_groups(folder.path(), Some(&stems)).expect("listed");
        let entries = |groups: EntryGroups| -> Vec<EntryFiles> { build_listing(groups).entries };
        let (listed, probed) = (entries(listed), entries(probe_groups(folder.path(), &stems)));
        assert_eq!(listed, probed);
        assert_eq!(listed.len(), 6, "{listed:?}");
    }

    #[test]
    fn doubtful_groups_are_findings() {
        assert_eq!(found(&["a.yaml", "a.yml"])[0].2, ["several-files"]);
        assert_eq!(found(&["a.zip", "a.ZIP"])[0].2, ["several-files"]);
        assert_eq!(found(&["a/x.zip", "a/y.zip"])[0].2, ["several-files"]);
        assert_eq!(found(&["a.yaml", "a/server.zip"])[0].2, ["folder-and-file"]);
        assert_eq!(found(&["a/server.zip", "a/mcp/server/configs/x.yaml"])[0].2, ["two-exports"]);
        assert_eq!(found(&["a/"])[0].2, ["folder-empty"]);
    }

    #[test]
    fn folders_are_tenants() {
        assert_eq!(
            found(&["a/server.zip", "a/a.yaml", "a/.env"])[0].1,
            ["a/server.zip", "a/a.yaml", "a/.env"]
        );
        let unpacked = &found(&["a/mcp/server/configs/s.yaml", "a/mcp/run.sh", "a/own.yaml"])[0];
        assert_eq!(unpacked.1, ["a/mcp/server/configs/s.yaml", "a/own.yaml"]);
        assert_eq!(found(&["a/w/mcp/server/configs/s.yaml"])[0].1, ["a/w/mcp/server/configs/s.yaml"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_mounted_secret_is_read_through_its_links() {
        let folder = folder(&["acme/..2026_11/server.zip", "acme/..2026_11/acme.yaml"]);
        let acme = folder.path().join("acme");
        std::os::unix::fs::symlink("..2026_11", acme.join("..data")).expect("linked");
        for name in ["server.zip", "acme.yaml"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), acme.join(name)).expect("linked");
        }
        let entries = list_entries(folder.path(), None).expect("listed");
        assert_eq!(entries[0].files, [acme.join("server.zip"), acme.join("acme.yaml")]);
    }

    #[test]
    fn events_are_told_their_stem() {
        let stem = |path: &str| entry_id_of(Path::new("/t"), &Path::new("/t").join(path));
        assert_eq!(stem("acme.zip").as_deref(), Some("acme"));
        assert_eq!(stem("acme.prod.yaml").as_deref(), Some("acme.prod"));
        assert_eq!(stem("acme/..data").as_deref(), Some("acme"));
        assert_eq!(stem("acme").as_deref(), Some("acme"));
        assert_eq!(stem("acme.yaml.txt").as_deref(), Some("acme.yaml.txt"));
        for ignored in [
            "acme.status.json",
            "acme.usage.json",
            ".acme.zip",
            "acme.zip~",
            "acme.zip.part",
            "README.md",
            "",
        ] {
            assert_eq!(stem(ignored), None, "{ignored}");
        }
    }

    fn named_almost(names: &[&str]) -> Vec<(String, Vec<String>)> {
        let folder = folder(names);
        let name = |path: &PathBuf| path.strip_prefix(folder.path()).expect("inside").display().to_string();
        let entries = list_entries(folder.path(), None).expect("listed");
        entries
            .into_iter()
            .map(|entry| (entry.id, entry.lookalikes.iter().map(name).collect::<Vec<_>>()))
            .filter(|(_, namesakes)| !namesakes.is_empty())
            .collect()
    }

    #[test]
    fn configurations_that_are_named_almost_like_a_tenant_are_its_namesakes() {
        for overlay in [
            "Beta.yaml",
            "beta (1).yaml",
            "beta.zip.yaml",
            "beta.yaml.txt",
            "beta.yaml ",
            "beta.env.txt",
            "BETA.ENV.TXT",
            "beta - Copy.yml",
        ] {
            let found = named_almost(&["beta.zip", overlay]);
            assert_eq!(found, [("beta".to_owned(), vec![overlay.to_owned()])], "{overlay}");
        }
        let found = named_almost(&["mu\u{308}ller.yaml", "m\u{fc}ller.zip"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(named_almost(&["beta/server.zip", "Beta.yaml"]).len(), 1);
        assert_eq!(
            named_almost(&["beta/server.zip", "beta/.env.txt", "beta/x.yaml.txt"]),
            [("beta".to_owned(), vec!["beta/.env.txt".to_owned(), "beta/x.yaml.txt".to_owned()])]
        );
        // A zip with the overlay's own name is the one that the overlay restricts.
        assert!(named_almost(&["beta.zip", "beta (1).zip", "beta (1).yaml", "gamma.yaml"]).is_empty());
    }

    #[test]
    fn a_folder_of_almost_that_name_is_found_if_it_has_tenants() {
        let around = folder(&["tenants.d/acme.yaml", "tenant.x/", "other/acme.yaml"]);
        let path = |name: &str| around.path().join(name);
        for slip in ["tenats.d", "tenants-d", "Tenants.d", "tenants"] {
            assert_eq!(folder_like(&path(slip)), Some(path("tenants.d")), "{slip}");
        }
        assert_eq!(folder_like(&path("elsewhere")), None);
        std::fs::remove_file(path("tenants.d/acme.yaml")).expect("removed");
        assert_eq!(folder_like(&path("tenats.d")), None, "an empty one says nothing");
    }

    #[test]
    fn strays_are_named() {
        let names = ["acme.zip", "acme.yaml", "acme.key", "acme.json", "other.key", "README.md", "x/"];
        let folder = folder(&names);
        let report = find_stray_files(folder.path()).expect("listed");
        let named = |finding: &Diagnostic| {
            let file = &finding.location.as_ref().expect("a place").file;
            file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        assert_eq!(report.iter().map(named).collect::<Vec<_>>(), ["acme.json", "other.key"]);
    }
}
