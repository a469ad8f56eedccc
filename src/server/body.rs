//! Bodies: reads a request's under a size cap, a deadline and a budget, and counts a response's
//! until its bytes have left.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use super::budgets::{Attribution, MeteredBudget};
use super::timeouts::{Activity, BodyReadGuard, InFlightRequest};
use crate::base::body::Body;
use crate::base::budget::{Exhausted, Reservation};

/// Memory that a request takes besides its body while that is awaited: its head and its state. An
/// HTTP/2 client may start a hundred requests on each connection and send no body.
pub(super) const HEAD_BYTES: u64 = 16 << 10;
/// How often the progress of an awaited body is checked.
const LOOK: Duration = Duration::from_secs(3);
/// Bytes that must arrive between two checks when room is scarce, so that a client cannot hold a
/// reservation by withholding the last bytes.
const LEAST_IN_A_LOOK: usize = 32 << 10;
/// Chunks of a response up to this size are not counted separately while they are being sent.
const SMALL: usize = 1 << 10;

/// How much of a refused request's body is read before the response, so that its connection can be
/// reused.
const PASSED_OVER: usize = 64 << 10;
/// How long that may take.
const DISCARD: Duration = Duration::from_millis(500);

/// Why a request's body was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request body is larger than the {cap} bytes that are accepted here")]
    TooLarge { cap: usize },
    #[error("the request body did not arrive in time")]
    TooSlow,
    #[error("the request body is broken off or badly framed")]
    Broken,
    #[error("{0}; try again in a moment")]
    BudgetExhausted(#[from] Exhausted),
}

impl BodyError {
    /// Returns the status of the response.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::BudgetExhausted(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What is accepted of a request's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) max_bytes: usize,
    /// How long the whole body may take.
    pub(super) deadline: Duration,
    /// How many times its size the body takes while its request is worked on.
    pub(super) factor: u64,
}

/// Reads the whole body, counted in `budget`, which records it if there is no room. Returns the
/// request and its reservation.
pub(super) async fn read_metered<B>(
    request: Request<B>,
    limits: BodyLimits,
    budget: &MeteredBudget,
    attribution: &Attribution,
    now: Instant,
) -> Result<(Request<Bytes>, Reservation), BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut reservation = budget.new_reservation(attribution);
    let read = read(request, limits.max_bytes, limits.deadline, &mut reservation).await;
    let read = read.and_then(|request| {
        if limits.factor > 1 {
            reservation.try_grow(request.body().len() as u64 * (limits.factor - 1))?;
        }
        Ok(request)
    });
    if let Err(BodyError::BudgetExhausted(exhausted)) = read {
        budget.record_rejection(exhausted, attribution, now);
    }
    Ok((read?, reservation))
}

/// Reads the whole body: at most `cap` bytes, within `deadline`, and while the budget has room for
/// what arrives. A Content-Length above the cap is refused without reading. While the parties of
/// `held` are close to their shares, a body that makes little progress is refused early.
async fn read<B>(
    request: Request<B>,
    cap: usize,
    deadline: Duration,
    held: &mut Reservation,
) -> Result<Request<Bytes>, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if announced(request.headers()).is_some_and(|length| length > cap as u64) {
        return Err(BodyError::TooLarge { cap });
    }
    let (parts, mut body) = request.into_parts();
    let reading = collect(&mut body, cap, held);
    let bytes = tokio::time::timeout(deadline, reading).await.map_err(|_| BodyError::TooSlow)??;
    Ok(Request::from_parts(parts, bytes))
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Collects the body. Most bodies are a single frame, which is returned without copying.
async fn collect<B>(body: &mut B, cap: usize, held: &mut Reservation) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    held.try_grow(HEAD_BYTES)?;
    let mut pace = BodyProgress::default();
    let Some(first) = pace.next(body, held).await? else { return Ok(Bytes::new()) };
    held.try_grow(first.len() as u64)?;
    if first.len() <= cap && body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while whole.len() <= cap {
        let Some(more) = pace.next(body, held).await? else { return Ok(whole.freeze()) };
        held.try_grow(more.len() as u64)?;
        whole.extend_from_slice(&more);
    }
    Err(BodyError::TooLarge { cap })
}

