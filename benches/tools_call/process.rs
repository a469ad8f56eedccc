//! Servers as processes: started, found, measured through `/proc`, ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take until it serves, ten thousand tenants included.
const START: Duration = Duration::from_secs(60);

/// `/proc` counts CPU time in these, on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A running server; ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// Tells the parent where a role listens.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// Takes a file that holds a key away from everybody else.
pub(crate) fn make_private(file: &Path) -> Result<()> {
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

impl Server {
    /// Starts this program in another role and waits until it says where it listens.
    pub(crate) fn this_program(arguments: &[&str]) -> Result<Self> {
        let mut child =
            Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output was asked for")?).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("{} did not start", arguments[0]))?;
        Ok(Self { child, address })
    }

    /// Starts the gateway and waits for its ready file.
    pub(crate) fn gateway(program: &str, arguments: &[&str], ready: &Path, log: &Path) -> Result<Self> {
        Self::program(program, arguments, log, || first_address(ready))
    }

    /// Starts a program and waits until it is found to serve.
    pub(crate) fn program(
        program: &str,
        arguments: &[&str],
        log: &Path,
        found: impl Fn() -> Option<SocketAddr>,
    ) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(File::create(log)?)
            .stderr(File::options().append(true).open(log)?)
            .spawn()?;
        let started = Instant::now();
        loop {
            if let Some(address) = found() {
                return Ok(Self { child, address });
            }
            if child.try_wait()?.is_some() || started.elapsed() > START {
                let _ = child.kill();
                bail!("did not start:\n{}", fs::read_to_string(log)?);
            }
            std::thread::sleep(TICK);
        }
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the command in parentheses and may hold anything; utime and stime are the 14th and 15th.
        let after_command = stat.rsplit_once(')').context("a stat line has a command")?.1;
        let ticks = after_command.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        Ok(TICK * ticks.sum::<Result<u32, _>>()?)
    }

    /// Memory in use.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Waits until the server is idle, so that one measurement's tail is not charged to the next.
    pub(crate) fn settle(&self) -> Result<()> {
        for _ in 0..50 {
            let before = self.cpu()?;
            std::thread::sleep(15 * TICK);
            if self.cpu()? - before <= TICK {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first public listener that a ready file names.
fn first_address(ready: &Path) -> Option<SocketAddr> {
    let ready: serde_json::Value = serde_json::from_str(&fs::read_to_string(ready).ok()?).ok()?;
    ready["listen"][0].as_str()?.parse().ok()
}
