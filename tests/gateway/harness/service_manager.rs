//! The service manager's side of sd_notify(3): a socket that receives messages.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::until;

/// A service manager that notes what it is told.
pub(crate) struct ServiceManager {
    socket: PathBuf,
    told: Arc<Mutex<Vec<String>>>,
}

impl ServiceManager {
    /// Listens on a socket in a folder.
    pub(crate) fn start(folder: &Path) -> Self {
        let socket = folder.join("notify");
        let listener = UnixDatagram::bind(&socket).expect("bound");
        listener.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let told = Arc::new(Mutex::new(Vec::new()));
        let weak = Arc::downgrade(&told);
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Some(told) = weak.upgrade() {
                if let Ok(length) = listener.recv(&mut message) {
                    let lines = String::from_utf8_lossy(&message[..length]).into_owned();
                    told.lock().expect("nobody panics with it").extend(lines.lines().map(str::to_owned));
                }
            }
        });
        Self { socket, told }
    }

    /// Returns the value of `NOTIFY_SOCKET`.
    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Returns all lines so far.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().expect("nobody panics with it").clone()
    }

    /// Returns how often it was told this line.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.told().iter().filter(|told| *told == line).count()
    }

    /// Waits until it is told this line once more.
    pub(crate) async fn until_told(&self, line: &str) {
        let before = self.count(line);
        until(&format!("{line} is told: {:?}", self.told()), async || {
            (self.count(line) > before).then_some(())
        })
        .await;
    }

    /// Waits until it has been told this line at least once.
    pub(crate) async fn has_heard(&self, line: &str) {
        until(&format!("{line} is told"), async || (self.count(line) > 0).then_some(())).await;
    }
}
