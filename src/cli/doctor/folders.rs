//! The folders: whether the gateway's user may use them, and what their file systems are like.

use std::io;
use std::path::Path;

use super::super::port_holder;
use super::contact::GatewayContact;
use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};
use crate::base::filesystem::{Filesystem, FilesystemKind};
use crate::base::permission::Identity;
use crate::settings::TlsMode;

const FOLDERS: Examination = Examination::Folders;
/// Too little for the next revision of a tenant, or the audit of an hour.
const LITTLE_BYTES: u64 = 100 << 20;
const NO_BYTES: u64 = 8 << 20;
const LITTLE_FILES: u64 = 1000;
/// A tenants folder with folders of its own needs a watch for each of these.
const LITTLE_WATCHES: u64 = 8192;
const LITTLE_INSTANCES: u64 = 64;

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Tenants,
    State,
    Certs,
}

/// Examines the folders of the settings.
pub(super) fn examine(patient: &Patient) -> Vec<DoctorVerdict> {
    let settings = &patient.settings;
    let who = find_gateway_user(patient);
    let tenants = patient.export.as_ref().unwrap_or(&settings.tenants);
    let mut folders = vec![(Purpose::Tenants, tenants.as_path()), (Purpose::State, settings.state.as_path())];
    if settings.tls != TlsMode::Off {
        folders.push((Purpose::Certs, settings.certs.as_path()));
    }
    let mut verdicts: Vec<DoctorVerdict> =
        folders.into_iter().flat_map(|(purpose, folder)| examine_folder(purpose, folder, &who)).collect();
    verdicts.extend(examine_watches());
    verdicts
}

/// The user of the gateway's process; of this one, if none is found.
fn find_gateway_user(patient: &Patient) -> Identity {
    let port = match &patient.gateway {
        GatewayContact::Running { .. } => patient.settings.admin.map(|admin| admin.port()),
        GatewayContact::Silent { .. } => None,
    };
    let holder = port.and_then(port_holder::find).filter(|holder| holder.name == "tenantd");
    holder.and_then(|holder| Identity::find(holder.process)).unwrap_or_else(Identity::current)
}

fn examine_folder(purpose: Purpose, folder: &Path, who: &Identity) -> Vec<DoctorVerdict> {
    let place = folder.display().to_string();
    match folder.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return vec![judge_missing(purpose, folder)],
        // A folder above it cannot be entered.
        Err(error) => {
            let why = format!("user {} cannot look at it: {error}", who.user());
            return vec![judge_forbidden(purpose, folder, who, why)];
        }
        Ok(_) => {}
    }
    if !folder.is_dir() {
        return vec![DoctorVerdict::ok(FOLDERS, "folder-good", place, "is a file")];
    }
    let mut verdicts = Vec::new();
    verdicts.extend(judge_rights(purpose, folder, who));
    verdicts.extend(judge_found_filesystem(purpose, &place, Filesystem::find(folder)));
    if verdicts.is_empty() {
        verdicts.push(DoctorVerdict::ok(
            FOLDERS,
            "folder-good",
            place,
            format!("user {} may use it", who.user()),
        ));
    }
    verdicts
}

/// Judges what looking at a file system came to.
fn judge_found_filesystem(
    purpose: Purpose,
    place: &str,
    found: io::Result<Filesystem>,
) -> Vec<DoctorVerdict> {
    match found {
        Ok(filesystem) => judge_filesystem(purpose, place, &filesystem),
        Err(error) => vec![DoctorVerdict::not_checked(
            FOLDERS,
            "filesystem-unknown",
            place,
            format!("its file system cannot be looked at: {error}"),
        )],
    }
}

fn judge_missing(purpose: Purpose, folder: &Path) -> DoctorVerdict {
    let place = folder.display().to_string();
    match purpose {
        Purpose::Tenants => DoctorVerdict::fault(FOLDERS, "folder-missing", place, "there is no such folder")
            .meaning("no tenant is read")
            .advice("create it, or give the right one with --tenants; in a container, mount it"),
        Purpose::State | Purpose::Certs => DoctorVerdict::ok(
            FOLDERS,
            "folder-new",
            place,
            "does not exist yet; the gateway creates it at its first start",
        ),
    }
}

