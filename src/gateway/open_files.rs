//! The limit of open files: raised as far as the system allows, and respected by the connection
//! limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Settings;

/// Files needed besides connections: folders, the store, logs and idle backend connections.
const RESERVE: u64 = 64;
/// The minimum, so that some client can be served under any limit.
const FEWEST_CONNECTIONS: usize = 8;

/// Raises the limit of open files as far as possible, and lowers `limits.connections` to what it
/// allows.
pub(super) fn limit_connections(settings: &mut Settings) {
    let asked = &mut settings.limits.connections;
    *asked = connections(*asked, raise_limit());
}

/// Raises the soft limit of open files to the hard limit and returns it; `None` is unlimited. A
/// common soft limit is 1,024, a legacy of `select`.
fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, soft = current, hard = maximum, "the limit of open files cannot be raised");
            current
        }
    }
}

/// Returns the number of connections possible under a limit of open files.
///
/// Since a call may need a backend connection as well, clients do not get all files.
fn connections(asked: usize, open_files: Option<u64>) -> usize {
    let Some(open_files) = open_files else { return asked };
    let room = open_files.saturating_sub(RESERVE) / 5 * 4;
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(FEWEST_CONNECTIONS);
    if room < asked {
        tracing::warn!(
            asked,
            connections = room,
            open_files,
            "the gateway accepts fewer connections than limits.connections, because of the limit of open \
             files; raise that limit (LimitNOFILE, ulimit -n)"
        );
    }
    asked.min(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(connections(10_000, None), 10_000);
        assert_eq!(connections(10_000, Some(1 << 20)), 10_000);
        assert_eq!(connections(10_000, Some(1_064)), 800);
        assert_eq!(connections(100, Some(1_064)), 100);
        assert_eq!(connections(10_000, Some(10)), FEWEST_CONNECTIONS);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
