//! The name that this machine has for itself.

use std::path::Path;

use super::disk;

/// Returns the name of this machine, as far as it is printable ASCII; empty if it has none.
pub fn host_name() -> String {
    let name = disk::read_text(Path::new("/proc/sys/kernel/hostname"), 4 << 10).unwrap_or_default();
    name.trim().chars().filter(char::is_ascii_graphic).collect()
}