fn judge_rights(purpose: Purpose, folder: &Path, who: &Identity) -> Option<DoctorVerdict> {
    let writes = purpose != Purpose::Tenants;
    let why = who.check_folder(folder, writes).err()?;
    Some(judge_forbidden(purpose, folder, who, why))
}

fn judge_forbidden(purpose: Purpose, folder: &Path, who: &Identity, why: String) -> DoctorVerdict {
    let place = folder.display().to_string();
    let (meaning, right) = match purpose {
        Purpose::Tenants => ("no tenant is read, or changes are not noticed", "rx"),
        Purpose::State => ("the gateway does not start, or every login is lost at the next restart", "rwx"),
        Purpose::Certs => ("certificates cannot be kept", "rwx"),
    };
    DoctorVerdict::fault(FOLDERS, "folder-forbidden", place.clone(), why).meaning(meaning).advice(format!(
        "`chown {} {place}`, or `chmod g+{right}` for its group, and `x` on each folder above it; for a mounted \
         folder on the machine that it is mounted from",
        who.user()
    ))
}

fn judge_filesystem(purpose: Purpose, place: &str, filesystem: &Filesystem) -> Vec<DoctorVerdict> {
    let mut verdicts = Vec::new();
    let keeps = purpose != Purpose::Tenants;
    if keeps && filesystem.is_read_only {
        verdicts.push(
            DoctorVerdict::fault(FOLDERS, "folder-read-only", place, "the file system is mounted read-only")
                .meaning("nothing can be kept: no logins, no audit, no certificates")
                .advice("mount a writable volume there, or give another folder (--state, --certs)"),
        );
    } else if keeps {
        verdicts.extend(judge_room(place, filesystem));
    }
    let name = filesystem.name.unwrap_or("a disk");
    match (filesystem.kind, purpose) {
        (FilesystemKind::Network | FilesystemKind::Fuse, Purpose::Tenants) => verdicts.push(
            DoctorVerdict::warning(FOLDERS, "folder-unwatched", place, format!("it is on {name}"))
                .meaning("changes by other machines are not notified: they are found by a scan every ten seconds")
                .advice("set `watch: poll`, or run `tenantd tenants reload` after a change"),
        ),
        (FilesystemKind::Network, _) => verdicts.push(
            DoctorVerdict::warning(FOLDERS, "folder-on-network", place, format!("it is on {name}"))
                .meaning("locks may not keep a second gateway away, and what was written may be lost with the server")
                .advice("use a local disk (--state, --certs)"),
        ),
        (FilesystemKind::Memory | FilesystemKind::Overlay, Purpose::State | Purpose::Certs) => verdicts.push(
            DoctorVerdict::warning(FOLDERS, "folder-volatile", place, format!("it is on {name}, which does not outlive the container or the machine"))
                .meaning("everybody must log in again after a restart, and clients must register again")
                .advice("mount a volume there: `-v tenantd-state:PATH`, a PersistentVolumeClaim, or a folder on a disk"),
        ),
        _ => {}
    }
    verdicts
}

fn judge_room(place: &str, filesystem: &Filesystem) -> Option<DoctorVerdict> {
    let free = filesystem.free_bytes >> 20;
    let files = filesystem.free_files.unwrap_or(u64::MAX);
    let found = match files < LITTLE_FILES {
        true => format!("only {files} more files can be made"),
        false => format!("{free} MiB are free"),
    };
    let is_full = filesystem.free_bytes < NO_BYTES || files == 0;
    let verdict = match () {
        () if is_full => DoctorVerdict::fault(FOLDERS, "disk-full", place, found).meaning(
            "logins, revisions and the audit cannot be written; the gateway serves on as long as it runs",
        ),
        () if filesystem.free_bytes < LITTLE_BYTES || files < LITTLE_FILES => {
            DoctorVerdict::warning(FOLDERS, "disk-nearly-full", place, found)
                .meaning("soon nothing can be written any more")
        }
        () => return None,
    };
    Some(verdict.advice("make room (`df -h`, `df -i`); the audit's size is the setting `audit`"))
}

