//! HTTP/1.1 (RFC 9112). Between requests a connection is parked: it drops hyper's state, which is
//! most of the memory that a connection takes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::timeouts::TimeoutStream;
use super::{Connection, DriveEnd};

/// A connection is parked once it has been idle for this long, at most twice as long.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// Serves the stream until either side closes it.
pub(super) async fn serve<S>(connection: Arc<Connection>, mut stream: TimeoutStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    while let Some(parked) = Box::pin(serve_until_parked(&connection, stream)).await {
        stream = parked;
        let has_request = tokio::select! {
            biased;
            began = stream.wait_for_request() => matches!(began, Ok(true)),
            () = connection.wait_for_quiet_shutdown() => false,
        };
        if !has_request {
            // The client may have disconnected already, so an error here is expected.
            let _gone = stream.shutdown().await;
            return;
        }
    }
}

/// Answers requests until the connection ends (`None`) or is parked (the stream, with unparsed
/// bytes put back).
async fn serve_until_parked<S>(
    connection: &Arc<Connection>,
    stream: TimeoutStream<S>,
) -> Option<TimeoutStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = &connection.activity;
    let mut hyper_connection = settings().serve_connection(TokioIo::new(stream), connection.service(None));
    let parkable = activity.wait_until_parkable(PARK_AFTER);
    let shutdown = connection.wait_for_quiet_shutdown();
    let hyper = Pin::new(&mut hyper_connection);
    let end = connection.drive(hyper, std::future::pending(), parkable, shutdown).await;
    let parts = hyper_connection.into_parts();
    let mut stream = parts.io.into_inner();
    let is_unread = activity.is_unread() || !parts.read_buf.is_empty();
    match end {
        DriveEnd::Parked => {
            stream.push_prefix(&parts.read_buf);
            return Some(stream);
        }
        DriveEnd::Closed if is_unread => connection.linger(stream.into_inner()).await,
        DriveEnd::Closed | DriveEnd::Abandoned => {}
    }
    None
}

/// hyper's own header timeout is off because `TimeoutStream` holds the deadlines. The number of
/// headers stays at hyper's default of 100, which hyper parses without allocating; their size is
/// bounded here.
fn settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(16 << 10)
        .max_buf_size(64 << 10);
    builder
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::server::connection::Activity;
    use crate::server::request::ConnInfo;
    use crate::server::tests::{TestServer, get, post, start};
    use crate::settings::Limits;

    /// A connection in memory; the test's clock is paused.
    fn connected(gateway: &TestServer) -> (Arc<Connection>, TimeoutStream<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        let activity = Arc::new(Activity::default());
        let info = ConnInfo::direct(gateway.addr, gateway.addr.ip());
        let stream = TimeoutStream::http1(
            far,
            Duration::from_secs(60),
            Duration::from_secs(10),
            Arc::clone(&activity),
        );
        (Connection::new(Arc::clone(&gateway.server), info, activity), stream, near)
    }

    /// Returns whether a request begins, rather than the stream ending.
    async fn wakes(stream: &mut TimeoutStream<DuplexStream>) -> bool {
        let woken = tokio::time::timeout(Duration::from_secs(10), stream.wait_for_request()).await;
        woken.expect("bytes or an end come").expect("an end is no error")
    }

    /// Counts the responses that have arrived, once no more follow.
    async fn answers(near: &mut DuplexStream) -> usize {
        let mut all = Vec::new();
        let reading = near.read_to_end(&mut all);
        let _nothing_more = tokio::time::timeout(Duration::from_millis(100), reading).await;
        String::from_utf8_lossy(&all).matches("HTTP/1.1 404").count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_parked_between_requests_and_resumed() {
        let gateway = start(Limits::default());
        let (connection, mut stream, mut near) = connected(&gateway);
        for request in [get("/a"), post("content-length: 0\r\n", ""), get("/b")] {
            near.write_all(request.as_bytes()).await.expect("sent");
            assert!(wakes(&mut stream).await);
            stream = serve_until_parked(&connection, stream).await.expect("it rests");
            assert_eq!(answers(&mut near).await, 1, "{request}");
        }
        drop(near);
        assert!(!wakes(&mut stream).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_came_with_the_last_one_is_not_lost() {
        let gateway = start(Limits::default());
        let (connection, stream, mut near) = connected(&gateway);
        let (whole, half) = (get("/a"), &get("/b")[..10]);
        near.write_all([&whole, half].concat().as_bytes()).await.expect("sent");
        let mut stream = serve_until_parked(&connection, stream).await.expect("it rests");
        assert_eq!(answers(&mut near).await, 1);
        assert!(wakes(&mut stream).await);
        near.write_all(&get("/b").as_bytes()[10..]).await.expect("sent");
        serve_until_parked(&connection, stream).await.expect("it rests");
        assert_eq!(answers(&mut near).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_parked_within_a_request_or_before_an_unread_body() {
        let gateway = start(Limits::default());
        for begun in [
            "GET /a".to_owned(),
            post("content-length: 99\r\n", "{}"),
            post("transfer-encoding: chunked\r\n", "2\r\n{}\r\n"),
        ] {
            let (connection, stream, mut near) = connected(&gateway);
            near.write_all(get("/first").as_bytes()).await.expect("sent");
            let sending = async {
                tokio::time::sleep(PARK_AFTER / 2).await;
                near.write_all(begun.as_bytes()).await.expect("sent");
            };
            let resting =
                tokio::time::timeout(Duration::from_secs(300), serve_until_parked(&connection, stream));
            let (rests, ()) = tokio::join!(resting, sending);
            assert!(matches!(rests, Ok(None)), "{begun}");
        }
    }
}
