//! The body of a response, which keeps its request in flight and its memory counted until its bytes
//! have left.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};

use super::activity::InFlightRequest;
use crate::base::body::Body;
use crate::base::budget::{Exhausted, Reservation};

/// Chunks of a response up to this size are not counted separately while they are being sent.
const MAX_UNCOUNTED_BYTES: usize = 1 << 10;

/// A response body that keeps its request counted as in flight, reports whether the client or the
/// server has to act next, and holds its reservation until its bytes have left: HTTP/2 buffers
/// bytes for which the client gives no window.
pub(super) struct InFlightBody {
    body: Body,
    in_flight: InFlightRequest,
    reservation: Arc<Reservation>,
    /// The whole body is already counted; a stream's chunks are counted as they come.
    is_whole: bool,
    /// The chunks are events (`text/event-stream`), each with one JSON-RPC message.
    is_events: bool,
    /// The body ended early for lack of room.
    is_cut: bool,
}

impl InFlightBody {
    /// Creates the body that belongs to this response head.
    pub(super) fn new(
        body: Body,
        head: &HeaderMap,
        mut in_flight: InFlightRequest,
        reservation: Reservation,
    ) -> Self {
        in_flight.mark_chunk_ready();
        let is_whole = body.size_hint().exact().is_some();
        let is_events = head.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        Self { body, in_flight, reservation: Arc::new(reservation), is_whole, is_events, is_cut: false }
    }

    /// Adds the chunk's reservation. A stream's chunk without room ends the stream, with an error
    /// event if the stream consists of events.
    fn with_reservation(&mut self, chunk: Bytes) -> Option<Bytes> {
        if chunk.len() <= MAX_UNCOUNTED_BYTES {
            return Some(chunk);
        }
        let reservation = match self.is_whole {
            true => Arc::clone(&self.reservation),
            false => {
                let mut reservation = self.reservation.new_empty();
                if let Err(exhausted) = reservation.try_grow(chunk.len() as u64) {
                    self.is_cut = true;
                    return self.is_events.then(|| budget_exhausted_event(&chunk, exhausted));
                }
                Arc::new(reservation)
            }
        };
        Some(Bytes::from_owner(ReservedChunk { chunk, _reservation: reservation }))
    }
}

/// Builds the event that replaces a message without room: a JSON-RPC error with the message's id.
fn budget_exhausted_event(event: &[u8], exhausted: Exhausted) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Message {
        #[serde(default)]
        id: serde_json::Value,
    }
    let lines = event.split(|byte| *byte == b'\n');
    let data = lines.filter_map(|line| line.strip_prefix(b"data:")).collect::<Vec<_>>().concat();
    let id = serde_json::from_slice(&data).map_or(serde_json::Value::Null, |message: Message| message.id);
    let message = format!("{exhausted}; try again in a moment");
    let error =
        serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32603, "message": message } });
    Bytes::from(format!("data: {error}\n\n"))
}

/// A chunk being sent, with its reservation.
struct ReservedChunk {
    chunk: Bytes,
    _reservation: Arc<Reservation>,
}

impl AsRef<[u8]> for ReservedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl http_body::Body for InFlightBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.is_cut {
            return Poll::Ready(None);
        }
        this.in_flight.mark_chunk_taken();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_ready() {
            this.in_flight.mark_chunk_ready();
        }
        polled.map(|frame| match frame?.map(Frame::into_data) {
            Ok(Ok(chunk)) => this.with_reservation(chunk).map(Frame::data).map(Ok),
            Ok(Err(other)) => Some(Ok(other)),
            Err(never) => match never {},
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_cut || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::super::activity::Activity;
    use super::*;
    use crate::base::budget::Budget;
    use crate::server::body::tests::frames;

    #[tokio::test]
    async fn a_stream_without_room_ends_with_an_error_event() {
        let memory = Budget::from_mib(1);
        let mut others = memory.new_reservation(None, None, true);
        assert_eq!(others.try_grow((1 << 20) - MAX_UNCOUNTED_BYTES as u64), Ok(()));
        let event = format!(
            "id: 1\ndata: {{\"jsonrpc\":\"2.0\",\"id\":\"q-7\",\"result\":\"{}\"}}\n\n",
            "x".repeat(5_000)
        );
        let mut events = frames(&[": alive\n\n"]);
        events.frames.push_back(Ok(Frame::data(Bytes::from(event))));
        events.frames.push_back(Ok(Frame::data(Bytes::from_static(b": more\n\n"))));
        let body = events.map_err(|_| unreachable!("frames of a test")).boxed();
        let mut head = HeaderMap::new();
        head.insert(header::CONTENT_TYPE, "text/event-stream".parse().expect("a value"));
        let in_flight = Arc::new(Activity::default()).begin_request();
        let stream = InFlightBody::new(body, &head, in_flight, memory.new_reservation(None, None, true));
        let told = stream.collect().await.expect("it cannot fail").to_bytes();
        let told = String::from_utf8_lossy(&told);
        let said = told.strip_prefix(": alive\n\ndata: ").and_then(|said| said.strip_suffix("\n\n"));
        let said: serde_json::Value = serde_json::from_str(said.expect("one event more")).expect("JSON");
        assert_eq!((&said["id"], &said["error"]["code"]), (&"q-7".into(), &(-32603).into()), "{said}");
        assert!(said["error"]["message"].as_str().is_some_and(|text| text.contains("try again")), "{said}");
    }

    #[tokio::test]
    async fn a_response_is_reserved_until_its_bytes_are_sent() {
        let memory = Budget::from_mib(1);
        let answer = |body: Body, weight: u64| {
            let mut reservation = memory.new_reservation(None, None, true);
            assert_eq!(reservation.try_grow(weight), Ok(()));
            InFlightBody::new(
                body,
                &HeaderMap::new(),
                Arc::new(Activity::default()).begin_request(),
                reservation,
            )
        };
        let mut whole = answer(Full::from(vec![0; 5_000]).boxed(), 5_000);
        let chunk = whole.frame().await.expect("a frame").map(Frame::into_data);
        drop(whole);
        assert_eq!(memory.held(), 5_000, "the connection has it still");
        drop(chunk);
        assert_eq!(memory.held(), 0);
        let streamed = frames(&["small"]).map_err(|_| unreachable!("frames of a test")).boxed();
        let mut stream = answer(streamed, 7);
        drop(stream.frame().await);
        assert_eq!(memory.held(), 7);
    }
}
