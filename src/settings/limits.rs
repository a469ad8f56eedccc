//! Caps of the public edge: the `limits:` section of the file.

use serde::{Deserialize, Serialize};

use crate::base::diagnostic::{Diagnostic, Report};

/// Caps of the public edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time, over all listeners.
    pub connections: usize,
    /// Connections at a time from one address (IPv6: one /64).
    pub connections_per_ip: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake_seconds: u64,
    /// From the first byte of a request to the end of its header.
    pub header_seconds: u64,
    /// For a request's body as a whole.
    pub body_seconds: u64,
    /// For all request bodies together, until their calls are answered.
    pub request_memory_mib: usize,
    /// For all calls and streams under way together, whatever was asked.
    pub call_memory_mib: usize,
    /// For all answers together, until they have left.
    pub answer_memory_mib: usize,
    /// For all answers of backends together, until they are written out; a half for each tenant at most.
    pub backend_memory_mib: usize,
    /// A connection without a request.
    pub idle_seconds: u64,
    /// What requests under way get when the process is asked to stop.
    pub drain_seconds: u64,
    /// Of one address at one tenant: steps of logins in a browser.
    pub logins_per_minute: u32,
    /// Of one address at one tenant: token requests. Hosted clients call for all their users from a few addresses.
    pub tokens_per_minute: u32,
    /// Of one address at one tenant: registrations of clients.
    pub registrations_per_minute: u32,
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
            idle_seconds: 60,
            drain_seconds: 30,
            logins_per_minute: 240,
            tokens_per_minute: 3_000,
            registrations_per_minute: 120,
        }
    }
}

/// A request that waits for its answer takes so many times its body: the body, what JSON makes of it, the arguments, and
/// what the backend is asked.
pub const REQUEST_FACTOR: u64 = 4;

impl Limits {
    /// The largest request that there is ever room for, in bytes: one party without a credential has four fifths of half of
    /// the memory for requests.
    pub fn largest_request(&self) -> usize {
        self.request_memory_mib.saturating_mul(1 << 20) / 5 * 2 / REQUEST_FACTOR as usize
    }

    /// Reports caps under which nothing could be served.
    pub(super) fn checked(self, report: &mut Report) -> Self {
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
            ("idle_seconds", self.idle_seconds),
            ("logins_per_minute", self.logins_per_minute.into()),
            ("tokens_per_minute", self.tokens_per_minute.into()),
            ("registrations_per_minute", self.registrations_per_minute.into()),
        ];
        for (name, _) in at_least_one.iter().filter(|(_, value)| *value == 0) {
            let finding =
                Diagnostic::error("limit-zero", format!("`limits.{name}` is 0: nothing could be served"));
            report.push(finding.help("give 1 or more, or leave the line out for the default"));
        }
        self
    }
}
