//! Open files: as many as the system allows, and no more connections than they are enough for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What folders, the store, logs and the backends' idle connections need besides the callers' connections.
const RESERVE: u64 = 64;
/// However little the system allows, somebody can be served.
const FEWEST_CONNECTIONS: usize = 8;

/// Raises the soft limit of open files to the hard one (1,024 is a common soft limit, from the time of `select`), and
/// returns it; `None` is unlimited.
pub(super) fn raise_limit() -> Option<u64> {
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

/// How many connections there may be under a limit of open files: a call may need one to its backend as well, so not all
/// files are callers'.
pub(super) fn connections(asked: usize, open_files: Option<u64>) -> usize {
    let Some(open_files) = open_files else { return asked };
    let room = open_files.saturating_sub(RESERVE) / 5 * 4;
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(FEWEST_CONNECTIONS);
    if room < asked {
        tracing::warn!(
            asked,
            connections = room,
            open_files,
            "fewer connections are taken than limits.connections says, because of the limit of open files; raise it (LimitNOFILE, ulimit -n)"
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
