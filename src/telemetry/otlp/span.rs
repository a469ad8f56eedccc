//! Spans: of a request that the gateway answers (SERVER), and of a call that it makes (CLIENT).
//!
//! A span that is not sampled has ids, which are passed on, and records nothing. A span is exported
//! when it is dropped, so a call that is cancelled has one as well.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as proto, SpanFlags, Status};

use super::TracerState;
use super::ids::SpanIds;
use crate::base::random;
use crate::telemetry::printable::printable;

/// The longest text of an attribute, in characters.
const MAX_TEXT: usize = 256;

/// Starts spans; clones are cheap. Without an exporter it starts none.
#[derive(Debug, Clone, Default)]
pub struct Tracer(pub(super) Option<Arc<TracerState>>);

/// What is known of a request's place in traces of others.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoteSpans {
    /// The caller's span, which becomes the parent.
    pub parent: Option<SpanIds>,
    /// Another span to name, which leads to the same request.
    pub link: Option<SpanIds>,
}

impl Tracer {
    /// Starts the span of a request that came in at `started`. Returns `None` if nothing is traced.
    pub fn start_server_span(&self, remote: RemoteSpans, started: Instant) -> Option<TraceSpan> {
        let shared = self.0.as_ref()?;
        let sampled = shared.is_sampled(remote.parent);
        let ids =
            remote.parent.map_or_else(|| SpanIds::new_root(sampled), |parent| parent.new_child(sampled));
        Some(TraceSpan::new(shared, ids, remote.parent, remote.link, SpanKind::Server, started))
    }

    /// Whether anything is traced.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether spans name the addresses of clients.
    pub fn names_clients(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.config.client_address)
    }
}

impl TracerState {
    /// Decides whether a request is recorded. What callers say counts only if the settings trust
    /// them, and neither does their choice of a trace id decide.
    fn is_sampled(&self, parent: Option<SpanIds>) -> bool {
        let ratio = self.config.sample_ratio;
        match parent.filter(|_| self.config.trust_sampled) {
            Some(parent) => parent.sampled,
            None => ratio >= 1.0 || f64::from(u32::from_ne_bytes(random::bytes())) / 4_294_967_296.0 < ratio,
        }
    }
}

/// The handle with which calls start spans below a request's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpanParent {
    shared: Arc<TracerState>,
    ids: SpanIds,
}

impl SpanParent {
    /// Starts the span of a call that the gateway makes.
    pub fn start_client_span(&self, name: impl Into<Cow<'static, str>>, started: Instant) -> TraceSpan {
        let ids = self.ids.new_child(self.ids.sampled);
        let mut span = TraceSpan::new(&self.shared, ids, Some(self.ids), None, SpanKind::Client, started);
        span.set_name(name);
        span
    }

    /// Returns the ids of the request's span.
    pub fn ids(&self) -> SpanIds {
        self.ids
    }
}

/// A span under way.
#[derive(Debug)]
pub struct TraceSpan {
    shared: Arc<TracerState>,
    ids: SpanIds,
    parent: Option<SpanIds>,
    link: Option<SpanIds>,
    kind: SpanKind,
    name: Cow<'static, str>,
    started: Instant,
    attributes: Vec<KeyValue>,
    /// Whether somebody said how it ended.
    is_finished: bool,
    is_error: bool,
}

impl TraceSpan {
    fn new(
        shared: &Arc<TracerState>,
        ids: SpanIds,
        parent: Option<SpanIds>,
        link: Option<SpanIds>,
        kind: SpanKind,
        started: Instant,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            ids,
            parent,
            link,
            kind,
            name: Cow::Borrowed(""),
            started,
            attributes: Vec::new(),
            is_finished: false,
            is_error: false,
        }
    }

    /// Returns the span's ids.
    pub fn ids(&self) -> SpanIds {
        self.ids
    }

    /// Returns the handle with which spans below this one are started.
    pub fn as_parent(&self) -> SpanParent {
        SpanParent { shared: Arc::clone(&self.shared), ids: self.ids }
    }

    /// Names the span.
    pub fn set_name(&mut self, name: impl Into<Cow<'static, str>>) {
        self.name = name.into();
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<AttributeValue>) {
        if self.ids.sampled {
            self.attributes.push(key_value(key, value));
        }
    }

    /// Ends the span of something that succeeded.
    pub fn finish(mut self) {
        self.is_finished = true;
    }

    /// Ends the span of something that failed; `error` is a word of this program, or a code.
    pub fn fail(mut self, error: &str) {
        self.set("error.type", error);
        (self.is_finished, self.is_error) = (true, true);
    }

    fn take_proto(&mut self) -> proto::Span {
        let now = self.shared.clock.now().as_nanosecond();
        let elapsed = self.shared.clock.monotonic().saturating_duration_since(self.started);
        let (start, end) = (now - nanoseconds(elapsed), now);
        let is_remote = self.kind == SpanKind::Server && self.parent.is_some();
        let remote = if is_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
        let link = self.link.map(|link| Link {
            trace_id: link.trace.to_vec(),
            span_id: link.span.to_vec(),
            flags: u32::from(link.sampled),
            ..Link::default()
        });
        proto::Span {
            trace_id: self.ids.trace.to_vec(),
            span_id: self.ids.span.to_vec(),
            parent_span_id: self.parent.map(|parent| parent.span.to_vec()).unwrap_or_default(),
            flags: 1 | SpanFlags::ContextHasIsRemoteMask as u32 | remote,
            name: std::mem::take(&mut self.name).into_owned(),
            kind: self.kind.into(),
            start_time_unix_nano: u64::try_from(start).unwrap_or_default(),
            end_time_unix_nano: u64::try_from(end).unwrap_or_default(),
            attributes: std::mem::take(&mut self.attributes),
            links: link.into_iter().collect(),
            status: self.is_error.then(|| Status { code: StatusCode::Error.into(), ..Status::default() }),
            ..proto::Span::default()
        }
    }
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        if !self.ids.sampled {
            return;
        }
        if !self.is_finished {
            self.set("error.type", "cancelled");
            self.is_error = true;
        }
        let span = self.take_proto();
        self.shared.spans.push(span);
    }
}

fn nanoseconds(elapsed: Duration) -> i128 {
    i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX)
}

/// The value of an attribute.
#[derive(Debug)]
pub struct AttributeValue(Value);

impl From<&str> for AttributeValue {
    /// Takes a text, without characters that a terminal obeys and not all of a long one.
    fn from(text: &str) -> Self {
        let text = printable(text);
        Self(Value::StringValue(text.chars().take(MAX_TEXT).collect()))
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self(Value::IntValue(number))
    }
}

impl From<u16> for AttributeValue {
    fn from(number: u16) -> Self {
        i64::from(number).into()
    }
}

pub(super) fn key_value(key: impl Into<String>, value: impl Into<AttributeValue>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value.into().0) }), ..KeyValue::default() }
}
