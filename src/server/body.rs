//! Reads the body of a request under a size cap, a timeout and a budget.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;

use super::budgets::{Attribution, MeteredBudget};
use crate::base::budget::{Exhausted, Reservation};

/// Memory that a request takes besides its body while that is awaited: its head and its state. An
/// HTTP/2 client may start a hundred requests on each connection and send no body.
pub(super) const HEAD_BYTES: u64 = 16 << 10;
/// How often the progress of an awaited body is checked.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// Bytes that must arrive between two checks when room is scarce, so that a client cannot hold a
/// reservation by withholding the last bytes.
const MIN_PROGRESS_BYTES: usize = 32 << 10;

/// Why a request's body was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request body is larger than {cap} bytes, which is the limit here")]
    TooLarge { cap: usize },
    #[error("the request body did not arrive in time")]
    TooSlow,
    #[error("the request body is incomplete or has wrong framing")]
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

    /// Returns the word for metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "body_too_large",
            Self::TooSlow => "body_too_slow",
            Self::Broken => "body_broken",
            Self::BudgetExhausted(_) => "memory",
        }
    }
}

/// What is accepted of a request's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) max_bytes: usize,
    /// How long the whole body may take.
    pub(super) read_timeout: Duration,
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
    let read = read(request, limits.max_bytes, limits.read_timeout, &mut reservation).await;
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

/// Reads the whole body: at most `cap` bytes, within `read_timeout`, and while the budget has room
/// for what arrives. A Content-Length above the cap is refused without reading. While the parties
/// of `reservation` are close to their shares, a body that makes little progress is refused early.
async fn read<B>(
    request: Request<B>,
    cap: usize,
    read_timeout: Duration,
    reservation: &mut Reservation,
) -> Result<Request<Bytes>, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if content_length(request.headers()).is_some_and(|length| length > cap as u64) {
        return Err(BodyError::TooLarge { cap });
    }
    let (parts, mut body) = request.into_parts();
    let reading = collect(&mut body, cap, reservation);
    let bytes = tokio::time::timeout(read_timeout, reading).await.map_err(|_| BodyError::TooSlow)??;
    Ok(Request::from_parts(parts, bytes))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Collects the body. Most bodies are a single frame, which is returned without copying.
async fn collect<B>(body: &mut B, cap: usize, reservation: &mut Reservation) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    reservation.try_grow(HEAD_BYTES)?;
    let mut progress = BodyProgress::default();
    let Some(first) = progress.next(body, reservation).await? else { return Ok(Bytes::new()) };
    reservation.try_grow(first.len() as u64)?;
    if first.len() <= cap && body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while whole.len() <= cap {
        let Some(more) = progress.next(body, reservation).await? else { return Ok(whole.freeze()) };
        reservation.try_grow(more.len() as u64)?;
        whole.extend_from_slice(&more);
    }
    Err(BodyError::TooLarge { cap })
}

/// The progress of one body.
#[derive(Default)]
struct BodyProgress {
    since_last_check: usize,
    /// The timer until the next check; a body that is already complete needs none.
    check_timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl BodyProgress {
    /// Returns the next data frame, or an error if the body makes little progress while room is
    /// scarce.
    async fn next<B>(&mut self, body: &mut B, reservation: &Reservation) -> Result<Option<Bytes>, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        loop {
            tokio::select! {
                biased;
                data = next_data(body) => {
                    let data = data?;
                    self.since_last_check += data.as_ref().map_or(0, Bytes::len);
                    return Ok(data);
                }
                () = wait_for_check(&mut self.check_timer) => {
                    let progressed = std::mem::take(&mut self.since_last_check);
                    if progressed < MIN_PROGRESS_BYTES && reservation.is_under_pressure() {
                        return Err(BodyError::TooSlow);
                    }
                }
            }
        }
    }
}

/// Waits for the next check. The timer survives when this future is dropped because data arrives.
async fn wait_for_check(sleep: &mut Option<Pin<Box<tokio::time::Sleep>>>) {
    sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(PROGRESS_INTERVAL))).as_mut().await;
    *sleep = None;
}

/// Returns the next data frame and skips trailers.
pub(super) async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, BodyError>
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

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use http_body_util::Full;

    use super::*;
    use crate::base::budget::{Budget, Consumer};

    const PATIENCE: Duration = Duration::from_secs(30);
    const NO_ROOM: BodyError = BodyError::BudgetExhausted(Exhausted::Budget);

    /// A body with the given frames; then it ends, or stays silent.
    pub(in crate::server) struct ScriptedBody {
        pub(in crate::server) frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
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

    pub(in crate::server) fn frames(data: &[&'static str]) -> ScriptedBody {
        let frames = data.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))).collect();
        ScriptedBody { frames, silent: false }
    }

    async fn read_of<B>(body: B, cap: usize) -> Result<Bytes, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let mut reservation = Budget::from_mib(1).new_reservation(None, None, true);
        read(Request::new(body), cap, PATIENCE, &mut reservation).await.map(Request::into_body)
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
        let content_length =
            Request::builder().header("content-length", "6").body(unread).expect("a request");
        let refused =
            read(content_length, 5, PATIENCE, &mut Budget::from_mib(1).new_reservation(None, None, true))
                .await;
        assert_eq!(refused.map(|_| ()), Err(BodyError::TooLarge { cap: 5 }));
    }

    #[tokio::test]
    async fn a_body_without_room_is_refused_and_takes_none() {
        let memory = Budget::from_mib(1);
        let mut others = memory.new_reservation(None, None, true);
        assert_eq!(others.try_grow((1 << 20) - HEAD_BYTES - 4), Ok(()));
        let read = async |body| {
            let mut reservation = memory.new_reservation(None, None, true);
            let body = read(Request::new(body), 9, PATIENCE, &mut reservation).await.map(Request::into_body);
            (body, reservation)
        };
        let (fits, reservation) = read(frames(&["12", "34"])).await;
        assert_eq!(fits, Ok(Bytes::from("1234")));
        assert_eq!(read(frames(&["1"])).await.0, Err(NO_ROOM), "the first is being answered");
        drop(reservation);
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
            let mut reservation = memory.new_reservation(share(), None, true);
            let body = ScriptedBody { silent: true, ..frames(&[first]) };
            let reading = read(Request::new(body), 9, PATIENCE, &mut reservation);
            tokio::time::timeout(PROGRESS_INTERVAL * 2, reading).await.map(|read| read.map(|_| ()))
        };
        assert!(took("1").await.is_err(), "there is no hurry yet");
        assert_eq!(took("12").await, Ok(Err(BodyError::TooSlow)));
    }
}
