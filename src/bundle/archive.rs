//! Reads the vendor's zip in memory, within limits, and never unpacks it. Only this module uses the
//! `zip` crate.
//!
//! Promises: for any input the answer is quick and takes no more memory than the file plus 256 KiB
//! for each of a handful of configurations. Launcher files are never read, nested archives never
//! opened, names never used as paths.

mod directory;
mod other_format;

use std::borrow::Cow;
use std::io::{Cursor, Read};

use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use self::other_format::OtherFormat;
use super::tree::MAX_BYTES;

/// The largest archive, in bytes.
pub const MAX_ARCHIVE: u64 = 32 << 20;
const MAX_ENTRIES: u64 = 10_000;
const MAX_CONFIGS: usize = 64;
/// The longest name of a configuration, in bytes. A zip allows 64 KiB, and findings repeat the
/// name.
const MAX_NAME: usize = 1_024;

/// An entry of an archive in memory.
type Packed<'a> = ZipFile<'a, Cursor<Vec<u8>>>;

/// One configuration in an archive.
pub(super) struct ArchiveConfig {
    /// The `<dataset>` of `<dataset>.yaml`.
    pub(super) dataset: String,
    /// The entry's name in the archive, with forward slashes.
    pub(super) entry: String,
    /// The name is not UTF-8, so that it is a guess how it reads.
    pub(super) is_name_guessed: bool,
    index: usize,
}

/// An archive that passed the checks of `Archive::open`.
pub(super) struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    /// The configurations, ordered by dataset.
    pub(super) configs: Vec<ArchiveConfig>,
    /// The number of entries that point outside the archive (`../…`, `/…`). They are ignored.
    pub(super) entries_outside: usize,
    /// The name of a zip inside the archive.
    pub(super) nested: Option<String>,
}

/// Why an archive, or one entry of it, is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error("the file is empty")]
    Empty,
    #[error("this is not a zip file, or it is incomplete")]
    NotZip,
    #[error("this is {0}, not a zip file")]
    OtherFormat(OtherFormat),
    #[error("the archive has {0} entries; at most 10,000 are allowed")]
    TooManyEntries(u64),
    #[error("the archive's directory does not match its contents ({0})")]
    Inconsistent(String),
    #[error("the archive has two entries with the same name")]
    Duplicate,
    #[error("the archive has entries that overlap")]
    Overlap,
    #[error("the archive is protected with a password")]
    Encrypted,
    #[error("the archive contains a symbolic link")]
    Link,
    #[error("the configuration is larger than 256 KiB")]
    TooLarge,
    #[error("the configuration cannot be read: {0}")]
    Damaged(String),
    #[error("the configuration is compressed with {0}, which tenantd does not read")]
    Method(&'static str),
    #[error("the configuration is not UTF-8 text")]
    NotText,
}

impl ArchiveError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::NotZip => "zip-incomplete",
            Self::OtherFormat(_) => "zip-other-format",
            Self::TooManyEntries(_) => "zip-too-many-entries",
            Self::Inconsistent(_) | Self::Damaged(_) => "zip-damaged",
            Self::Duplicate => "zip-duplicate",
            Self::Overlap => "zip-overlap",
            Self::Encrypted => "zip-encrypted",
            Self::Link => "zip-link",
            Self::TooLarge => "config-too-large",
            Self::NotText => "not-text",
            Self::Method(_) => "zip-method",
        }
    }

    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Empty | Self::NotZip => "the copy may have been interrupted; copy mcp_export.zip again",
            Self::OtherFormat(OtherFormat::Html) => {
                "the download brought a page, perhaps the portal's login: log in there and download \
                 mcp_export.zip again"
            }
            Self::OtherFormat(_) => "use mcp_export.zip exactly as the portal exported it",
            Self::Encrypted => "export it from the portal without a password",
            Self::TooLarge => {
                "the configuration of a vendor export has a few KiB; export it again from the \
                               portal"
            }
            Self::NotText => "save the file as UTF-8",
            Self::Method(_) => {
                "the portal uses Deflate: use mcp_export.zip as exported, or pack it again with Deflate"
            }
            _ => "use mcp_export.zip exactly as the portal exported it; don't pack it again",
        }
    }
}

