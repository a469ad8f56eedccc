//! The identity of a span in its trace, as `traceparent` carries it (W3C Trace Context, version
//! 00).

use crate::base::{hex, random};

/// A span's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanIds {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl SpanIds {
    /// Parses a `traceparent` of version 00.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.strip_prefix("00-")?.split('-');
        let trace = hex::decode(fields.next()?)?;
        let span = hex::decode(fields.next()?)?;
        let [flags] = hex::decode(fields.next()?)?;
        let is_valid = fields.next().is_none() && trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// Returns a span of a new trace.
    pub(super) fn new_root(sampled: bool) -> Self {
        Self { trace: random::bytes(), span: random::bytes(), sampled }
    }

    /// Returns a further span of the same trace.
    pub(super) fn new_child(&self, sampled: bool) -> Self {
        Self { trace: self.trace, span: random::bytes(), sampled }
    }

    /// Returns the value of `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", encode(&self.trace), encode(&self.span), u8::from(self.sampled))
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    hex::write(&mut text, bytes).expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ids = SpanIds::parse(text).expect("ids");
        assert_eq!(ids.traceparent(), text);
        let child = ids.new_child(false);
        assert_eq!(child.trace, ids.trace);
        assert_ne!(child.span, ids.span);
        assert!(child.traceparent().ends_with("-00"));
        for bad in [
            "",
            "00-1-2-3",
            &text.replace("00f067aa0ba902b7", "0000000000000000"),
            &text.replace("-01", "-+1"),
            &format!("{text}-x"),
        ] {
            assert_eq!(SpanIds::parse(bad), None, "{bad}");
        }
    }
}
