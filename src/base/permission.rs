//! Explains why this process may not read a file, and what to do about it.
//!
//! "Permission denied" says neither whose file it is nor as whom the gateway runs. In a container,
//! where a mounted file keeps the owner that it has on the machine, these are easy to miss.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};

const CHECK_USER: &str = "check that the gateway's user can read it";

/// The user and the groups of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    user: u32,
    groups: Vec<u32>,
}

/// Owner, group and mode of a file or folder.
#[derive(Clone, Copy)]
struct Ownership {
    user: u32,
    group: u32,
    mode: u32,
    is_folder: bool,
}

/// Returns what to do about a file or folder that could not be read.
pub fn read_help(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return CHECK_USER.to_owned();
    }
    let identity = Identity::current();
    match fs::metadata(path) {
        Ok(about) => identity.read_help("it", Ownership::from(&about)),
        // A folder above it cannot be entered. The innermost one that can be seen is the culprit.
        Err(_) => path
            .ancestors()
            .skip(1)
            .find_map(|folder| Some((folder, fs::metadata(folder).ok()?)))
            .map_or(CHECK_USER.to_owned(), |(folder, about)| {
                let name = format!("its folder {}", folder.display());
                identity.read_help(&name, Ownership::from(&about))
            }),
    }
}

impl From<&Metadata> for Ownership {
    fn from(about: &Metadata) -> Self {
        let mode = about.mode() & 0o7777;
        Self { user: about.uid(), group: about.gid(), mode, is_folder: about.is_dir() }
    }
}

impl Identity {
    /// Returns those of another process; `None` if there is none with this number.
    pub fn find(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let ids = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().map(|id| id.parse().ok()).collect()
        };
        // Each line has the real, the effective, the saved and the file system's id.
        let (users, groups) = (ids("Uid")?, ids("Gid")?);
        let groups = groups.get(1).copied().into_iter().chain(ids("Groups").unwrap_or_default());
        Some(Self { user: *users.get(1)?, groups: groups.collect() })
    }

    /// Returns the user's number.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// Checks whether owner and mode let it use a folder: list and enter it, and with `writes` also
    /// make and remove files in it.
    ///
    /// # Errors
    /// What forbids it and what to do, worded for people.
    pub fn check_folder(&self, folder: &Path, writes: bool) -> Result<(), String> {
        let about = fs::metadata(folder).map_err(|error| format!("it cannot be looked at: {error}"))?;
        let of = Ownership::from(&about);
        let needed = if writes { 0o7 } else { 0o5 };
        match self.user == 0 || self.granted(of) & needed == needed {
            true => Ok(()),
            false => Err(format!(
                "the gateway runs as user {}, and the folder belongs to user {} and group {} with mode {:04o}",
                self.user, of.user, of.group, of.mode
            )),
        }
    }

    /// Returns those of this process.
    pub fn current() -> Self {
        let mut groups: Vec<u32> =
            getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
        groups.push(getegid().as_raw());
        Self { user: geteuid().as_raw(), groups }
    }

    /// Whether owner and mode let this process read a file, or list and enter a folder.
    fn may_read(&self, of: Ownership) -> bool {
        let needed = if of.is_folder { 0o5 } else { 0o4 };
        self.granted(of) & needed == needed
    }

    /// Returns the last three bits of the mode that count for it.
    fn granted(&self, of: Ownership) -> u32 {
        match () {
            () if of.user == self.user => of.mode >> 6,
            () if self.groups.contains(&of.group) => of.mode >> 3,
            () => of.mode,
        }
    }

    fn read_help(&self, name: &str, of: Ownership) -> String {
        let (user, mode) = (self.user, of.mode);
        let right = if of.is_folder { "rx" } else { "r" };
        if self.may_read(of) {
            return format!(
                "mode {mode:04o} lets the gateway (user {user}) read {name}, so something else forbids it; with \
                 SELinux, mount it with the option z"
            );
        }
        if of.user == user {
            return format!("{name} has mode {mode:04o}: run `chmod u+{right}` on it");
        }
        format!(
            "the gateway runs as user {user}, and {name} belongs to user {} with mode {mode:04o}: run `chown \
             {user}` on it, or `chmod o+{right}` (where it is mounted from, if it is mounted)",
            of.user
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GATEWAY: u32 = 65532;

    fn help(user: u32, group: u32, mode: u32, is_folder: bool) -> String {
        let identity = Identity { user: GATEWAY, groups: vec![GATEWAY] };
        identity.read_help("it", Ownership { user, group, mode, is_folder })
    }

    #[test]
    fn the_help_names_both_users_and_the_commands() {
        assert_eq!(
            help(1000, 1000, 0o600, false),
            "the gateway runs as user 65532, and it belongs to user 1000 with mode 0600: run `chown 65532` on it, \
             or `chmod o+r` (where it is mounted from, if it is mounted)"
        );
        assert!(help(0, 0, 0o750, true).contains("`chmod o+rx`"));
        assert_eq!(help(GATEWAY, 0, 0o044, false), "it has mode 0044: run `chmod u+r` on it");
        // The first class that matches decides, as in the kernel.
        assert!(help(0, GATEWAY, 0o604, false).contains("`chown 65532`"));
    }

    #[test]
    fn a_file_that_its_mode_lets_us_read_is_forbidden_by_something_else() {
        for (user, group, mode) in [(0, 0, 0o644), (0, GATEWAY, 0o640), (GATEWAY, 0, 0o400)] {
            assert!(help(user, group, mode, false).contains("SELinux"), "{mode:o}");
        }
        assert!(!help(0, 0, 0o744, true).contains("SELinux"), "a folder must also be entered");
    }

    #[test]
    fn a_folder_is_used_by_those_whose_mode_allows_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let us = Identity::find(std::process::id()).expect("this process");
        assert_eq!(us.user(), Identity::current().user());
        let stranger = Identity { user: us.user() + 4711, groups: vec![4711] };
        let of = |mode: u32, who: &Identity, writes: bool| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("changed");
            who.check_folder(folder.path(), writes)
        };
        assert_eq!(of(0o755, &stranger, false), Ok(()));
        let told = of(0o755, &stranger, true).expect_err("it may not write");
        assert!(told.contains("mode 0755") && told.contains(&format!("user {}", stranger.user)), "{told}");
        assert!(of(0o750, &stranger, false).is_err());
        assert_eq!(of(0o700, &us, true), Ok(()));
    }

    #[test]
    fn the_folder_that_cannot_be_entered_is_named() {
        let parent = tempfile::tempdir().expect("a folder");
        let closed = parent.path().join("closed");
        fs::create_dir(&closed).expect("made");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("changed");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let help = read_help(&closed.join("none/acme.zip"), &denied);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("changed");
        assert!(help.contains(&format!("its folder {} ", closed.display())), "{help}");
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(read_help(parent.path(), &other), CHECK_USER);
    }
}
