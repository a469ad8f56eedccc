//! Writes the tenants' files: all of them or none, and never over something that a person changed.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::plan::{PlannedFile, PlannedTenant};
use crate::base::disk;
use crate::base::random;

/// All files may hold secrets.
const MODE: u32 = 0o600;

/// What became of a planned file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    New,
    Replaced,
    /// The same bytes are there.
    AlreadyThere,
    /// Other bytes are there: a person changed them, or what they were made of changed.
    Differs,
    /// Nothing is written in a dry run.
    WouldBe,
}

impl Written {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::New => "written",
            Self::Replaced => "replaced",
            Self::AlreadyThere => "already there",
            Self::Differs => {
                "NOT WRITTEN: there is another one, edited since or of another source (--overwrite \
                              replaces it)"
            }
            Self::WouldBe => "would be written",
        }
    }
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteMode {
    pub(super) is_dry_run: bool,
    pub(super) overwrites: bool,
}

/// Writes all files into `folder`, which is made if it is missing. Returns what became of each.
///
/// # Errors
/// The folder cannot be written to. Nothing is left behind then.
pub(super) fn write(
    tenants: &[PlannedTenant],
    folder: &Path,
    mode: WriteMode,
) -> io::Result<Vec<Vec<Written>>> {
    let files = tenants.iter().map(|tenant| tenant.files.as_slice());
    let outcomes: Vec<Vec<Written>> = files
        .map(|files| files.iter().map(|file| judge(file, folder, mode)).collect::<io::Result<_>>())
        .collect::<io::Result<_>>()?;
    if mode.is_dry_run {
        return Ok(outcomes);
    }
    let wanted =
        tenants.iter().zip(&outcomes).flat_map(|(tenant, outcomes)| tenant.files.iter().zip(outcomes));
    let wanted: Vec<&PlannedFile> = wanted
        .filter(|(_, outcome)| matches!(outcome, Written::New | Written::Replaced))
        .map(|(file, _)| file)
        .collect();
    if !wanted.is_empty() {
        let is_new = !folder.exists();
        fs::create_dir_all(folder)?;
        put_all(&wanted, folder).inspect_err(|_| {
            if is_new {
                drop(fs::remove_dir(folder));
            }
        })?;
    }
    Ok(outcomes)
}

fn judge(file: &PlannedFile, folder: &Path, mode: WriteMode) -> io::Result<Written> {
    let path = folder.join(&file.name);
    if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(if mode.is_dry_run { Written::WouldBe } else { Written::New });
    }
    let cap = file.bytes.len() as u64;
    Ok(match disk::read(&path, cap) {
        Ok(bytes) if bytes == file.bytes => Written::AlreadyThere,
        Err(disk::Error::Io(error)) => return Err(error),
        _ if mode.overwrites && !mode.is_dry_run => Written::Replaced,
        _ if mode.overwrites => Written::WouldBe,
        _ => Written::Differs,
    })
}

/// Writes all files into a hidden folder first, and then moves them, so that a full disk leaves
/// nothing behind.
fn put_all(files: &[&PlannedFile], folder: &Path) -> io::Result<()> {
    let staging = folder.join(format!(".migrate-{}.tmp", random::hex::<8>()));
    fs::DirBuilder::new().mode(0o700).create(&staging)?;
    let mut moved: Vec<PathBuf> = Vec::new();
    let mut put = || -> io::Result<()> {
        for file in files {
            disk::replace_durably(&staging.join(&file.name), &file.bytes, MODE)?;
        }
        for file in files {
            let path = folder.join(&file.name);
            let is_new = fs::symlink_metadata(&path).is_err();
            fs::rename(staging.join(&file.name), &path)?;
            if is_new {
                moved.push(path);
            }
        }
        fs::File::open(folder)?.sync_all()
    };
    let done = put();
    if done.is_err() {
        moved.iter().for_each(|path| drop(fs::remove_file(path)));
    }
    drop(fs::remove_dir_all(&staging));
    done
}

/// Returns the user that a gateway which reads this folder may run as, if that is not the owner of
/// files written now.
pub(super) fn other_owner(folder: &Path, file: &Path) -> Option<u32> {
    let (folder, file) = (fs::metadata(folder).ok()?, fs::metadata(file).ok()?);
    (folder.uid() != file.uid() || folder.gid() != file.gid()).then(|| folder.gid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::migrate::inventory::Place;

    fn tenant(files: &[(&str, &str)]) -> PlannedTenant {
        let file = |&(name, text): &(&str, &str)| PlannedFile { name: name.into(), bytes: text.into() };
        PlannedTenant {
            name: "a".into(),
            title: "x".into(),
            place: Place::file(Path::new("x")),
            files: files.iter().map(file).collect(),
            switch: None,
        }
    }

    const WRITE: WriteMode = WriteMode { is_dry_run: false, overwrites: false };

    fn names(folder: &Path) -> Vec<String> {
        let listed = fs::read_dir(folder).expect("listed").flatten();
        let mut names: Vec<_> =
            listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_written_once_and_a_persons_edit_stays() {
        let around = tempfile::tempdir().expect("a folder");
        let folder = around.path().join("tenants.d");
        let tenants = [tenant(&[("a.key", "k\n"), ("a.env", "X=1\n")])];
        let dry = WriteMode { is_dry_run: true, ..WRITE };
        assert_eq!(write(&tenants, &folder, dry).expect("told"), [[Written::WouldBe; 2]]);
        assert!(!folder.exists());
        assert_eq!(write(&tenants, &folder, WRITE).expect("written"), [[Written::New; 2]]);
        assert_eq!(write(&tenants, &folder, WRITE).expect("told"), [[Written::AlreadyThere; 2]]);
        fs::write(folder.join("a.env"), "X=2\n").expect("edited");
        let expected = [[Written::AlreadyThere, Written::Differs]];
        assert_eq!(write(&tenants, &folder, WRITE).expect("told"), expected);
        assert_eq!(fs::read_to_string(folder.join("a.env")).expect("read"), "X=2\n");
        let over = WriteMode { overwrites: true, ..WRITE };
        assert_eq!(write(&tenants, &folder, over).expect("written")[0][1], Written::Replaced);
        assert_eq!(fs::read_to_string(folder.join("a.env")).expect("read"), "X=1\n");
        let mode = fs::metadata(folder.join("a.key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(&folder), ["a.env", "a.key"]);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let around = tempfile::tempdir().expect("a folder");
        let folder = around.path().join("tenants.d");
        // The second file cannot be put into place: a folder with something in it is there.
        fs::create_dir_all(folder.join("b.env/x")).expect("made");
        let tenants = [tenant(&[("a.key", "k\n"), ("b.env", "X=1\n")])];
        let over = WriteMode { overwrites: true, ..WRITE };
        assert!(write(&tenants, &folder, over).is_err());
        assert_eq!(names(&folder), ["b.env"]);
    }
}
