//! Spans: of a request that the gateway answers (SERVER), and of a call that it makes (CLIENT).
//!
//! A span that is not sampled has ids, which are passed on, and records nothing. A span is exported
//! when it is dropped, so a call that is cancelled has one as well.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{self as proto, SpanFlags, Status};

use super::TraceConfig;
use super::attribute::{AttributeValue, key_value};
use super::ids::SpanIds;
use super::queue::ExportQueue;
use crate::base::clock::Clock;
use crate::base::random;

/// Some seconds of a busy gateway; about 4 MB.
const MAX_WAITING: usize = 4096;

/// What all spans of a gateway share.
#[derive(Debug)]
pub(super) struct TracerState {
    config: TraceConfig,
    clock: Arc<dyn Clock>,
    pub(super) spans: Arc<ExportQueue<proto::Span>>,
}

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
    pub(super) fn new(config: TraceConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, spans: Arc::new(ExportQueue::new(MAX_WAITING)) }
    }

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

    /// Returns whether the span is recorded.
    pub fn is_recorded(&self) -> bool {
        self.ids.sampled
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    fn tracer(sample_ratio: f64, trust_sampled: bool) -> (Tracer, Arc<ExportQueue<proto::Span>>) {
        let config = TraceConfig { sample_ratio, trust_sampled, client_address: false };
        let state = Arc::new(TracerState::new(config, SystemClock::shared()));
        let spans = Arc::clone(&state.spans);
        (Tracer(Some(state)), spans)
    }

    fn remote(sampled: bool) -> RemoteSpans {
        RemoteSpans { parent: Some(SpanIds { trace: [7; 16], span: [8; 8], sampled }), link: None }
    }

    /// Returns how many of 2,000 requests are recorded.
    fn count_recorded(tracer: &Tracer, remote: RemoteSpans) -> usize {
        let start = || tracer.start_server_span(remote, SystemClock.monotonic()).expect("it is on");
        (0..2_000).filter(|_| start().is_recorded()).count()
    }

    #[test]
    fn the_share_decides_and_the_callers_flag_only_where_it_is_trusted() {
        let (half, _) = tracer(0.5, false);
        for remote in [RemoteSpans::default(), remote(true), remote(false)] {
            // Ten standard deviations.
            assert!((777..1223).contains(&count_recorded(&half, remote)), "{remote:?}");
        }
        let (trusting, _) = tracer(0.0, true);
        assert_eq!(count_recorded(&trusting, remote(true)), 2_000);
        assert_eq!(count_recorded(&trusting, remote(false)), 0);
        assert_eq!(count_recorded(&trusting, RemoteSpans::default()), 0);
        assert!(Tracer::default().start_server_span(remote(true), SystemClock.monotonic()).is_none());
    }

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_counted() {
        let (tracer, spans) = tracer(1.0, false);
        for _ in 0..MAX_WAITING + 904 {
            let span = tracer.start_server_span(RemoteSpans::default(), SystemClock.monotonic());
            span.expect("it is on").finish();
        }
        assert_eq!(spans.counts("spans").dropped, 904);
        assert_eq!(spans.take(usize::MAX).len(), MAX_WAITING);
    }

    #[test]
    fn a_span_names_its_parent_and_its_link_and_a_dropped_one_was_cancelled() {
        let (tracer, spans) = tracer(1.0, false);
        let link = SpanIds { trace: [1; 16], span: [2; 8], sampled: true };
        let remote = RemoteSpans { link: Some(link), ..remote(false) };
        drop(tracer.start_server_span(remote, SystemClock.monotonic()));
        let span = spans.take(1).pop().expect("it is exported");
        assert_eq!((span.trace_id, span.parent_span_id), (vec![7; 16], vec![8; 8]));
        assert_eq!((&*span.links[0].trace_id, &*span.links[0].span_id), (&[1; 16][..], &[2; 8][..]));
        assert_eq!(span.attributes, [key_value("error.type", "cancelled")]);
    }
}
