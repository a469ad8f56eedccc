//! Reads and replaces files without trusting what a path refers to.
//!
//! Reads accept only regular files up to a size limit and never block on a pipe or a device. Writes
//! create a new file under an unpredictable name and rename it into place, so that they never write
//! through a link and readers never see a half-written file.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::random;

/// The reason why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {} KiB", .0 >> 10)]
    TooLarge(u64),
    #[error("it is not UTF-8 text")]
    NotUtf8,
    #[error("it is outside of the allowed folders")]
    OutsideRoots,
    #[error("it cannot be read: {}", why(.0))]
    Io(#[from] io::Error),
}

/// The metadata by which a change of a file is detected without reading it.
///
/// Links are followed, so redirecting a link (a mounted Secret's `..data`) counts as a change.
/// `ctime` moves with every change, even one that restores size and `mtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    device: u64,
}

impl Stamp {
    /// Returns the stamp of the file that is there now.
    ///
    /// # Errors
    /// The file does not exist, or its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// Whether a path may be a symbolic link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SymlinkPolicy {
    Follow,
    Refuse,
}

impl Error {
    /// Whether the error stems from the machine's present state and not from the file.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Io(error) if is_resource_exhaustion(error))
    }

    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Converts into an `io::Error`, for callers that return those.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// Returns the system's reason in plain words, without the error number.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        other => other.to_string(),
    }
}

/// Whether the system ran out of memory or of file descriptors, in this process or overall.
pub fn is_resource_exhaustion(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

/// Reads a whole file of at most `cap` bytes.
///
/// Symbolic links are followed, because mounted Secrets of Kubernetes consist of them.
///
/// # Errors
/// The file is not a regular file, is larger than `cap`, or cannot be read.
pub fn read(path: &Path, cap: u64) -> Result<Vec<u8>, Error> {
    let (file, metadata) = open(path)?;
    read_contents(&file, &metadata, cap)
}

/// Reads a whole text file of at most `cap` bytes; see [`read`].
///
/// # Errors
/// Those of [`read`]; also if the file is not UTF-8.
pub fn read_text(path: &Path, cap: u64) -> Result<String, Error> {
    String::from_utf8(read(path, cap)?).map_err(|_| Error::NotUtf8)
}

/// Reads a file that this process wrote; see [`read`]. A link at its path is not followed.
///
/// # Errors
/// Those of [`read`]; a link is an error of the system.
pub fn read_no_follow(path: &Path, cap: u64) -> Result<Vec<u8>, Error> {
    let (file, metadata) = open_with(path, SymlinkPolicy::Refuse)?;
    read_contents(&file, &metadata, cap)
}

/// Reads a file that must lie below one of `roots` once all links are resolved; see [`read`].
///
/// The check applies to the opened file, so that the file cannot be swapped between the check and
/// the read.
///
/// # Errors
/// Those of [`read`]; also if the file lies outside of all roots.
pub fn read_below<'a>(
    path: &Path,
    roots: impl IntoIterator<Item = &'a Path>,
    cap: u64,
) -> Result<Vec<u8>, Error> {
    let roots: Vec<PathBuf> = roots.into_iter().filter_map(|root| root.canonicalize().ok()).collect();
    let below = |place: &Path| roots.iter().any(|root| place.starts_with(root));
    // A file outside of the roots is not even opened.
    if !below(&path.canonicalize()?) {
        return Err(Error::OutsideRoots);
    }
    let (file, metadata) = open(path)?;
    match below(&resolve_opened(&file, &metadata, path)?) {
        true => read_contents(&file, &metadata, cap),
        false => Err(Error::OutsideRoots),
    }
}

/// Returns the path of an opened file, from the kernel where `/proc` is available.
///
/// Elsewhere the canonical path must still refer to the same file.
fn resolve_opened(file: &File, metadata: &Metadata, path: &Path) -> Result<PathBuf, Error> {
    let known = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if let Some(place) = known.ok().filter(|place| place.is_absolute()) {
        return Ok(place);
    }
    let place = path.canonicalize()?;
    let named = fs::symlink_metadata(&place)?;
    match (named.dev(), named.ino()) == (metadata.dev(), metadata.ino()) {
        true => Ok(place),
        false => Err(Error::OutsideRoots),
    }
}