/// The kernel's limits on watches, which all programs of a user share.
fn examine_watches() -> Option<DoctorVerdict> {
    let read = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let (watches, instances) = (read("max_user_watches")?, read("max_user_instances")?);
    let found = format!("{watches} watches and {instances} instances for each user");
    Some(match watches < LITTLE_WATCHES || instances < LITTLE_INSTANCES {
        false => DoctorVerdict::ok(FOLDERS, "watches-enough", "inotify", found),
        true => DoctorVerdict::warning(FOLDERS, "watches-few", "inotify", found)
            .meaning(
                "with many programs that watch files, changes are found by a scan every ten seconds only",
            )
            .advice("`sysctl fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=512`"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::verdict::VerdictOutcome;
    use super::*;

    fn filesystem(kind: FilesystemKind, free_mib: u64) -> Filesystem {
        let (name, free_bytes) = (Some("x"), free_mib << 20);
        Filesystem { name, kind, free_bytes, free_files: None, is_read_only: false }
    }

    fn codes(purpose: Purpose, filesystem: &Filesystem) -> Vec<String> {
        let found = judge_filesystem(purpose, "/p", filesystem);
        found.iter().map(|verdict| verdict.code.to_string()).collect()
    }

    #[test]
    fn each_kind_of_file_system_means_something_else_for_each_folder() {
        use FilesystemKind::{Fuse, Local, Memory, Network, Overlay};
        let of = |purpose, kind| codes(purpose, &filesystem(kind, 1000));
        for kind in [Local, Memory, Overlay] {
            assert!(of(Purpose::Tenants, kind).is_empty(), "{kind:?}: Secrets are mounted so");
        }
        assert_eq!(of(Purpose::Tenants, Network), ["folder-unwatched"]);
        assert_eq!(of(Purpose::Tenants, Fuse), ["folder-unwatched"]);
        assert_eq!(of(Purpose::State, Overlay), ["folder-volatile"]);
        assert_eq!(of(Purpose::Certs, Memory), ["folder-volatile"]);
        assert_eq!(of(Purpose::State, Network), ["folder-on-network"]);
        assert!(of(Purpose::State, Local).is_empty());
    }

    #[test]
    fn a_file_system_that_cannot_be_looked_at_is_said_to_be_unknown() {
        let denied = Err(io::ErrorKind::PermissionDenied.into());
        let [verdict] = &judge_found_filesystem(Purpose::State, "/p", denied)[..] else {
            panic!("one verdict")
        };
        assert_eq!(
            (verdict.code.as_ref(), verdict.outcome),
            ("filesystem-unknown", VerdictOutcome::NotChecked)
        );
        assert!(verdict.found.contains("permission denied"), "{}", verdict.found);
    }

    #[test]
    fn a_full_disk_is_a_fault() {
        use FilesystemKind::Local;
        assert_eq!(codes(Purpose::State, &filesystem(Local, 50)), ["disk-nearly-full"]);
        assert_eq!(codes(Purpose::State, &filesystem(Local, 1)), ["disk-full"]);
        let read_only = Filesystem { is_read_only: true, ..filesystem(Local, 0) };
        assert_eq!(codes(Purpose::State, &read_only), ["folder-read-only"]);
        let no_files = Filesystem { free_files: Some(0), ..filesystem(Local, 1000) };
        assert_eq!(codes(Purpose::State, &no_files), ["disk-full"]);
    }

    #[test]
    fn a_missing_tenants_folder_is_a_fault() {
        let (folder, who) = (tempfile::tempdir().expect("a folder"), Identity::current());
        let none = folder.path().join("none");
        assert_eq!(examine_folder(Purpose::Tenants, &none, &who)[0].outcome, VerdictOutcome::Fault);
        assert_eq!(examine_folder(Purpose::State, &none, &who)[0].outcome, VerdictOutcome::Ok);
    }
}
