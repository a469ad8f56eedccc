//! Limits of the public listeners: the `limits:` section of the file.

use serde::{Deserialize, Serialize};

use crate::base::diagnostic::{Diagnostic, Report};

/// Limits of the public listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Concurrent connections over all listeners.
    pub connections: usize,
    /// Concurrent connections of one client address (IPv6: of one /64).
    pub connections_per_ip: usize,
    /// Timeout from accepting a connection to the end of the TLS handshake.
    pub handshake_seconds: u64,
    /// Timeout from the first byte of a request to the end of its headers.
    pub header_seconds: u64,
    /// Timeout for a whole request body.
    pub body_seconds: u64,
    /// Memory for all request bodies together, until their calls are answered.
    pub request_memory_mib: usize,
    /// Memory for all calls and streams in progress together, the same for each.
    pub call_memory_mib: usize,
    /// Memory for all responses together, until they are sent.
    pub answer_memory_mib: usize,
    /// Memory for all backend responses together, until they are written out; at most half for one
    /// tenant.
    pub backend_memory_mib: usize,
    /// Memory for the semantic contexts of all tenants that are kept between calls.
    pub context_memory_mib: usize,
    /// Timeout of a connection without a request.
    pub idle_seconds: u64,
    /// Time for requests in progress to finish at shutdown.
    pub drain_seconds: u64,
    /// Browser login steps of one client address at one tenant.
    pub logins_per_minute: u32,
    /// Token requests of one client address at one tenant. Hosted clients serve all their users
    /// from a few addresses.
    pub tokens_per_minute: u32,
    /// Client registrations of one client address at one tenant.
    pub registrations_per_minute: u32,
    /// How long a tenant must be degraded, or well again, before somebody is told; the same for the
    /// store and the disk.
    pub notify_hold_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_ip: 1_000,
            handshake_seconds: 10,
            header_seconds: 10,
            body_seconds: 30,
            request_memory_mib: 64,
            call_memory_mib: 256,
            answer_memory_mib: 128,
            backend_memory_mib: 256,
            context_memory_mib: 256,
            idle_seconds: 60,
            drain_seconds: 30,
            logins_per_minute: 240,
            tokens_per_minute: 3_000,
            registrations_per_minute: 120,
            notify_hold_seconds: 30,
        }
    }
}

/// The memory of a waiting request in multiples of its body: the body, the parsed JSON, the
/// arguments, and the request to the backend.
pub const REQUEST_FACTOR: u64 = 4;

impl Limits {
    /// Returns the size in bytes of the largest request that can ever be admitted: a caller without
    /// a credential gets four fifths of half of the request memory.
    pub fn largest_request(&self) -> usize {
        self.request_memory_mib.saturating_mul(1 << 20) / 5 * 2 / REQUEST_FACTOR as usize
    }

    /// Returns the limits by their names in the file, defaults included.
    pub(super) fn written(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let limits = serde_json::to_value(self).expect("limits are numbers");
        let limits = limits.as_object().cloned().unwrap_or_default();
        limits.into_iter().map(|(name, value)| (format!("limits.{name}"), value.to_string()))
    }

    /// Reports limits of zero, under which nothing could be served.
    pub(super) fn validate(self, report: &mut Report) -> Self {
        let at_least_one = [
            ("connections", self.connections as u64),
            ("connections_per_ip", self.connections_per_ip as u64),
            ("handshake_seconds", self.handshake_seconds),
            ("header_seconds", self.header_seconds),
            ("body_seconds", self.body_seconds),
            ("request_memory_mib", self.request_memory_mib as u64),
            ("call_memory_mib", self.call_memory_mib as u64),
            ("answer_memory_mib", self.answer_memory_mib as u64),
            ("backend_memory_mib", self.backend_memory_mib as u64),
            ("context_memory_mib", self.context_memory_mib as u64),
            ("idle_seconds", self.idle_seconds),
            ("logins_per_minute", self.logins_per_minute.into()),
            ("tokens_per_minute", self.tokens_per_minute.into()),
            ("registrations_per_minute", self.registrations_per_minute.into()),
        ];
        for (name, _) in at_least_one.iter().filter(|(_, value)| *value == 0) {
            let finding = Diagnostic::error(
                "limit-zero",
                format!("`limits.{name}` is 0, with which the gateway could serve nothing"),
            );
            report.push(finding.help("use 1 or more, or remove the line for the default"));
        }
        self
    }
}
