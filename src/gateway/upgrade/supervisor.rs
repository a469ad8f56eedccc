//! Whether the process that watches over the gateway would take the end of this one for the end of
//! the gateway. Then an upgrade would stop the new gateway too, and is refused.

use std::fs;

/// Programs that end or restart what they started when their own child ends.
const WATCHERS: &[&str] = &[
    "tini",
    "dumb-init",
    "docker-init",
    "catatonit",
    "runsv",
    "s6-supervise",
    "supervise",
    "supervisord",
    "supervise-daemo",
    "monit",
];

/// What is known of the process and of who started it.
#[derive(Debug, Clone, Copy, Default)]
struct Surroundings<'a> {
    pid: u32,
    parent_pid: u32,
    /// The name of the parent's program, as the kernel cuts it.
    parent: Option<&'a str>,
    /// The unit that systemd counts the process to.
    unit: Option<&'a str>,
    /// Whether the service manager takes messages.
    is_notifying: bool,
}

/// Returns why no other process can take this one's place, and what to do instead.
pub(super) fn find_obstacle() -> Option<String> {
    let parent_pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let parent = fs::read_to_string(format!("/proc/{parent_pid}/comm")).ok();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    describe_obstacle(Surroundings {
        pid: std::process::id(),
        parent_pid,
        parent: parent.as_deref().map(str::trim),
        unit: find_unit(&groups),
        is_notifying: std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()),
    })
}

/// Returns the service in the lines of `/proc/self/cgroup`, if there is one.
fn find_unit(groups: &str) -> Option<&str> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(|path| path.rsplit('/').next()).find(|unit| unit.ends_with(".service"))
}

fn describe_obstacle(about: Surroundings<'_>) -> Option<String> {
    if about.pid == 1 || about.parent_pid == 0 {
        return Some(
            "the gateway is the first process of its container, which ends with it: start a container of the new \
             image instead (docker compose up -d, kubectl rollout restart)"
                .to_owned(),
        );
    }
    if let Some(watcher) = about.parent.filter(|parent| WATCHERS.contains(parent)) {
        return Some(format!(
            "{watcher} started the gateway and would take the end of this process for the gateway's: have \
             {watcher} restart it, or in a container start one of the new image"
        ));
    }
    let unit = about.unit.filter(|_| !about.is_notifying)?;
    Some(format!(
        "systemd runs the gateway as {unit}, and would stop that when this process ends: use systemctl restart \
         {unit}, with tenantd.socket so that no connection is refused, or the unit with Type=notify"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_refused_where_the_end_of_a_process_ends_its_service() {
        let usual =
            Surroundings { pid: 700, parent_pid: 600, parent: Some("bash"), ..Surroundings::default() };
        let notified = Surroundings { unit: Some("tenantd.service"), is_notifying: true, ..usual };
        for fine in [usual, notified, Surroundings { parent_pid: 1, parent: Some("systemd"), ..usual }] {
            assert_eq!(describe_obstacle(fine), None, "{fine:?}");
        }
        let refused = [
            (Surroundings { pid: 1, ..usual }, "docker compose up -d"),
            (Surroundings { parent_pid: 0, parent: None, ..usual }, "docker compose up -d"),
            (Surroundings { parent_pid: 1, parent: Some("tini"), ..usual }, "tini started"),
            (Surroundings { parent: Some("runsv"), ..usual }, "have runsv restart it"),
            (Surroundings { is_notifying: false, ..notified }, "systemctl restart tenantd.service"),
        ];
        for (about, hint) in refused {
            let obstacle = describe_obstacle(about).unwrap_or_default();
            assert!(obstacle.contains(hint), "{about:?}: {obstacle}");
        }
    }

    #[test]
    fn the_unit_of_a_process_is_read_in_both_versions_of_control_groups() {
        assert_eq!(find_unit("0::/system.slice/tenantd.service\n"), Some("tenantd.service"));
        assert_eq!(
            find_unit("5:devices:/\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            Some("a.service")
        );
        assert_eq!(find_unit("0::/user.slice/user-1000.slice/session-3.scope\n"), None);
        assert_eq!(find_unit("0::/\n"), None);
    }
}
