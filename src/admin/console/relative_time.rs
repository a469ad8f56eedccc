//! Points in time as people read them: how long ago, and exactly on hover.

use std::fmt;

use jiff::Timestamp;

/// A point in time, seen from now.
#[derive(Debug, Clone, Copy)]
pub(super) struct RelativeTime {
    at: Timestamp,
    now: Timestamp,
}

impl RelativeTime {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now }
    }
}

/// The element is made of a time only.
impl askama::filters::HtmlSafe for RelativeTime {}

impl fmt::Display for RelativeTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, full) =
            (self.at.strftime("%Y-%m-%dT%H:%M:%SZ"), self.at.strftime("%Y-%m-%d %H:%M:%S UTC"));
        let ago = Ago(self.now.as_second() - self.at.as_second());
        write!(f, "<time datetime=\"{machine}\" title=\"{full}\">{ago}</time>")
    }
}

/// Seconds since then; negative if it is still to come.
pub(super) struct Ago(pub(super) i64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (RoundedDuration(self.0.unsigned_abs()), self.0) {
            (_, -59..60) => f.write_str("just now"),
            (span, ..0) => write!(f, "in {span}"),
            (span, _) => write!(f, "{span} ago"),
        }
    }
}

/// A number of seconds in its largest unit.
pub(super) struct RoundedDuration(pub(super) u64);

impl fmt::Display for RoundedDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..60 => write!(f, "{seconds} s"),
            seconds @ 60..3600 => write!(f, "{} min", seconds / 60),
            seconds @ 3600..86400 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} d", seconds / 86400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_by_its_age_and_exactly() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().expect("a time");
        let shown = |at: &str| RelativeTime::new(at.parse().expect("a time"), now).to_string();
        let two_minutes =
            "<time datetime=\"2026-11-26T11:57:30Z\" title=\"2026-11-26 11:57:30 UTC\">2 min ago</time>";
        assert_eq!(shown("2026-11-26T11:57:30.97Z"), two_minutes);
        for (at, text) in [
            ("2026-11-26T11:59:01Z", ">just now<"),
            ("2026-11-26T12:00:30Z", ">just now<"),
            ("2026-11-26T09:00:00Z", ">3 h ago<"),
            ("2026-11-20T09:00:00Z", ">6 d ago<"),
            ("2027-01-10T12:00:00Z", ">in 45 d<"),
        ] {
            assert!(shown(at).contains(text), "{}", shown(at));
        }
    }
}
