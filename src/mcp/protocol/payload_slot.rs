//! How the bytes of a result get into rmcp's message.
//!
//! A handler puts the [`Payload`] of its result into the request's [`PayloadSlot`] and returns an
//! empty result to rmcp; [`insert_payload`] then replaces the empty members in rmcp's output. A
//! caller cannot forge the text that is replaced: a quote within a string is escaped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use rmcp::RoleServer;
use rmcp::service::RequestContext;

use super::accept::is_event_stream;
use crate::base::body::Body;
use crate::base::sync;
use crate::mcp::payload::Payload;

/// Where a handler puts the payload of its result; passed in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct PayloadSlot(Arc<Mutex<Option<Payload>>>);

impl PayloadSlot {
    /// Returns the slot of a request, or an unused one in tests that bypass `service::handle`.
    pub(super) fn from_context(context: &RequestContext<RoleServer>) -> Self {
        let parts = context.extensions.get::<http::request::Parts>();
        parts.and_then(|parts| parts.extensions.get::<Self>()).cloned().unwrap_or_default()
    }

    pub(super) fn set(&self, payload: Option<Payload>) {
        *self.lock() = payload;
    }

    /// Returns the message with the payload written into it, or unchanged if there is none.
    fn insert_into(&self, message: Bytes) -> VecDeque<Bytes> {
        let mut slot = self.lock();
        let Some(replaced) = slot.as_ref().map(Payload::instead_of) else { return [message].into() };
        let Some(position) = find_bytes(&message, replaced) else { return [message].into() };
        let rest = message.slice(position + replaced.len()..);
        let mut pieces = VecDeque::from([message.slice(..position)]);
        pieces.extend(slot.take().map(Payload::into_pieces).unwrap_or_default());
        pieces.push_back(rest);
        coalesce(pieces)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Payload>> {
        sync::lock(&self.0)
    }
}

/// Joins the pieces if they are small, since each would be a frame of its own.
fn coalesce(pieces: VecDeque<Bytes>) -> VecDeque<Bytes> {
    const MAX_COALESCED_BYTES: usize = 32 << 10;
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    if bytes > MAX_COALESCED_BYTES {
        return pieces;
    }
    let mut all = Vec::with_capacity(bytes);
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    [all.into()].into()
}

fn find_bytes(message: &[u8], part: &str) -> Option<usize> {
    message.windows(part.len()).position(|window| window == part.as_bytes())
}

/// Writes the payload that a handler left in the slot into rmcp's response.
pub(super) async fn insert_payload(response: Response<Body>, slot: PayloadSlot) -> Response<Body> {
    if is_event_stream(&response) {
        return response.map(|body| PayloadStream { body, slot, pieces: VecDeque::new() }.boxed());
    }
    let (parts, body) = response.into_parts();
    let Ok(message) = body.collect().await;
    Response::from_parts(parts, ChunkedBody(slot.insert_into(message.to_bytes())).boxed())
}

/// A body whose pieces are all available.
struct ChunkedBody(VecDeque<Bytes>);

impl HttpBody for ChunkedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Frame::data).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// A stream of messages, one per frame; one of them may get the payload.
struct PayloadStream {
    body: Body,
    slot: PayloadSlot,
    pieces: VecDeque<Bytes>,
}

impl HttpBody for PayloadStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pieces.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(message)) => self.pieces = self.slot.insert_into(message),
                Ok(Err(other)) => return Poll::Ready(Some(Ok(other))),
            }
        }
        Poll::Ready(self.pieces.pop_front().map(Frame::data).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::payload::{NO_RESULT, placeholder_resource, placeholder_result};

    fn payload() -> Payload {
        Payload::for_tool_result(
            vec![Bytes::from_static(b"\"content\":[1]"), Bytes::from_static(b",\"x\":2")],
            1,
        )
    }

    fn completed(slot: &PayloadSlot, message: &str) -> String {
        let pieces = slot.insert_into(message.to_owned().into());
        String::from_utf8(pieces.into_iter().flatten().collect()).expect("text")
    }

    #[test]
    fn a_payload_replaces_the_first_empty_members_only() {
        let slot = PayloadSlot::default();
        let written = serde_json::to_string(&placeholder_result()).expect("JSON");
        assert_eq!(completed(&slot, &written), written);
        slot.set(Some(payload()));
        let progress = r#"{"method":"notifications/progress"}"#;
        assert_eq!(completed(&slot, progress), progress, "it waits for its message");
        let whole = completed(&slot, &written);
        assert!(whole.contains(r#""content":[1],"x":2,"isError":false"#), "{whole}");
        assert_eq!(completed(&slot, &written), written);
    }

    #[test]
    fn a_resource_gets_its_text() {
        let slot = PayloadSlot::default();
        slot.set(Some(Payload::for_resource(Bytes::from_static(b"\"{}\""))));
        let contents = placeholder_resource("context://x\"text\":\"\"");
        let whole = completed(&slot, &serde_json::to_string(&contents).expect("JSON"));
        let whole: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
        assert_eq!(whole["text"], "{}");
    }

    #[test]
    fn an_id_cannot_take_the_place_of_a_payload() {
        let slot = PayloadSlot::default();
        slot.set(Some(payload()));
        let message = json!({ "id": NO_RESULT, "result": placeholder_result() }).to_string();
        let whole: serde_json::Value = serde_json::from_str(&completed(&slot, &message)).expect("JSON");
        assert_eq!((&whole["id"], &whole["result"]["x"]), (&json!(NO_RESULT), &json!(2)));
    }
}