impl Archive {
    /// Opens an archive, refuses hostile ones, and lists its configurations.
    pub(super) fn open(bytes: Vec<u8>) -> Result<Self, ArchiveError> {
        if bytes.is_empty() {
            return Err(ArchiveError::Empty);
        }
        // The crate allocates the whole directory at once, so the number of entries is checked
        // first.
        match directory::declared_entries(&bytes) {
            None => {
                return Err(
                    OtherFormat::detect(&bytes).map_or(ArchiveError::NotZip, ArchiveError::OtherFormat)
                );
            }
            Some(count) if count > MAX_ENTRIES => return Err(ArchiveError::TooManyEntries(count)),
            Some(_) => {}
        }
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|_| ArchiveError::NotZip)?;
        reject_tricks(&mut zip)?;
        let mut archive = Self { zip, configs: Vec::new(), entries_outside: 0, nested: None };
        archive.list()?;
        Ok(archive)
    }

    fn list(&mut self) -> Result<(), ArchiveError> {
        for index in 0..self.zip.len() {
            let entry = self.zip.by_index_raw(index).map_err(damaged_error)?;
            if entry.is_symlink() {
                return Err(ArchiveError::Link);
            }
            if entry.encrypted() {
                return Err(ArchiveError::Encrypted);
            }
            let Some((name, is_name_guessed)) = decode_name(&entry) else { continue };
            self.entries_outside += usize::from(points_outside(&name));
            if name.to_ascii_lowercase().ends_with(".zip") && self.nested.is_none() {
                self.nested = Some(name.clone());
            }
            if let Some(dataset) = parse_dataset(&name).map(str::to_owned) {
                let is_name_guessed = is_name_guessed && !dataset.is_ascii();
                self.configs.push(ArchiveConfig { dataset, entry: name, is_name_guessed, index });
            }
        }
        self.configs.sort_by(|a, b| (&a.dataset, &a.entry).cmp(&(&b.dataset, &b.entry)));
        // `a\b.yaml` and `a/b.yaml` are one name to people.
        let same = |pair: &[ArchiveConfig]| pair[0].entry == pair[1].entry;
        match self.configs.windows(2).any(same) || self.configs.len() > MAX_CONFIGS {
            true => Err(ArchiveError::Duplicate),
            false => Ok(()),
        }
    }

    /// Returns the text of a configuration. Reads to the end, so that the checksum is verified.
    pub(super) fn text(&mut self, which: usize) -> Result<String, ArchiveError> {
        let index = self.configs[which].index;
        if let Some(method) = find_unusual_method(&self.zip.by_index_raw(index).map_err(damaged_error)?) {
            return Err(ArchiveError::Method(method));
        }
        let entry = self.zip.by_index(index).map_err(damaged_error)?;
        if entry.size() > MAX_BYTES as u64 {
            return Err(ArchiveError::TooLarge);
        }
        let mut bytes = Vec::new();
        let read = entry.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        if bytes.len() > MAX_BYTES {
            return Err(ArchiveError::TooLarge);
        }
        read.map_err(|error| damaged_error(ZipError::Io(error)))?;
        String::from_utf8(bytes).map_err(|_| ArchiveError::NotText)
    }
}

fn reject_tricks(zip: &mut ZipArchive<Cursor<Vec<u8>>>) -> Result<(), ArchiveError> {
    if zip.len() as u64 > MAX_ENTRIES {
        return Err(ArchiveError::TooManyEntries(zip.len() as u64));
    }
    if zip.has_duplicate_names() {
        return Err(ArchiveError::Duplicate);
    }
    if zip.has_overlapping_entries().map_err(damaged_error)? {
        return Err(ArchiveError::Overlap);
    }
    zip.validate_header_consistency().map_err(|error| ArchiveError::Inconsistent(shorten(&error)))
}

fn damaged_error(error: ZipError) -> ArchiveError {
    ArchiveError::Damaged(shorten(&error))
}

