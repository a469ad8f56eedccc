//! What a measurement costs a server.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use crate::process::Server;

/// What a server has used.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// How often its threads went to sleep, which says how well work is gathered.
    pub(crate) sleeps: u64,
}

impl Usage {
    /// Returns what `server` has used so far.
    pub(crate) fn read(server: &Server) -> Result<Self> {
        let mut sleeps = 0;
        for thread in fs::read_dir(server.proc_file("task"))? {
            // A thread may end meanwhile.
            let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sleeps += count.map_or(Ok(0), |count| count.trim().parse::<u64>())?;
        }
        Ok(Self { cpu: server.cpu()?, sleeps })
    }

    /// Returns what was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu - earlier.cpu, sleeps: self.sleeps.saturating_sub(earlier.sleeps) }
    }
}
