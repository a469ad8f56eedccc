//! Lingering: what a client still sends after it was refused is read and dropped for a while, so that it gets to read why.
//!
//! A socket that is closed with bytes unread is reset, and the reset takes the answer with it (RFC 9112 section 9.6). An
//! HTTP/2 stream may be reset without error behind its answer (RFC 9113 section 8.1), but several clients then lose the
//! answer as well. Nothing that is read here is kept or looked at. Whoever goes on beyond the bounds is cut.
//!
//! It is read slowly, the more slowly the more of a network linger: a flood of refused bodies takes neither memory nor the
//! time of others.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The most that is read of one refused request.
pub const BYTES: usize = 16 << 20;
/// The longest that is waited for one.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// Who is silent for so long has read the answer, or never will.
const SILENCE: Duration = Duration::from_secs(5);
/// So many of one network read at full speed together: 16 KiB in a millisecond each. More share what they have.
const SWIFT: u64 = 8;
/// What is read at once.
const CHUNK: usize = 16 << 10;
/// Every piece counts for so many bytes at least: work is bounded as well.
const LEAST: usize = 256;

/// Says that nothing more comes from here, then reads and drops what comes until the other side ends. `lingering` says how
/// many of its network linger now.
pub async fn over<S>(mut stream: S, lingering: impl Fn() -> u64)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK];
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
    // Who takes no goodbye is not waited for any longer than who goes on sending.
    _ = tokio::time::timeout(DEADLINE, draining).await;
}

/// Reads and drops what is left of a body; the rest as for [`over`].
pub async fn over_body<B: Body + Unpin>(mut body: B, lingering: impl Fn() -> u64) {
    let next = |context: &mut Context<'_>| {
        let frame = ready!(Pin::new(&mut body).poll_frame(context)).and_then(Result::ok);
        let bytes = |data: &B::Data| bytes::Buf::remaining(data);
        Poll::Ready(frame.map(|frame| frame.data_ref().map_or(0, bytes)))
    };
    _ = tokio::time::timeout(DEADLINE, drain(next, lingering)).await;
}

/// Takes pieces until there are no more, the other side is silent or has sent enough.
async fn drain(mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<usize>>, lingering: impl Fn() -> u64) {
    let (mut left, mut since_pause) = (BYTES, 0);
    while left > 0 {
        let piece = tokio::time::timeout(SILENCE, std::future::poll_fn(&mut next)).await;
        let Ok(Some(bytes)) = piece else { return };
        let weight = bytes.max(LEAST);
        left = left.saturating_sub(weight);
        since_pause += weight;
        if since_pause >= CHUNK {
            since_pause = 0;
            tokio::time::sleep(pause(lingering())).await;
        }
    }
}

/// How long one of so many waits after each chunk.
fn pause(lingering: u64) -> Duration {
    Duration::from_millis(lingering.div_ceil(SWIFT).max(1))
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
    async fn what_is_still_sent_is_read_and_the_answer_stays_readable() {
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
    async fn nobody_is_waited_for_without_end() {
        let (_silent, server) = duplex(1 << 10);
        assert_eq!(seconds(over(server, || 1)).await, SILENCE.as_secs());
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
    async fn who_sends_without_end_is_cut() {
        let (mut client, server) = duplex(64 << 10);
        let flooding = async {
            let mut sent = 0;
            while client.write_all(&[0; CHUNK]).await.is_ok() {
                sent += CHUNK;
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
        assert_eq!(pieces, BYTES / LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn many_of_a_network_read_no_more_together_than_a_few() {
        let chunks = BYTES.div_ceil(CHUNK) as u64;
        let whole = |_: &mut Context<'_>| Poll::Ready(Some(CHUNK));
        let alone = seconds(drain(whole, || SWIFT)).await;
        let crowd = seconds(drain(whole, || SWIFT * 50)).await;
        assert_eq!((alone, crowd), (chunks / 1_000, chunks * 50 / 1_000));
    }
}
