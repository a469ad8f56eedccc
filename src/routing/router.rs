//! The routing table: listeners, their hosts, and for each a tree of path segments.
//!
//! The maps are persistent: a copy shares everything with its original, and a change copies only
//! the path to it. So the next world costs what changed in it, however many tenants there are.

use std::net::SocketAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::Endpoint;
use super::endpoint::parse_discovery;
use crate::spec::{HostName, Mount};

/// Maps hosts and prefixes to `T`: the longest prefix of whole segments wins on the request's host.
///
/// A tenant's own host serves only what is mounted there. The gateway's tenants are not visible on
/// it, so that one customer's host never answers for another. There is no fallback to a shorter
/// prefix: `/a/b/typo` belongs to no tenant if `/a/b` is mounted, even if `/a` is.
#[derive(Debug, Clone)]
pub struct Router<T> {
    /// The gateway's own listeners, which all serve the same.
    main: ListenerRoutes<T>,
    /// The listeners of tenants. What is mounted on one of them is on no other.
    by_listener: HashTrieMapSync<SocketAddr, ListenerRoutes<T>>,
}

/// What is mounted on one listener.
#[derive(Debug, Clone)]
pub struct ListenerRoutes<T> {
    gateway: SegmentNode<T>,
    by_host: HashTrieMapSync<HostName, SegmentNode<T>>,
}

#[derive(Debug, Clone)]
struct SegmentNode<T> {
    value: Option<T>,
    children: HashTrieMapSync<Arc<str>, SegmentNode<T>>,
}

impl<T: Clone> Router<T> {
    /// Adds a mount. The caller has judged the claims; a second value for one mount replaces the
    /// first.
    pub fn insert(&mut self, mount: &Mount, value: T) {
        let Some(listener) = mount.listener else { return self.main.insert(mount, value) };
        let mut routes = self.by_listener.get(&listener).cloned().unwrap_or_default();
        routes.insert(mount, value);
        self.by_listener.insert_mut(listener, routes);
    }

    /// Removes a mount. A listener without mounts is none.
    pub fn remove(&mut self, mount: &Mount) {
        let Some(listener) = mount.listener else { return self.main.remove(mount) };
        let Some(mut routes) = self.by_listener.get(&listener).cloned() else { return };
        routes.remove(mount);
        match routes.is_empty() {
            true => _ = self.by_listener.remove_mut(&listener),
            false => self.by_listener.insert_mut(listener, routes),
        }
    }
}

impl<T> Router<T> {
    /// Returns a table without mounts.
    pub fn new() -> Self {
        Self { main: ListenerRoutes::default(), by_listener: HashTrieMapSync::new_sync() }
    }

    /// Returns what is mounted on the gateway's own listeners.
    pub fn main(&self) -> &ListenerRoutes<T> {
        &self.main
    }

    /// Returns what is mounted on a listener; `None` stands for the gateway's own.
    pub fn on(&self, listener: Option<SocketAddr>) -> Option<&ListenerRoutes<T>> {
        match listener {
            None => Some(&self.main),
            Some(listener) => self.by_listener.get(&listener),
        }
    }

    /// Returns the listeners of tenants.
    pub fn listeners(&self) -> impl Iterator<Item = SocketAddr> {
        self.by_listener.keys().copied()
    }

    /// Returns the tenants' own hosts, on whichever listener.
    pub fn tenant_hosts(&self) -> impl Iterator<Item = &HostName> {
        std::iter::once(&self.main).chain(self.by_listener.values()).flat_map(|routes| routes.by_host.keys())
    }
}

impl<T: Clone> ListenerRoutes<T> {
    fn insert(&mut self, mount: &Mount, value: T) {
        match &mount.host {
            None => self.gateway.insert(mount.prefix.segments(), value),
            Some(host) => {
                let mut root = self.by_host.get(host).cloned().unwrap_or_default();
                root.insert(mount.prefix.segments(), value);
                self.by_host.insert_mut(host.clone(), root);
            }
        }
    }

