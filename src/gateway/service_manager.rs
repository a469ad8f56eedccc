//! Tells the service manager how far the gateway is (sd_notify(3)): a line sent to the socket that
//! `NOTIFY_SOCKET` names. Without that variable, nothing happens.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The gateway serves.
pub(super) const READY: &str = "READY=1";
/// The gateway drains.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Tells the service manager, if there is one.
pub(super) fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "the service manager could not be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let abstract_name = format!("tenantd-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&abstract_name).expect("an address");
        for (name, socket) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).expect("bound")),
            (format!("@{abstract_name}").into(), UnixDatagram::bind_addr(&abstract_address).expect("bound")),
        ] {
            send(&name, READY).expect("sent");
            let mut received = [0; 32];
            let length = socket.recv(&mut received).expect("received");
            assert_eq!(&received[..length], READY.as_bytes());
        }
    }
}
