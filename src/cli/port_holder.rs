//! Which process listens on a port, as far as `/proc` tells this user.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A listening socket, in the tables of `/proc/net`.
const LISTENING: &str = "0A";

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortHolder {
    /// The name of its program.
    pub(super) name: String,
    /// Its process id.
    pub(super) process: u32,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, process {}", self.name, self.process)
    }
}

/// Whether any process listens on a port, also one that this user may not look at.
pub(super) fn is_taken(port: u16) -> bool {
    !sockets(port).is_empty()
}

fn sockets(port: u16) -> HashSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    tables.iter().flat_map(|table| listening_sockets(table, port)).collect()
}

/// Returns who listens on a port: `python3, process 4711`.
pub(super) fn find(port: u16) -> Option<PortHolder> {
    let sockets = sockets(port);
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    // `self` and others are links to processes.
    let is_pid = |process: &PathBuf| {
        let name = process.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut holders = processes.filter(is_pid).filter(|process| holds_one_of(process, &sockets));
    let process = holders.next()?;
    let pid = process.file_name()?.to_str()?.parse().ok()?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(PortHolder { name: name.trim().to_owned(), process: pid })
}

/// Returns the sockets that listen on a port, as links in `/proc/PID/fd` name them.
fn listening_sockets(table: &str, port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&port) && *state == LISTENING).then(|| format!("socket:[{inode}]"))
    };
    table.lines().filter_map(socket).collect()
}

fn holds_one_of(process: &Path, sockets: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links.into_iter().any(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let holder = find(listener.local_addr().expect("an address").port()).expect("it listens");
        assert_eq!(holder.process, std::process::id());
        assert!(holder.to_string().ends_with(&format!(", process {}", std::process::id())), "{holder}");
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
                     1: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
                     2: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening_sockets(table, 8000), ["socket:[4711]"]);
    }
}
