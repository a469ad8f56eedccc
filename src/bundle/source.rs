//! Reading files under caps: regular files only, never blocking on a pipe or device, never more than asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {} KiB", .0 >> 10)]
    TooLarge(u64),
    #[error("it cannot be read: {}", .0.kind())]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether this says something about the machine at this moment and nothing about the file.
    pub(super) fn will_pass(&self) -> bool {
        matches!(self, Self::Io(error) if is_scarcity(error))
    }
}

/// Too many files are open, in this process or in all, or memory ran out.
pub(super) fn is_scarcity(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

/// Reads a whole file of at most `cap` bytes. Symbolic links are followed (mounted Secrets consist of them).
pub(super) fn read(path: &Path, cap: u64) -> Result<Vec<u8>, Error> {
    let file = open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Error::NotRegular);
    }
    if about.len() > cap {
        return Err(Error::TooLarge(cap));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
    file.take(cap + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > cap {
        true => Err(Error::TooLarge(cap)),
        false => Ok(bytes),
    }
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Opening a pipe nobody writes to would wait forever. The flag means nothing to regular files.
    const O_NONBLOCK: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 0x0004 };
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_under_the_cap_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, b"12345").expect("written");
        assert_eq!(read(&path, 5).expect("read"), b"12345");
        assert!(matches!(read(&path, 4), Err(Error::TooLarge(4))));
        assert!(matches!(read(folder.path(), 4), Err(Error::NotRegular)));
        assert!(matches!(read(Path::new("/dev/zero"), 4), Err(Error::NotRegular)));
    }

    #[test]
    fn want_of_open_files_is_told_from_what_is_wrong_with_a_file() {
        let error = |code| Error::Io(io::Error::from_raw_os_error(code));
        assert!([12, 23, 24].into_iter().all(|code| error(code).will_pass()));
        assert!(![2, 13, 5].into_iter().any(|code| error(code).will_pass()));
        assert!(!Error::NotRegular.will_pass() && !Error::TooLarge(1).will_pass());
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe.zip");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        if made.is_ok_and(|status| status.success()) {
            assert!(matches!(read(&path, 4), Err(Error::NotRegular)));
        }
    }
}