/// The progress of one body.
#[derive(Default)]
struct BodyProgress {
    since_last_look: usize,
    /// The timer until the next check; a body that is already complete needs none.
    look: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl BodyProgress {
    /// Returns the next data frame, or an error if the body makes little progress while room is
    /// scarce.
    async fn next<B>(&mut self, body: &mut B, held: &Reservation) -> Result<Option<Bytes>, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        loop {
            tokio::select! {
                biased;
                data = next(body) => {
                    let data = data?;
                    self.since_last_look += data.as_ref().map_or(0, Bytes::len);
                    return Ok(data);
                }
                () = look(&mut self.look) => {
                    let moved = std::mem::take(&mut self.since_last_look);
                    if moved < LEAST_IN_A_LOOK && held.is_under_pressure() {
                        return Err(BodyError::TooSlow);
                    }
                }
            }
        }
    }
}

/// Waits for the next check. The timer survives when this future is dropped because data arrives.
async fn look(sleep: &mut Option<Pin<Box<tokio::time::Sleep>>>) {
    sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK))).as_mut().await;
    *sleep = None;
}

/// Returns the next data frame and skips trailers.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A request body that reports when the server waits for it, and when it is dropped before its end.
pub(super) struct TrackedRequestBody<B: http_body::Body> {
    body: B,
    ended: bool,
    broken: bool,
    /// The client sends it only when asked to (RFC 9110 section 10.1.1).
    is_withheld: bool,
    reading: BodyReadGuard,
}

impl<B: http_body::Body> TrackedRequestBody<B> {
    /// Creates the body that belongs to this request head.
    pub(super) fn new(body: B, head: &HeaderMap, activity: Arc<Activity>) -> Self {
        let is_withheld = head.contains_key(header::EXPECT);
        Self {
            ended: body.is_end_stream(),
            broken: false,
            is_withheld,
            body,
            reading: BodyReadGuard::new(activity),
        }
    }

