//! Bodies: a request's, read under a cap and a deadline, and an answer's, counted until it has left.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::memory::{Full, Held};
use super::patience::{Activity, UnderWay};
use crate::base::body::Body;

/// What is left of a refused request's body is not waited for any longer.
const DISCARD: Duration = Duration::from_millis(500);

/// Why a request's body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    #[error("the request body is larger than the {cap} bytes that are accepted here")]
    TooLarge { cap: usize },
    #[error("the request body did not arrive in time")]
    TooSlow,
    #[error("the request body is broken off or badly framed")]
    Broken,
    #[error("this server holds as much of requests as it may; try again in a moment")]
    NoRoom,
}

/// Reads the whole body: at most `cap` bytes, within `deadline`, as long as there is room for what comes. A length announced
/// beyond the cap is refused unread.
pub(super) async fn read<B>(
    request: Request<B>,
    cap: usize,
    deadline: Duration,
    held: &mut Held,
) -> Result<Request<Bytes>, BodyFault>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if announced(request.headers()).is_some_and(|length| length > cap as u64) {
        return Err(BodyFault::TooLarge { cap });
    }
    let (parts, mut body) = request.into_parts();
    let reading = async {
        let collected = collect(&mut body, cap, held).await;
        if collected == Err(BodyFault::NoRoom) {
            held.let_go();
            // A connection closed with bytes unread is reset, and the answer lost with it.
            pass_over(&mut body, cap).await?;
        }
        collected
    };
    let bytes = tokio::time::timeout(deadline, reading).await.map_err(|_| BodyFault::TooSlow)??;
    Ok(Request::from_parts(parts, bytes))
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Most bodies are one frame, which is handed on as it came.
async fn collect<B>(body: &mut B, cap: usize, held: &mut Held) -> Result<Bytes, BodyFault>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let Some(first) = next(body).await? else { return Ok(Bytes::new()) };
    held.grow(first.len())?;
    if first.len() <= cap && body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while whole.len() <= cap {
        let Some(more) = next(body).await? else { return Ok(whole.freeze()) };
        held.grow(more.len())?;
        whole.extend_from_slice(&more);
    }
    Err(BodyFault::TooLarge { cap })
}

/// Reads on and keeps nothing, at most `cap` bytes and for a moment, so that a refused request does not end its connection.
/// Whether that was the whole body: if not, the connection must be closed, and the answer say so.
pub(super) async fn discard<B>(request: Request<B>, cap: usize) -> bool
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    // A stream ends by itself and leaves its connection as it was.
    if request.version() >= Version::HTTP_2 {
        return true;
    }
    if announced(request.headers()).is_some_and(|length| length > cap as u64) {
        return false;
    }
    let mut body = request.into_body();
    let passed = tokio::time::timeout(DISCARD, pass_over(&mut body, cap)).await;
    matches!(passed, Ok(Ok(true)))
}

/// Reads on and keeps nothing, at most `cap` bytes. Whether that was all.
async fn pass_over<B>(body: &mut B, cap: usize) -> Result<bool, BodyFault>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut passed = 0;
    while passed <= cap {
        let Some(more) = next(body).await? else { return Ok(true) };
        passed += more.len();
    }
    Ok(false)
}

/// The next data; trailers are passed over.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, BodyFault>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| BodyFault::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

impl From<Full> for BodyFault {
    fn from(Full: Full) -> Self {
        Self::NoRoom
    }
}

/// A request's body that tells when it is let go before its end.
pub(super) struct Asked<B: http_body::Body> {
    body: B,
    ended: bool,
    activity: Arc<Activity>,
}

impl<B: http_body::Body> Asked<B> {
    pub(super) fn new(body: B, activity: Arc<Activity>) -> Self {
        Self { ended: body.is_end_stream(), body, activity }
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Asked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        this.ended |= matches!(polled, Poll::Ready(None)) || this.body.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: http_body::Body> Drop for Asked<B> {
    fn drop(&mut self) {
        if !self.ended {
            self.activity.leave_unread();
        }
    }
}

/// An answer's body that keeps its request counted as under way, and tells whose turn it is: asked for more, ours.
pub(super) struct Tracked {
    body: Body,
    under_way: UnderWay,
}

impl Tracked {
    pub(super) fn new(body: Body, mut under_way: UnderWay) -> Self {
        under_way.offer();
        Self { body, under_way }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        this.under_way.taken();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_ready() {
            this.under_way.offer();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
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
    use crate::server::memory::Memory;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Frames as they come; then the end, or silence.
    struct Frames {
        frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
        silent: bool,
    }

    impl http_body::Body for Frames {
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

    fn frames(data: &[&'static str]) -> Frames {
        let frames = data.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))).collect();
        Frames { frames, silent: false }
    }

    async fn read_of<B>(body: B, cap: usize) -> Result<Bytes, BodyFault>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        read(Request::new(body), cap, PATIENCE, &mut Memory::of_mib(1).hold()).await.map(Request::into_body)
    }

    #[tokio::test]
    async fn a_body_up_to_the_cap_is_read() {
        assert_eq!(read_of(Full::from("12345"), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read_of(frames(&["12", "", "345"]), 5).await, Ok(Bytes::from("12345")));
        assert_eq!(read_of(frames(&[]), 5).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_body_beyond_the_cap_is_refused() {
        assert_eq!(read_of(Full::from("123456"), 5).await, Err(BodyFault::TooLarge { cap: 5 }));
        assert_eq!(read_of(frames(&["123", "456"]), 5).await, Err(BodyFault::TooLarge { cap: 5 }));
        let unread = Frames { frames: VecDeque::new(), silent: true };
        let announced = Request::builder().header("content-length", "6").body(unread).expect("a request");
        let refused = read(announced, 5, PATIENCE, &mut Memory::of_mib(1).hold()).await;
        assert_eq!(refused.map(|_| ()), Err(BodyFault::TooLarge { cap: 5 }));
    }

    #[tokio::test]
    async fn a_body_without_room_is_refused_and_takes_none() {
        let memory = Memory::of_mib(1);
        let mut others = memory.hold();
        assert_eq!(others.grow((1 << 20) - 4), Ok(()));
        let read = async |body| {
            let mut held = memory.hold();
            let body = read(Request::new(body), 9, PATIENCE, &mut held).await.map(Request::into_body);
            (body, held)
        };
        let (fits, held) = read(frames(&["12", "34"])).await;
        assert_eq!(fits, Ok(Bytes::from("1234")));
        assert_eq!(read(frames(&["1"])).await.0, Err(BodyFault::NoRoom), "the first is being answered");
        drop(held);
        assert_eq!(read(frames(&["12", "345"])).await.0, Err(BodyFault::NoRoom));
        assert_eq!(others.grow(4), Ok(()));
    }

    #[tokio::test]
    async fn a_broken_body_is_never_a_short_one() {
        let mut body = frames(&["12"]);
        body.frames.push_back(Err("bad chunk"));
        assert_eq!(read_of(body, 5).await, Err(BodyFault::Broken));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let body = Frames { silent: true, ..frames(&["12"]) };
        assert_eq!(read_of(body, 5).await, Err(BodyFault::TooSlow));
    }
}