    /// A host without mounts is no longer a tenant's own.
    fn remove(&mut self, mount: &Mount) {
        let Some(host) = &mount.host else { return self.gateway.remove(mount.prefix.segments()) };
        let Some(mut root) = self.by_host.get(host).cloned() else { return };
        root.remove(mount.prefix.segments());
        match root.is_empty() {
            true => _ = self.by_host.remove_mut(host),
            false => self.by_host.insert_mut(host.clone(), root),
        }
    }
}

impl<T> ListenerRoutes<T> {
    fn is_empty(&self) -> bool {
        self.gateway.is_empty() && self.by_host.is_empty()
    }

    /// Returns whether `host` (lower case, no port) is some tenant's own.
    pub fn is_tenant_host(&self, host: &str) -> bool {
        self.by_host.contains_key(host)
    }

    /// Returns the value to which a path belongs, and the endpoint it names. `host` is lower case
    /// without port; a host that no tenant owns is the gateway's. Includes discovery paths outside
    /// the prefix (`/.well-known/oauth-…/acme[/mcp]`).
    ///
    /// `path` has passed [`super::check_path`]; another path finds nothing that it should not. Does
    /// not allocate.
    pub fn find(&self, host: &str, path: &str) -> Option<(&T, Endpoint)> {
        let root = self.by_host.get(host).unwrap_or(&self.gateway);
        if let Some(document) = path.strip_prefix("/.well-known/") {
            return root.find_discovery(document);
        }
        let (value, rest) = root.find_longest(path)?;
        Endpoint::from_path(rest).map(|endpoint| (value, endpoint))
    }
}

impl<T: Clone> SegmentNode<T> {
    fn insert<'p>(&mut self, mut segments: impl Iterator<Item = &'p str>, value: T) {
        let Some(segment) = segments.next() else { return self.value = Some(value) };
        if !self.children.contains_key(segment) {
            self.children.insert_mut(segment.into(), Self::default());
        }
        self.children.get_mut(segment).expect("it is there").insert(segments, value);
    }

    fn remove<'p>(&mut self, mut segments: impl Iterator<Item = &'p str>) {
        let Some(segment) = segments.next() else { return self.value = None };
        let Some(child) = self.children.get_mut(segment) else { return };
        child.remove(segments);
        if child.is_empty() {
            self.children.remove_mut(segment);
        }
    }
}

impl<T> SegmentNode<T> {
    fn is_empty(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }

    /// Returns the value at the longest prefix of `path`, and the rest of the path.
    fn find_longest<'p>(&self, path: &'p str) -> Option<(&T, &'p str)> {
        let mut node = self;
        let mut rest = path;
        let mut found = node.value.as_ref().map(|value| (value, rest));
        while let Some((segment, after)) = split_segment(rest)
            && let Some(child) = node.children.get(segment)
        {
            (node, rest) = (child, after);
            found = node.value.as_ref().map(|value| (value, rest)).or(found);
        }
        found
    }

    /// Returns the value mounted at exactly this prefix.
    fn find_exact(&self, prefix: &str) -> Option<&T> {
        self.find_longest(prefix).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
    }

    /// Returns the value that a document describes. No prefix ends in `/mcp` below another one, so
    /// at most one of the two readings of a name matches.
    fn find_discovery(&self, document: &str) -> Option<(&T, Endpoint)> {
        let whose = |(document, prefix)| Some((self.find_exact(prefix)?, Endpoint::Discovery(document)));
        parse_discovery(document).into_iter().flatten().find_map(whose)
    }
}

/// Splits off the first `/segment`; the rest is empty or begins with a slash.
fn split_segment(path: &str) -> Option<(&str, &str)> {
    let segments = path.strip_prefix('/')?;
    Some(segments.split_at(segments.find('/').unwrap_or(segments.len())))
}

impl<T> Default for SegmentNode<T> {
    fn default() -> Self {
        Self { value: None, children: HashTrieMapSync::new_sync() }
    }
}

impl<T> Default for ListenerRoutes<T> {
    fn default() -> Self {
        Self { gateway: SegmentNode::default(), by_host: HashTrieMapSync::new_sync() }
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new()
    }
}
