//! Tells open pages that something changed, as server-sent events: the generation and the number of
//! tenants in each state. A page then fetches again what it shows.
//!
//! A stream holds a connection that waits for its client, so it gives way to probes. There are a
//! few at most; one more ends the oldest, whose page connects again after a while.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admin::Admin;
use crate::base::body::Body;
use crate::base::clock::Clock;
use crate::base::sync::lock;
use crate::tenants::registry::Registry;

/// The maximum number of streams.
const MAX_STREAMS: usize = 8;
/// The shortest time between two events, and between two counts.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// How often to look for changes that are no publication, as of a backend that fails.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After so many looks without news, a comment shows whether the client is still there.
const QUIET_LOOKS: u32 = 3;
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// The open streams of one gateway's console. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct EventStreams(Arc<StreamsState>);

#[derive(Debug, Default)]
struct StreamsState {
    /// The oldest first.
    open: Mutex<VecDeque<CancellationToken>>,
    /// What was last counted, and when.
    counted: Mutex<Option<(Instant, Arc<str>)>>,
}

impl EventStreams {
    /// Adds a stream and returns what ends it; the oldest ends if there are too many.
    fn add(&self) -> CancellationToken {
        let mut open = lock(&self.0.open);
        open.retain(|stream| !stream.is_cancelled());
        if open.len() >= MAX_STREAMS
            && let Some(oldest) = open.pop_front()
        {
            oldest.cancel();
        }
        let stream = CancellationToken::new();
        open.push_back(stream.clone());
        stream
    }

    /// Returns the state of the tenants, counted at most once a second for all streams.
    fn count(&self, registry: &Registry, now: Instant) -> Arc<str> {
        let mut counted = lock(&self.0.counted);
        if let Some((at, state)) = &*counted
            && now.saturating_duration_since(*at) < SHORTEST_PAUSE
        {
            return Arc::clone(state);
        }
        let table = registry.load();
        let states: serde_json::Map<_, _> = table
            .count_current_states()
            .into_iter()
            .map(|(state, count)| (state.to_owned(), json!(count)))
            .collect();
        let state: Arc<str> = json!({ "generation": table.generation, "states": states }).to_string().into();
        *counted = Some((now, Arc::clone(&state)));
        state
    }
}

/// Opens a stream.
pub(super) fn open(admin: &Admin) -> Response<Body> {
    let ended = admin.console.streams.add();
    let source = EventSource {
        streams: admin.console.streams.clone(),
        registry: admin.registry.clone(),
        generation: admin.registry.subscribe_generation(),
        clock: Arc::clone(&admin.clock),
        _forgotten_with_it: ended.clone().drop_guard(),
        ended,
        shutdown: admin.tasks.shutdown_signal().clone(),
        last: None,
    };
    let events = stream::unfold(source, |mut source| async {
        let event = source.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(event)), source))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(events)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What one stream needs.
struct EventSource {
    streams: EventStreams,
    registry: Registry,
    generation: watch::Receiver<u64>,
    clock: Arc<dyn Clock>,
    ended: CancellationToken,
    _forgotten_with_it: DropGuard,
    shutdown: CancellationToken,
    /// What the client knows.
    last: Option<Arc<str>>,
}

impl EventSource {
    /// Waits for news and returns the event, or a comment after a quiet while. `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let (ended, shutdown) = (self.ended.clone(), self.shutdown.clone());
        tokio::select! {
            () = ended.cancelled() => None,
            () = shutdown.cancelled() => None,
            event = self.find_news() => Some(event),
        }
    }

    async fn find_news(&mut self) -> Bytes {
        let mut quiet_looks = 0;
        loop {
            if self.last.is_some() {
                tokio::time::sleep(SHORTEST_PAUSE).await;
                // An error would mean that the registry is gone, but it is held here.
                let _late = tokio::time::timeout(LOOK_INTERVAL, self.generation.changed()).await.is_err();
            }
            let state = self.streams.count(&self.registry, self.clock.monotonic());
            if self.last.as_ref() != Some(&state) {
                let event = format!("event: change\ndata: {state}\n\n");
                self.last = Some(state);
                return event.into();
            }
            quiet_looks += 1;
            if quiet_looks == QUIET_LOOKS {
                return Bytes::from_static(b":\n\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_stream_ends_the_oldest_and_one_that_is_over_makes_room() {
        let streams = EventStreams::default();
        let mut open: VecDeque<_> = (0..MAX_STREAMS).map(|_| streams.add()).collect();
        drop(open.pop_back().expect("the last").drop_guard());
        open.push_back(streams.add());
        assert!(open.iter().all(|stream| !stream.is_cancelled()), "there was room");
        let _newest = streams.add();
        let ended: Vec<_> = open.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(ended.iter().filter(|is_ended| **is_ended).count(), 1);
        assert!(ended[0], "the oldest");
    }
}
