//! HTTP/2 (RFC 9113). The streams of a connection and its buffered writes run in the connection's
//! own task.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use super::timeouts::TimeoutStream;
use super::write_batching::batch_writes;
use crate::base::sync::lock;

/// Serves the stream until either side closes it.
pub(super) async fn serve<S>(connection: Arc<Connection>, stream: TimeoutStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, flusher) = batch_writes(stream);
    let streams = StreamTasks::default();
    let hyper_connection = settings(streams.clone())
        .serve_connection(TokioIo::new(stream), connection.service(Some(streams.clone())));
    let beside = async {
        tokio::select! {
            biased;
            never = streams.run() => match never {},
            error = flusher.run() => error,
        }
    };
    let shutdown = connection.wait_for_shutdown();
    connection.drive(pin!(hyper_connection), beside, std::future::pending(), shutdown).await;
}

fn settings(streams: StreamTasks) -> http2::Builder<StreamTasks> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .max_header_list_size(16 << 10)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

type StreamTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of one HTTP/2 connection, run in its own task: a task for each would cost more than
/// most responses do, in allocations and in wake-ups across threads. They end with their
/// connection.
#[derive(Clone, Default)]
pub(super) struct StreamTasks(Arc<Mutex<Vec<StreamTask>>>);

impl StreamTasks {
    /// Adds a stream, which runs once the connection is polled.
    pub(super) fn push(&self, stream: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0).push(Box::pin(stream));
    }

    /// Runs the queued streams, and those that are added while it is polled.
    async fn run(self) -> Infallible {
        let mut running = FuturesUnordered::new();
        std::future::poll_fn(move |context| {
            loop {
                running.extend(self.take());
                while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
                // What ran may have added more.
                if self.is_empty() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn take(&self) -> Vec<StreamTask> {
        std::mem::take(&mut *lock(&self.0))
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.push(stream);
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioExecutor;

    use super::*;
    use crate::server::connection::Activity;
    use crate::server::request::ConnInfo;
    use crate::server::tests::{TestServer, start};
    use crate::server::tls::Protocol;
    use crate::settings::Limits;

    /// Opens a connection that is asked to end before its first request, sends that after a
    /// pause, and returns the status of the answer.
    async fn first_answer(gateway: &TestServer, pause: Duration) -> Option<u16> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let info = ConnInfo::direct(gateway.addr, gateway.addr.ip());
        let connection = Connection::new(Arc::clone(&gateway.server), info, Arc::new(Activity::default()));
        gateway.server.close_connections();
        let asking = async {
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.ok()?;
            let request = http::Request::get("http://localhost/a").body(String::new()).ok()?;
            let asking = async {
                tokio::time::sleep(pause).await;
                sender.send_request(request).await.ok().map(|response| response.status().as_u16())
            };
            let mut asking = pin!(asking);
            tokio::select! {
                answer = asking.as_mut() => answer,
                _ended = driver => asking.await,
            }
        };
        let serving = connection.serve_protocol(Protocol::Http2, far);
        let mut asking = pin!(asking);
        tokio::select! {
            answer = asking.as_mut() => answer,
            () = serving => asking.await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_that_is_asked_to_end_answers_its_first_request() {
        let gateway = start(Limits::default());
        assert_eq!(first_answer(&gateway, Duration::from_millis(500)).await, Some(404));
        assert_eq!(first_answer(&gateway, Duration::from_secs(5)).await, None, "it does not wait for ever");
    }
}