/// Opens a regular file for reading and returns its metadata. Symbolic links are followed.
///
/// # Errors
/// The file is not a regular file, or cannot be opened.
pub fn open(path: &Path) -> Result<(File, Metadata), Error> {
    open_with(path, SymlinkPolicy::Follow)
}

/// Reads the contents of an opened file, at most `cap` bytes.
///
/// # Errors
/// The file is larger than `cap`, or cannot be read.
pub fn read_contents(file: &File, metadata: &Metadata, cap: u64) -> Result<Vec<u8>, Error> {
    if metadata.len() > cap {
        return Err(Error::TooLarge(cap));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(cap + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > cap {
        true => Err(Error::TooLarge(cap)),
        false => Ok(bytes),
    }
}

fn open_with(path: &Path, links: SymlinkPolicy) -> Result<(File, Metadata), Error> {
    // Opening some devices has side effects (a watchdog starts, a tape rewinds), so they are
    // rejected before. A device that takes the file's place in between is rejected below.
    let kind = fs::metadata(path)?.file_type();
    if kind.is_char_device() || kind.is_block_device() || kind.is_socket() {
        return Err(Error::NotRegular);
    }
    // Opening a pipe without a writer would block forever. The flag has no effect on regular files.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == SymlinkPolicy::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let flags = i32::try_from(flags.bits()).expect("the flags of open are an int in C");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(Error::NotRegular),
    }
}

/// Writes a file atomically, replacing whatever is at its path.
///
/// After a crash of the machine the file may be the old one, or empty.
///
/// # Errors
/// The folder cannot be written to. The previous file is then unchanged.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_and_rename(path, bytes, mode, |_| Ok(()))
}

/// Writes a file atomically and syncs it and its folder to disk; see [`replace`].
///
/// After a crash of the machine the file is either the old one or the new one.
///
/// # Errors
/// The folder cannot be written to. The previous file is then unchanged, unless only the last sync
/// failed.
pub fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_and_rename(path, bytes, mode, File::sync_all)?;
    File::open(parent_folder(path))?.sync_all()
}

