//! The state folder of a gateway with one tenant, and whether what lies in it lasts.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::random;
use crate::settings::Settings;

/// The database in a state folder that was used before.
const DATABASE: &str = "tenantd.db";

/// Where the state goes.
pub(super) struct StateFolder {
    /// The folder, unless one was given.
    default: Option<PathBuf>,
}

/// A folder that is removed when the process ends.
pub(super) struct TemporaryFolder(PathBuf);

impl StateFolder {
    pub(super) fn new(default: Option<PathBuf>) -> Self {
        Self { default }
    }

    /// Decides about the folder, and warns if logins will not survive in it. Where none can be
    /// written, a temporary one keeps the tenant's logins until the process ends.
    pub(super) fn prepare(self, settings: &mut Settings, has_login: bool) -> Option<TemporaryFolder> {
        if let Some(default) = self.default {
            settings.state = default;
        }
        let folder = settings.state.clone();
        let shown = folder.display();
        if let Err(error) = try_to_write(&folder) {
            let temporary = TemporaryFolder::create()?;
            settings.state = temporary.0.clone();
            match has_login {
                true => tracing::warn!(
                    "the state folder {shown} cannot be written ({error}): all logins are lost at the next \
                     restart, and so is the audit. Mount a volume there, or give another folder with --state (TENANTD_STATE)"
                ),
                false if settings.audit.is_some() => tracing::warn!(
                    "the state folder {shown} cannot be written ({error}): the audit is lost when the process \
                     ends. Mount a volume there, or give another folder with --state (TENANTD_STATE)"
                ),
                false => {
                    tracing::info!("the state folder {shown} cannot be written ({error}); nothing is kept")
                }
            }
            return Some(temporary);
        }
        if has_login && let Some(why) = find_volatility(&folder) {
            tracing::warn!(
                "the state folder {shown} {why}: all logins are lost when it goes. Mount a volume there, for \
                 instance -v tursio-mcp-state:{shown}"
            );
        }
        None
    }
}

/// Makes the folder, unless it was used before: then the gateway judges what can be done with it.
fn try_to_write(folder: &Path) -> std::io::Result<()> {
    if folder.join(DATABASE).exists() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let probe = folder.join(format!(".probe-{}", random::hex::<8>()));
    fs::File::create_new(&probe)?;
    fs::remove_file(probe)
}

impl TemporaryFolder {
    /// Creates it where something can be written, if only in memory.
    fn create() -> Option<Self> {
        let name = format!("tenantd-{}", random::hex::<8>());
        let places = [std::env::temp_dir(), "/dev/shm".into()].map(|place| place.join(&name));
        let mut made =
            places.into_iter().filter(|folder| DirBuilder::new().mode(0o700).create(folder).is_ok());
        made.next().map(Self)
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // It lies where nothing lasts anyway.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// Says why a folder goes with its container or pod.
fn find_volatility(folder: &Path) -> Option<&'static str> {
    let folder = fs::canonicalize(folder).ok()?;
    judge_mounts(&fs::read_to_string("/proc/self/mountinfo").ok()?, &folder)
}

/// Judges the mount that a folder is on (proc(5), `mountinfo`).
fn judge_mounts(mounts: &str, folder: &Path) -> Option<&'static str> {
    let mount = |line: &str| {
        let (place, about) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let kind = about.split(' ').next()?;
        folder.starts_with(point).then(|| (point.to_owned(), root.to_owned(), kind.to_owned()))
    };
    // The last of several mounts at one place counts.
    let (point, root, kind) = mounts.lines().filter_map(mount).max_by_key(|(point, ..)| point.len())?;
    match kind.as_str() {
        _ if root.contains("kubernetes.io~empty-dir") => Some("is an emptyDir, which goes with the pod"),
        _ if is_anonymous_volume(&root) => {
            Some("is an anonymous volume, which the next container does not get")
        }
        "tmpfs" | "ramfs" => Some("is in memory"),
        "overlay" | "aufs" if point == "/" => Some("is inside the container"),
        _ => None,
    }
}

/// Whether a container engine made the volume by itself: its name is 64 hexadecimal digits.
fn is_anonymous_volume(root: &str) -> bool {
    let Some(name) = root.strip_suffix("/_data").and_then(|path| path.rsplit('/').next()) else {
        return false;
    };
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
1 0 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/l
2 1 8:1 /var/lib/docker/volumes/state/_data /data/state rw - ext4 /dev/sda1 rw
3 1 8:1 /var/lib/docker/volumes/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/_data /data rw - ext4 /dev/sda1 rw
4 1 8:1 /var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/state /empty rw - ext4 /dev/sda1 rw
5 1 0:31 / /run rw - tmpfs tmpfs rw
";

    #[test]
    fn what_goes_with_its_container_is_told_from_volumes() {
        let judge = |folder: &str| judge_mounts(MOUNTS, Path::new(folder));
        assert_eq!(judge("/data/state"), None);
        assert_eq!(judge("/data/state/below"), None);
        assert_eq!(judge("/opt/state"), Some("is inside the container"));
        assert!(judge("/data/other").is_some_and(|why| why.contains("anonymous")));
        assert!(judge("/empty").is_some_and(|why| why.contains("emptyDir")));
        assert_eq!(judge("/run/state"), Some("is in memory"));
        let on_a_machine = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
        assert_eq!(judge_mounts(on_a_machine, Path::new("/opt/tursio-mcp/state")), None);
    }
}
