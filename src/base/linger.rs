//! Lingering: after a request was refused, what its client still sends is read and dropped for a
//! while, so that the client can read the refusal.
//!
//! Closing a socket with unread bytes resets it, and the reset discards the response (RFC 9112
//! section 9.6). An HTTP/2 stream may be reset without error after its response (RFC 9113 section
//! 8.1), but several clients then lose the response as well. Nothing that is read here is kept or
//! examined. A client that exceeds the limits is cut off.
//!
//! Reading is slow, and the slower the more clients of one network linger, so that a flood of
//! refused bodies takes neither memory nor CPU time from other clients.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The maximum number of bytes read of one refused request.
pub const BYTES: usize = 16 << 20;
/// The maximum time spent on one refused request.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// A client that sends nothing for this long has read the response, or never will.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many clients of one network may read at full speed: one `CHUNK_BYTES` per millisecond each.
/// More clients share that rate.
const FULL_SPEED_CLIENTS: u64 = 8;
/// The number of bytes read between two pauses.
const CHUNK_BYTES: usize = 16 << 10;
/// The minimum weight of a read: small pieces count as this many bytes, which bounds the work as
/// well.
const MIN_WEIGHT: usize = 256;

/// Shuts down the write half, then reads and drops until the peer closes or a limit is reached.
/// `lingering` returns how many clients of the peer's network linger now.
pub async fn over<S>(mut stream: S, lingering: impl Fn() -> u64)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK_BYTES];
    let draining = async {
        if stream.shutdown().await.is_ok() {
            let next = |context: &mut Context<'_>| {
                let mut read = ReadBuf::new(&mut buffer);
                let polled = ready!(Pin::new(&mut stream).poll_read(context, &mut read));
                Poll::Ready(polled.ok().map(|()| read.filled().len()).filter(|bytes| *bytes > 0))
            };
            drain(next, lingering).await;
        }
    };
    // The deadline covers the shutdown too: a peer may refuse to take its last bytes.
    _ = tokio::time::timeout(DEADLINE, draining).await;
}

/// Reads and drops the rest of a body, under the same limits as [`over`].
pub async fn over_body<B: Body + Unpin>(mut body: B, lingering: impl Fn() -> u64) {
    let next = |context: &mut Context<'_>| {
        let frame = ready!(Pin::new(&mut body).poll_frame(context)).and_then(Result::ok);
        let bytes = |data: &B::Data| bytes::Buf::remaining(data);
        Poll::Ready(frame.map(|frame| frame.data_ref().map_or(0, bytes)))
    };
    _ = tokio::time::timeout(DEADLINE, drain(next, lingering)).await;
}

/// Reads until the peer ends, is silent for `IDLE_TIMEOUT`, or has sent `BYTES`.
async fn drain(mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<usize>>, lingering: impl Fn() -> u64) {
    let (mut remaining, mut since_pause) = (BYTES, 0);
    while remaining > 0 {
        let piece = tokio::time::timeout(IDLE_TIMEOUT, std::future::poll_fn(&mut next)).await;
        let Ok(Some(bytes)) = piece else { return };
        let weight = bytes.max(MIN_WEIGHT);
        remaining = remaining.saturating_sub(weight);
        since_pause += weight;
        if since_pause >= CHUNK_BYTES {
            since_pause = 0;
            tokio::time::sleep(compute_pause(lingering())).await;
        }
    }
}

/// Returns the pause after each chunk while `lingering` clients of the network linger.
fn compute_pause(lingering: u64) -> Duration {
    Duration::from_millis(lingering.div_ceil(FULL_SPEED_CLIENTS).max(1))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the test's clock is Tokio's, and stands still")]
    async fn seconds(waiting: impl Future<Output = ()>) -> u64 {
        let started = tokio::time::Instant::now();
        waiting.await;
        started.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_request_is_read_and_the_response_stays_readable() {
        let (mut client, mut server) = duplex(1 << 10);
        let sending = async {
            server.write_all(b"refused").await.expect("written");
            over(server, || 1).await;
        };
        let talking = async {
            client.write_all(&[0; 1 << 20]).await.expect("all of it is taken");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("the answer");
            assert_eq!(answer, "refused");
        };
        let ((), ()) = tokio::join!(sending, talking);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let (_silent, server) = duplex(1 << 10);
        assert_eq!(seconds(over(server, || 1)).await, IDLE_TIMEOUT.as_secs());
        let (mut dribbling, server) = duplex(1 << 10);
        let dribble = async {
            while dribbling.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let (waited, ()) = tokio::join!(seconds(over(server, || 1)), dribble);
        assert_eq!(waited, DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_sender_is_cut_off() {
        let (mut client, server) = duplex(64 << 10);
        let flooding = async {
            let mut sent = 0;
            while client.write_all(&[0; CHUNK_BYTES]).await.is_ok() {
                sent += CHUNK_BYTES;
            }
            sent
        };
        let ((), sent) = tokio::join!(over(server, || 1), flooding);
        assert!((BYTES..BYTES + (128 << 10)).contains(&sent), "{sent} bytes were taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_to_its_end_or_bound_and_empty_pieces_count() {
        assert_eq!(seconds(over_body(Full::<bytes::Bytes>::from("x"), || 1)).await, 0);
        let mut pieces = 0;
        let empty = |_: &mut Context<'_>| {
            pieces += 1;
            Poll::Ready(Some(0))
        };
        drain(empty, || 1).await;
        assert_eq!(pieces, BYTES / MIN_WEIGHT);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_network_share_the_read_rate() {
        let chunks = BYTES.div_ceil(CHUNK_BYTES) as u64;
        let whole = |_: &mut Context<'_>| Poll::Ready(Some(CHUNK_BYTES));
        let alone = seconds(drain(whole, || FULL_SPEED_CLIENTS)).await;
        let crowd = seconds(drain(whole, || FULL_SPEED_CLIENTS * 50)).await;
        assert_eq!((alone, crowd), (chunks / 1_000, chunks * 50 / 1_000));
    }
}