fn write_and_rename(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    sync: fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    // The dot and the extension keep readers of the folder from taking the draft for the real file.
    let temporary = parent_folder(path).join(format!(".new-{}.tmp", random::hex::<8>()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        sync(&file)?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn parent_folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_regular_files_under_the_cap_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(&path, b"12345").expect("written");
        assert_eq!(read(&path, 5).expect("read"), b"12345");
        assert!(matches!(read(&path, 4), Err(Error::TooLarge(4))));
        assert!(matches!(read(folder.path(), 4), Err(Error::NotRegular)));
        assert!(matches!(read(Path::new("/dev/zero"), 4), Err(Error::NotRegular)));
        let link = folder.path().join("link");
        symlink("/dev/zero", &link).expect("linked");
        assert!(matches!(read(&link, 4), Err(Error::NotRegular)));
        fs::write(&path, b"\xff").expect("written");
        assert!(matches!(read_text(&path, 4), Err(Error::NotUtf8)));
    }

    #[test]
    fn a_sparse_file_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        File::create(&path).and_then(|file| file.set_len(4 << 30)).expect("made");
        assert!(matches!(read(&path, 1024), Err(Error::TooLarge(1024))));
    }

    #[test]
    fn our_own_file_is_not_read_through_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, link) = (folder.path().join("x"), folder.path().join("link"));
        fs::write(&path, b"1").expect("written");
        symlink(&path, &link).expect("linked");
        assert_eq!(read_no_follow(&path, 4).expect("read"), b"1");
        assert!(read_no_follow(&link, 4).is_err());
    }

    #[test]
    fn a_file_is_read_below_its_folder_only_wherever_links_lead() {
        let around = tempfile::tempdir().expect("a folder");
        let [ours, theirs] = ["a", "b"].map(|name| around.path().join(name));
        for (folder, text) in [(&ours, "ours"), (&theirs, "theirs")] {
            fs::create_dir_all(folder.join("..2026")).expect("made");
            fs::write(folder.join("..2026/key"), text).expect("written");
            symlink("..2026", folder.join("..data")).expect("linked");
            symlink("..data/key", folder.join("key")).expect("linked");
        }
        let read = |path: &Path| read_below(path, [ours.as_path()], 10);
        assert_eq!(read(&ours.join("key")).expect("a mounted Secret"), b"ours");
        symlink("../b/key", ours.join("out")).expect("linked");
        symlink("../b", ours.join("folder")).expect("linked");
        for out in ["out", "folder/key", "../b/key", "../b/..data/key"] {
            assert!(matches!(read(&ours.join(out)), Err(Error::OutsideRoots)), "{out}");
        }
        // The root itself may be a link, and a path outside of it may lead into it.
        symlink(&ours, around.path().join("c")).expect("linked");
        assert_eq!(
            read_below(&around.path().join("c/key"), [around.path().join("c").as_path()], 10).expect("read"),
            b"ours"
        );
        assert!(read(&ours.join("none")).expect_err("there is none").is_not_found());
    }

    #[test]
    fn what_was_opened_counts_and_not_what_the_name_leads_to_by_then() {
        let around = tempfile::tempdir().expect("a folder");
        let [ours, theirs] = ["a", "b"].map(|name| around.path().join(name));
        for (folder, text) in [(&ours, "ours"), (&theirs, "theirs")] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("key"), text).expect("written");
        }
        let (file, metadata) = open(&theirs.join("key")).expect("opened");
        let place = resolve_opened(&file, &metadata, &ours.join("key")).expect("a place");
        assert_eq!(place, theirs.join("key").canonicalize().expect("a path"));
    }

    #[test]
    fn a_link_that_changes_all_the_time_never_leads_out() {
        let around = tempfile::tempdir().expect("a folder");
        let [ours, theirs] = ["a", "b"].map(|name| around.path().join(name));
        for (folder, text) in [(&ours, "ours"), (&theirs, "theirs")] {
            fs::create_dir_all(folder.join("x")).expect("made");
            fs::write(folder.join("x/key"), text).expect("written");
        }
        let (link, temporary) = (ours.join("link"), ours.join("draft"));
        symlink(ours.join("x"), &link).expect("linked");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut targets = [theirs.join("x"), ours.join("x")].into_iter().cycle();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    symlink(targets.next().expect("endless"), &temporary).expect("linked");
                    fs::rename(&temporary, &link).expect("renamed");
                }
            });
            let read: Vec<_> = (0..20_000)
                .filter_map(|_| read_below(&link.join("key"), [ours.as_path()], 10).ok())
                .collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(!read.is_empty() && read.iter().all(|text| text == b"ours"));
        });
    }

    #[test]
    fn want_of_open_files_is_told_from_what_is_wrong_with_a_file() {
        let error = |code| Error::Io(io::Error::from_raw_os_error(code));
        assert!([12, 23, 24].into_iter().all(|code| error(code).is_transient()));
        assert!(![2, 13, 5].into_iter().any(|code| error(code).is_transient()));
        assert!(!Error::NotRegular.is_transient() && !Error::TooLarge(1).is_transient());
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe.zip");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        assert!(matches!(read(&path, 4), Err(Error::NotRegular)));
        assert!(matches!(read_no_follow(&path, 4), Err(Error::NotRegular)));
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_and_never_written_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("x"), folder.path().join("other"));
        fs::write(&other, b"theirs").expect("written");
        symlink(&other, &path).expect("linked");
        for replace in [replace, replace_durably] {
            replace(&path, b"ours", 0o600).expect("replaced");
            assert_eq!(fs::read(&path).expect("there"), b"ours");
            assert_eq!(fs::read(&other).expect("there"), b"theirs");
            let metadata = fs::symlink_metadata(&path).expect("there");
            assert!(metadata.is_file() && metadata.permissions().mode() & 0o777 == 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2, "a draft is left");
        assert!(replace(&folder.path().join("none/x"), b"", 0o600).is_err());
    }
}