    /// Whether the whole body was read.
    pub(super) fn was_read(&self) -> bool {
        self.ended && !self.broken
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> TrackedRequestBody<B> {
    /// Reads on for a moment, so that a small refused request does not end its connection. Returns
    /// whether the body ended; if not, an HTTP/1 connection cannot be reused.
    pub(super) async fn pass_over(&mut self) -> bool {
        // A client that waits for `100 Continue` is not asked for a body that will be dropped.
        let is_hopeless = self.broken || self.is_withheld || self.size_hint().lower() > PASSED_OVER as u64;
        if !is_hopeless && !self.ended {
            let passing = async {
                let mut passed = 0;
                while let Ok(Some(more)) = next(self).await {
                    passed += more.len();
                    if passed > PASSED_OVER {
                        break;
                    }
                }
            };
            // On a timeout the rest stays unread, which `was_read` reports.
            _ = tokio::time::timeout(DISCARD, passing).await;
        }
        self.was_read()
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for TrackedRequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        this.ended |= matches!(polled, Poll::Ready(None)) || this.body.is_end_stream();
        this.broken |= matches!(polled, Poll::Ready(Some(Err(_))));
        // Polling asks the client for the body (`100 Continue`).
        this.is_withheld = false;
        this.reading.set_waiting(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: http_body::Body> Drop for TrackedRequestBody<B> {
    fn drop(&mut self) {
        if !self.was_read() {
            self.reading.mark_unread();
        }
    }
}

/// A response body that keeps its request counted as in flight, reports whether the client or the
/// server has to act next, and holds its reservation until its bytes have left: HTTP/2 buffers
/// bytes for which the client gives no window.
pub(super) struct InFlightBody {
    body: Body,
    under_way: InFlightRequest,
    room: Arc<Reservation>,
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
        mut under_way: InFlightRequest,
        room: Reservation,
    ) -> Self {
        under_way.mark_chunk_ready();
        let is_whole = body.size_hint().exact().is_some();
        let is_events = head.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        Self { body, under_way, room: Arc::new(room), is_whole, is_events, is_cut: false }
    }

    /// Adds the chunk's reservation. A stream's chunk without room ends the stream, with an error
    /// event if the stream consists of events.
    fn count(&mut self, piece: Bytes) -> Option<Bytes> {
        if piece.len() <= SMALL {
            return Some(piece);
        }
        let room = match self.is_whole {
            true => Arc::clone(&self.room),
            false => {
                let mut room = self.room.new_empty();
                if let Err(exhausted) = room.try_grow(piece.len() as u64) {
                    self.is_cut = true;
                    return self.is_events.then(|| no_room_event(&piece, exhausted));
                }
                Arc::new(room)
            }
        };
        Some(Bytes::from_owner(ReservedChunk { piece, _room: room }))
    }
}

/// Builds the event that replaces a message without room: a JSON-RPC error with the message's id.
fn no_room_event(event: &[u8], exhausted: Exhausted) -> Bytes {
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
    piece: Bytes,
    _room: Arc<Reservation>,
}

impl AsRef<[u8]> for ReservedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.piece
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
        this.under_way.mark_chunk_taken();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_ready() {
            this.under_way.mark_chunk_ready();
        }
        polled.map(|frame| match frame?.map(Frame::into_data) {
            Ok(Ok(piece)) => this.count(piece).map(Frame::data).map(Ok),
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
    use std::collections::VecDeque;

    use http_body_util::Full;

    use super::*;
    use crate::base::budget::{Budget, Consumer};

    const PATIENCE: Duration = Duration::from_secs(30);
    const NO_ROOM: BodyError = BodyError::BudgetExhausted(Exhausted::Budget);

    /// A body with the given frames; then it ends, or stays silent.
    struct ScriptedBody {
        frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
        silent: bool,
    }

    impl http_body::Body for ScriptedBody {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.frames.pop_front() {
                None if self.silent => Poll::Pending,
                next => Poll::Ready(next),
            }
        }
    }

    fn frames(data: &[&'static str]) -> ScriptedBody {
        let frames = data.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))).collect();
        ScriptedBody { frames, silent: false }
    }

    async fn read_of<B>(body: B, cap: usize) -> Result<Bytes, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let mut held = Budget::from_mib(1).new_reservation(None, None, true);
        read(Request::new(body), cap, PATIENCE, &mut held).await.map(Request::into_body)
    }

    #[tokio::test]
    async fn a_body_up_to_the_cap_is_read() {
        assert_eq!(read_of(Full::from("12345"), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read_of(frames(&["12", "", "345"]), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read_of(frames(&[]), 5).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_body_beyond_the_cap_is_refused() {
        assert_eq!(read_of(Full::from("123456"), 5).await, Err(BodyError::TooLarge { cap: 5 }));
        assert_eq!(read_of(frames(&["123", "456"]), 5).await, Err(BodyError::TooLarge { cap: 5 }));
        let unread = ScriptedBody { frames: VecDeque::new(), silent: true };
        let announced = Request::builder().header("content-length", "6").body(unread).expect("a request");
        let refused =
            read(announced, 5, PATIENCE, &mut Budget::from_mib(1).new_reservation(None, None, true)).await;
        assert_eq!(refused.map(|_| ()), Err(BodyError::TooLarge { cap: 5 }));
    }

    #[tokio::test]
    async fn a_body_without_room_is_refused_and_takes_none() {
        let memory = Budget::from_mib(1);
        let mut others = memory.new_reservation(None, None, true);
        assert_eq!(others.try_grow((1 << 20) - HEAD_BYTES - 4), Ok(()));
        let read = async |body| {
            let mut held = memory.new_reservation(None, None, true);
            let body = read(Request::new(body), 9, PATIENCE, &mut held).await.map(Request::into_body);
            (body, held)
        };
        let (fits, held) = read(frames(&["12", "34"])).await;
        assert_eq!(fits, Ok(Bytes::from("1234")));
        assert_eq!(read(frames(&["1"])).await.0, Err(NO_ROOM), "the first is being answered");
        drop(held);
        assert_eq!(read(frames(&["12", "345"])).await.0, Err(NO_ROOM));
        assert_eq!(others.try_grow(4), Ok(()));
    }

    #[tokio::test]
    async fn a_broken_body_is_never_a_short_one() {
        let mut body = frames(&["12"]);
        body.frames.push_back(Err("bad chunk"));
        assert_eq!(read_of(body, 5).await, Err(BodyError::Broken));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let body = ScriptedBody { silent: true, ..frames(&["12"]) };
        assert_eq!(read_of(body, 5).await, Err(BodyError::TooSlow));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_hardly_moves_is_given_up_early_where_its_party_takes_much() {
        let memory = Budget::from_mib(1);
        let share = || Some(memory.share(Consumer::Tenant("a".into())));
        let mut others = memory.new_reservation(share(), None, true);
        assert_eq!(others.try_grow(memory.share_limit() / 2 - HEAD_BYTES - 1), Ok(()));
        let took = async |first: &'static str| {
            let mut held = memory.new_reservation(share(), None, true);
            let body = ScriptedBody { silent: true, ..frames(&[first]) };
            let reading = read(Request::new(body), 9, PATIENCE, &mut held);
            tokio::time::timeout(LOOK * 2, reading).await.map(|read| read.map(|_| ()))
        };
        assert!(took("1").await.is_err(), "there is no hurry yet");
        assert_eq!(took("12").await, Ok(Err(BodyError::TooSlow)));
    }

    #[tokio::test]
    async fn a_stream_that_finds_no_room_says_so_to_who_waits_for_that_answer() {
        let memory = Budget::from_mib(1);
        let mut others = memory.new_reservation(None, None, true);
        assert_eq!(others.try_grow((1 << 20) - SMALL as u64), Ok(()));
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
        let under_way = Arc::new(Activity::default()).begin_request();
        let stream = InFlightBody::new(body, &head, under_way, memory.new_reservation(None, None, true));
        let told = stream.collect().await.expect("it cannot fail").to_bytes();
        let told = String::from_utf8_lossy(&told);
        let said = told.strip_prefix(": alive\n\ndata: ").and_then(|said| said.strip_suffix("\n\n"));
        let said: serde_json::Value = serde_json::from_str(said.expect("one event more")).expect("JSON");
        assert_eq!((&said["id"], &said["error"]["code"]), (&"q-7".into(), &(-32603).into()), "{said}");
        assert!(said["error"]["message"].as_str().is_some_and(|text| text.contains("try again")), "{said}");
    }

    #[tokio::test]
    async fn an_answer_takes_room_until_its_bytes_have_left() {
        let memory = Budget::from_mib(1);
        let answer = |body: Body, weight: u64| {
            let mut room = memory.new_reservation(None, None, true);
            assert_eq!(room.try_grow(weight), Ok(()));
            InFlightBody::new(body, &HeaderMap::new(), Arc::new(Activity::default()).begin_request(), room)
        };
        let mut whole = answer(Full::from(vec![0; 5_000]).boxed(), 5_000);
        let piece = whole.frame().await.expect("a frame").map(Frame::into_data);
        drop(whole);
        assert_eq!(memory.held(), 5_000, "the connection has it still");
        drop(piece);
        assert_eq!(memory.held(), 0);
        let streamed = frames(&["small"]).map_err(|_| unreachable!("frames of a test")).boxed();
        let mut stream = answer(streamed, 7);
        drop(stream.frame().await);
        assert_eq!(memory.held(), 7);
    }
}
