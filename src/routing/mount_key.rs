//! Mounts regardless of case, as keys of maps.

use std::net::SocketAddr;

use super::endpoint::is_reserved_segment;
use crate::spec::Mount;

/// A mount regardless of case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MountKey {
    listener: Option<SocketAddr>,
    host: Option<String>,
    /// In lower case.
    prefix: String,
}

impl MountKey {
    /// Converts a mount to its key.
    pub(super) fn of(mount: &Mount) -> Self {
        let host = mount.host.as_ref().map(|host| host.as_str().to_owned());
        Self { listener: mount.listener, host, prefix: mount.prefix.as_str().to_ascii_lowercase() }
    }
}

/// Returns the places, mounted or not, whose own paths this mount equals or is below.
pub(super) fn endpoint_owners(mount: &Mount) -> impl Iterator<Item = MountKey> {
    let MountKey { listener, host, prefix } = MountKey::of(mount);
    let ends: Vec<usize> = mount
        .prefix
        .segments()
        .scan(0, |end, segment| Some((std::mem::replace(end, *end + 1 + segment.len()), segment)))
        .filter(|(_, segment)| is_reserved_segment(segment))
        .map(|(end, _)| end)
        .collect();
    ends.into_iter().map(move |end| MountKey {
        listener,
        host: host.clone(),
        prefix: prefix[..end].to_owned(),
    })
}