/// Describes an error of the crate without quoting the file.
fn shorten(error: &ZipError) -> String {
    match error {
        ZipError::Io(_) => "the data ends early or its checksum is wrong".into(),
        ZipError::InvalidArchive(_) => "a header is not valid".into(),
        _ => "it uses a feature of the format that is not supported".into(),
    }
}

/// Returns an entry's name with slashes and without `.` segments, and whether its decoding is a
/// guess. A name that is not UTF-8 is read as CP437 unless the entry says otherwise (APPNOTE D.1).
/// Of names that Windows packs in other languages, only the ASCII part is right then.
fn decode_name(entry: &Packed<'_>) -> Option<(String, bool)> {
    let (name, is_guessed) = match std::str::from_utf8(entry.name_raw()) {
        Ok(name) => (Cow::Borrowed(name), false),
        Err(_) => (entry.name().ok()?, true),
    };
    let name = name.replace('\\', "/");
    let segments: Vec<_> = name.split('/').filter(|segment| *segment != ".").collect();
    Some((segments.join("/"), is_guessed))
}

/// Returns the compression method of an entry, if it is one that is not read here (APPNOTE 4.4.5).
fn find_unusual_method(entry: &Packed<'_>) -> Option<&'static str> {
    const NAMED: [(CompressionMethod, &str); 6] = [
        (CompressionMethod::DEFLATE64, "Deflate64"),
        (CompressionMethod::BZIP2, "bzip2"),
        (CompressionMethod::LZMA, "LZMA"),
        (CompressionMethod::ZSTD, "Zstandard"),
        (CompressionMethod::XZ, "XZ"),
        (CompressionMethod::PPMD, "PPMd"),
    ];
    let method = entry.compression();
    if [CompressionMethod::STORE, CompressionMethod::DEFLATE].contains(&method) {
        return None;
    }
    let name = NAMED.iter().find(|(known, _)| *known == method).map(|(_, name)| *name);
    Some(name.unwrap_or("an unusual method"))
}

fn points_outside(name: &str) -> bool {
    name.starts_with('/')
        || name.split('/').any(|segment| segment == "..")
        || name.as_bytes().get(1) == Some(&b':')
}

/// Returns the dataset of `mcp/server/configs/<dataset>.yaml`, with at most one folder above it.
pub(super) fn parse_dataset(name: &str) -> Option<&str> {
    let mut segments = name.rsplit('/');
    let file = segments.next()?;
    if [segments.next(), segments.next(), segments.next()] != [Some("configs"), Some("server"), Some("mcp")] {
        return None;
    }
    let wrapper = segments.next();
    if segments.next().is_some() || matches!(wrapper, Some("" | "." | ".." | "__MACOSX")) {
        return None;
    }
    let (stem, extension) = file.rsplit_once('.').filter(|_| name.len() <= MAX_NAME)?;
    let yaml = extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml");
    let plausible =
        !stem.is_empty() && stem.len() <= 128 && !stem.starts_with('.') && !stem.contains(char::is_control);
    (yaml && plausible).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_told_from_junk() {
        assert_eq!(parse_dataset("mcp/server/configs/sales.yaml"), Some("sales"));
        assert_eq!(parse_dataset("mcp_export/mcp/server/configs/sales.YML"), Some("sales"));
        for junk in [
            "__MACOSX/mcp/server/configs/._sales.yaml",
            "__MACOSX/mcp/server/configs/sales.yaml",
            "mcp/server/configs/.sales.yaml",
            "mcp/server/configs/sub/sales.yaml",
            "mcp/server/configs/",
            "../mcp/server/configs/sales.yaml",
            "/mcp/server/configs/sales.yaml",
            "a/b/mcp/server/configs/sales.yaml",
            "server/configs/sales.yaml",
            &format!("{}/mcp/server/configs/sales.yaml", "a".repeat(MAX_NAME)),
        ] {
            assert_eq!(parse_dataset(junk), None, "{junk}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let fault = |bytes: &[u8]| Archive::open(bytes.to_vec()).err();
        assert_eq!(fault(b""), Some(ArchiveError::Empty));
        assert_eq!(fault(b"this is not a zip\n"), Some(ArchiveError::NotZip));
    }
}
