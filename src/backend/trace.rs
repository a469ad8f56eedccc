//! Validates trace context from callers (W3C Trace Context).
//!
//! The text becomes a header of the request to the backend, so anything outside of the grammar is
//! dropped.

use http::HeaderValue;

use crate::telemetry::otlp::SpanIds;

/// The length of a version 00 `traceparent` (section 3.2): version, trace id, parent id and flags.
const PARENT_BYTES: usize = 55;
/// The maximum number of members (section 3.3.1.1), and the length that every vendor must propagate
/// (section 3.3.1.5).
const MAX_STATE_MEMBERS: usize = 32;
const MAX_STATE_BYTES: usize = 512;

/// A caller's trace context, validated for propagation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: HeaderValue,
    state: Option<HeaderValue>,
}

impl TraceContext {
    /// Parses the caller's headers. Without a valid parent there is no trace; an invalid state is
    /// dropped.
    pub fn parse(parent: Option<&str>, state: Option<&str>) -> Option<Self> {
        let parent = HeaderValue::from_str(&to_version_00(parent?)?).ok()?;
        let state =
            state.filter(|state| is_valid_state(state)).and_then(|state| HeaderValue::from_str(state).ok());
        Some(Self { parent, state })
    }

    /// Returns the context of a call below a span of the gateway's. The caller's state goes with
    /// the caller's trace only.
    pub(super) fn for_span(span: SpanIds, caller: Option<&Self>) -> Self {
        let parent = HeaderValue::from_str(&span.traceparent()).expect("hexadecimal digits and dashes");
        let is_same = |caller: &&Self| caller.span_ids().is_some_and(|ids| ids.trace == span.trace);
        Self { parent, state: caller.filter(is_same).and_then(|caller| caller.state.clone()) }
    }

    /// Returns the ids of the caller's span.
    pub fn span_ids(&self) -> Option<SpanIds> {
        SpanIds::parse(self.parent.to_str().ok()?)
    }

    /// Returns the value of `traceparent`.
    pub(super) fn parent(&self) -> &HeaderValue {
        &self.parent
    }

    /// Returns the value of `tracestate`.
    pub(super) fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }
}

/// Converts a parent to version 00.
///
/// A later version may append fields to the same four. Of its flags, version 00 knows only whether
/// the trace is sampled (section 3.2.3 and "Versioning of traceparent").
fn to_version_00(text: &str) -> Option<String> {
    let (known, rest) = text.split_at_checked(PARENT_BYTES)?;
    let mut fields = known.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_well_formed = fields.next().is_none()
        && is_hex(version, 2)
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2);
    if !is_well_formed || is_zero(trace) || is_zero(parent) {
        return None;
    }
    match version {
        "00" => rest.is_empty().then(|| known.to_owned()),
        "ff" => None,
        _ if rest.is_empty() || rest.starts_with('-') => {
            let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
            Some(format!("00-{trace}-{parent}-{sampled:02x}"))
        }
        _ => None,
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|b| b == b'0')
}

/// Whether a `tracestate` is a list of members with distinct keys (section 3.3.1); empty members
/// are allowed.
fn is_valid_state(text: &str) -> bool {
    if text.len() > MAX_STATE_BYTES {
        return false;
    }
    let members: Vec<&str> =
        text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty()).collect();
    let keys: Option<Vec<&str>> = members.iter().map(|member| parse_key(member)).collect();
    let Some(mut keys) = keys else { return false };
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    (1..=MAX_STATE_MEMBERS).contains(&count) && keys.len() == count
}

/// Returns the key of a valid member.
fn parse_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    (is_key(key) && is_value(value)).then_some(key)
}

fn is_key(key: &str) -> bool {
    let may_follow = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(&b);
    let is_part = |part: &str, longest: usize, may_begin: fn(u8) -> bool| {
        part.len() <= longest && part.bytes().next().is_some_and(may_begin) && part.bytes().all(may_follow)
    };
    let is_letter: fn(u8) -> bool = |b| b.is_ascii_lowercase();
    match key.split_once('@') {
        None => is_part(key, 256, is_letter),
        Some((tenant, system)) => {
            is_part(tenant, 241, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
                && is_part(system, 14, is_letter)
        }
    }
}

fn is_value(value: &str) -> bool {
    let is_allowed = |b: u8| (b' '..=b'~').contains(&b) && b != b',' && b != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(is_allowed) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(text: &str) -> Option<String> {
        let trace = TraceContext::parse(Some(text), None)?;
        Some(trace.parent().to_str().expect("ASCII").to_owned())
    }

    fn state(text: &str) -> Option<String> {
        let trace = TraceContext::parse(Some(GOOD), Some(text)).expect("a trace");
        trace.state().map(|state| state.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn a_parent_is_version_00_or_left_out() {
        assert_eq!(parent(GOOD).as_deref(), Some(GOOD));
        let later = format!("cc{}-and-more", &GOOD[2..]);
        assert_eq!(parent(&later).as_deref(), Some(GOOD), "a later version is sent on as 00");
        for bad in [
            "",
            "00-a-b-01",
            &"a".repeat(20_000),
            &GOOD.to_ascii_uppercase(),
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}x", &GOOD[2..]),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-01", "\r\nx"),
            &GOOD.replace("-01", "-0ä"),
        ] {
            assert_eq!(parent(bad), None, "{bad}");
        }
        assert_eq!(TraceContext::parse(None, Some("a=1")), None, "a state alone is no trace");
    }

    #[test]
    fn a_state_is_its_grammar_or_left_out() {
        for good in
            ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "0fw@sys=x y", "a=1, ,\tb/*=!~", "a=1,"]
        {
            assert_eq!(state(good).as_deref(), Some(good));
        }
        let long = format!("a={}", "x".repeat(256));
        assert_eq!(state(&long).as_deref(), Some(&*long));
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=1")).collect();
        for bad in [
            "",
            ",",
            "A=1",
            "1a=1",
            "a",
            "a=",
            "=1",
            "a=b=c",
            "a=1,a=2",
            "a@b@c=1",
            "a=\u{7f}",
            "a=ä",
            &format!("{}=1", "k".repeat(257)),
            &format!("a={}", "x".repeat(257)),
            &"a=1,".repeat(200),
            &many.join(","),
        ] {
            assert_eq!(state(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn callers_traces_are_short_and_valid(parent in ".{0,80}", state in ".{0,600}") {
            if let Some(trace) = TraceContext::parse(Some(&parent), Some(&state)) {
                prop_assert_eq!(trace.parent().len(), PARENT_BYTES);
                prop_assert!(trace.state().is_none_or(|state| state.len() <= MAX_STATE_BYTES));
            }
        }

        #[test]
        fn a_parent_is_taken_whatever_its_numbers(trace in 1u128.., parent in 1u64.., flags: u8) {
            let text = format!("00-{trace:032x}-{parent:016x}-{flags:02x}");
            prop_assert_eq!(super::to_version_00(&text), Some(text));
        }
    }
}
