//! What kind of file system a folder lies on, and what room there is.

use std::io;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

/// The magic numbers of file systems (`statfs(2)`, linux/magic.h) that differ from a local disk in
/// something that a gateway relies on.
const KNOWN: [(u32, &str, FilesystemKind); 13] = [
    (0x0000_6969, "NFS", FilesystemKind::Network),
    (0xff53_4d42, "CIFS", FilesystemKind::Network),
    (0xfe53_4d42, "SMB", FilesystemKind::Network),
    (0x0000_517b, "SMB", FilesystemKind::Network),
    (0x0102_1997, "9P", FilesystemKind::Network),
    (0x5346_414f, "AFS", FilesystemKind::Network),
    (0x00c3_6400, "CephFS", FilesystemKind::Network),
    (0x0bd0_0bd0, "Lustre", FilesystemKind::Network),
    (0x0116_1970, "GFS2", FilesystemKind::Network),
    (0x6573_5546, "FUSE", FilesystemKind::Fuse),
    (0x0102_1994, "tmpfs", FilesystemKind::Memory),
    (0x8584_58f6, "ramfs", FilesystemKind::Memory),
    (0x794c_7630, "overlay", FilesystemKind::Overlay),
];

/// In what a file system differs from a local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesystemKind {
    /// In nothing that matters here.
    Local,
    /// On another machine: no notice of others' changes, locks that may hold on one machine only.
    Network,
    /// A program of its own: often without notice of changes.
    Fuse,
    /// In memory: gone after a restart of the machine.
    Memory,
    /// A container's own layer: gone with the container.
    Overlay,
}

/// The file system of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    /// What it is called; `None` for those that are like a local disk.
    pub name: Option<&'static str>,
    /// In what it differs from a local disk.
    pub kind: FilesystemKind,
    /// The bytes that this process may still write.
    pub free_bytes: u64,
    /// The files that may still be made; `None` where the file system does not count them.
    pub free_files: Option<u64>,
    /// Whether nothing may be written at all.
    pub is_read_only: bool,
}

impl Filesystem {
    /// Looks at the file system of a folder.
    ///
    /// # Errors
    /// The folder is not there, or the system does not tell.
    pub fn find(folder: &Path) -> io::Result<Self> {
        // Magic numbers have 32 bits, whatever type the system returns them in.
        let magic = statfs(folder)?.f_type as u32;
        let room = statvfs(folder)?;
        let known = KNOWN.iter().find(|(known, ..)| *known == magic);
        Ok(Self {
            name: known.map(|(_, name, _)| *name),
            kind: known.map_or(FilesystemKind::Local, |(.., kind)| *kind),
            free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
            free_files: (room.f_files > 0).then_some(room.f_favail),
            is_read_only: room.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_a_disk() {
        let of = |path: &str| Filesystem::find(Path::new(path)).expect("it lies somewhere");
        if Path::new("/dev/shm").is_dir() {
            assert_eq!(of("/dev/shm").kind, FilesystemKind::Memory);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let found = Filesystem::find(folder.path()).expect("it lies somewhere");
        assert!(found.kind != FilesystemKind::Network && !found.is_read_only && found.free_bytes > 0);
        assert!(Filesystem::find(&folder.path().join("none")).is_err());
    }
}
