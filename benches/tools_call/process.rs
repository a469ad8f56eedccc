//! Servers as processes: starting, finding their address, measuring through `/proc`, stopping.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The deadline for a server to serve, with up to ten thousand tenants.
const START: Duration = Duration::from_secs(60);

/// The unit of CPU time in `/proc` (`USER_HZ`), the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A running server. Dropping it stops it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// Tells the parent process where a role listens.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// Restricts a file that holds a key to its owner.
pub(crate) fn make_private(file: &Path) -> Result<()> {
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

impl Server {
    /// Starts this program in another role and waits until it announces its address.
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

    /// Starts a program and waits until `found` returns its address.
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

    /// Returns the path of one of its files in `/proc`.
    pub(crate) fn proc_file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }

    /// Returns user and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(self.proc_file("stat"))?;
        // The second field is the command in parentheses and may contain anything; utime and stime
        // are the 14th and 15th.
        let after_command = stat.rsplit_once(')').context("a stat line has a command")?.1;
        let ticks = after_command.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        Ok(TICK * ticks.sum::<Result<u32, _>>()?)
    }

    /// Returns the resident memory.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc_file("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Waits until the server is idle, so that the tail of one measurement is not charged to the
    /// next.
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

/// Returns the first public listener in a ready file.
fn first_address(ready: &Path) -> Option<SocketAddr> {
    let ready: serde_json::Value = serde_json::from_str(&fs::read_to_string(ready).ok()?).ok()?;
    ready["listen"][0].as_str()?.parse().ok()
}
