//! The file system of the state folder. A network file system breaks what the store relies on:
//! locks may hold on one machine only, and synced data may be lost with the server. The store works
//! there all the same, with a warning.

use std::path::Path;

/// Network file systems, by their magic number (`statfs(2)`, linux/magic.h).
const NETWORK_FILESYSTEMS: [(u32, &str); 9] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "CephFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
];

/// Logs a warning if the folder lies on a network file system.
pub(in crate::store) fn warn_if_network_filesystem(folder: &Path) {
    let Some(kind) =
        rustix::fs::statfs(folder).ok().and_then(|about| network_filesystem_name(about.f_type as u32))
    else {
        return;
    };
    tracing::warn!(
        folder = %folder.display(),
        kind,
        "the state folder is on a network file system: file locks may not exclude a second gateway, and data \
         may be lost with the server; use a local disk with --state"
    );
}

/// Returns the name of a network file system. Magic numbers have 32 bits, whatever type `statfs`
/// returns them in.
fn network_filesystem_name(magic: u32) -> Option<&'static str> {
    NETWORK_FILESYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_recognized() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = rustix::fs::statfs(folder.path()).expect("it lies somewhere");
        assert_eq!(network_filesystem_name(local.f_type as u32), None);
        assert_eq!(network_filesystem_name(0x6969), Some("NFS"));
        assert_eq!(network_filesystem_name(0xff53_4d42), Some("CIFS"));
        for disk in [0xef53, 0x5846_5342, 0x0102_1994, 0x9123_683e, 0x794c_7630] {
            assert_eq!(network_filesystem_name(disk), None, "{disk:x}");
        }
    }
}
