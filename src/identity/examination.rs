//! What can be known of a tenant's app at its provider without a person.

use std::time::Duration;

use jiff::Timestamp;

use super::error::Error;

/// What an examination of an app found.
#[derive(Debug, Clone)]
pub struct AppExamination {
    /// Whether the provider answers and knows the directory.
    pub directory: Result<(), Error>,
    /// For each of the tenant's secrets, in their order: whether the provider takes it from this
    /// app; empty if the provider could not be asked.
    pub secrets: Vec<Result<(), Error>>,
    /// Whether the redirect URI is registered.
    pub redirect_uri: Registration,
    /// What the provider's clock showed.
    pub clock: Option<ClockReading>,
}

/// Whether something is registered at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// It is.
    Registered,
    /// It is not.
    Missing,
    /// The provider does not tell without a person.
    Unknown(String),
}

/// The time by another clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// What it showed.
    pub theirs: Timestamp,
    /// What the clock here showed at that moment.
    pub ours: Timestamp,
}

impl ClockReading {
    /// Reads the `Date` header of a response (RFC 9110 section 6.6.1); `None` if it is no date.
    pub fn from_date(date: &str, ours: Timestamp) -> Option<Self> {
        let theirs = jiff::fmt::rfc2822::parse(date.trim()).ok()?.timestamp();
        Some(Self { theirs, ours })
    }

    /// Returns by how much the two differ.
    pub fn difference(&self) -> Duration {
        self.theirs.duration_since(self.ours).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_header_is_a_clock() {
        let ours = "2026-11-26T12:10:00Z".parse().expect("a time");
        let reading = ClockReading::from_date("Thu, 26 Nov 2026 12:00:00 GMT", ours).expect("a date");
        assert_eq!(reading.difference(), Duration::from_secs(600));
        assert_eq!(ClockReading::from_date("yesterday", ours), None);
    }
}
