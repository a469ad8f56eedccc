//! Gathers the many small writes of an HTTP/2 connection. hyper writes and flushes each frame
//! separately, and each such write would be a TLS record and a system call of its own.
//!
//! Bytes wait until the connection's task has nothing more to write ([`BatchFlusher`], polled after
//! the connection), until they fill a TLS record, or until the connection is shut down. No timer is
//! involved.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::sync::lock;

/// The maximum size of a TLS record.
const ROOM: usize = 16 << 10;

/// The stream as the connection uses it.
pub(super) struct BatchedStream<S>(Arc<Mutex<WriteBatch<S>>>);

/// A second handle of the same stream, for the future that flushes it.
pub(super) struct BatchFlusher<S>(Arc<Mutex<WriteBatch<S>>>);

struct WriteBatch<S> {
    stream: S,
    /// Bytes not yet written to `stream`; allocated only while there are any.
    waiting: Vec<u8>,
    /// How many bytes of `waiting` have been written.
    written: usize,
    /// `stream` may still hold bytes: a TLS stream takes more than its socket does.
    is_unflushed: bool,
}

/// Splits a stream into the half for the connection and the half that flushes it.
pub(super) fn batch_writes<S>(stream: S) -> (BatchedStream<S>, BatchFlusher<S>) {
    let inner =
        Arc::new(Mutex::new(WriteBatch { stream, waiting: Vec::new(), written: 0, is_unflushed: false }));
    (BatchedStream(Arc::clone(&inner)), BatchFlusher(inner))
}

impl<S: AsyncWrite + Unpin> WriteBatch<S> {
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.written += bytes,
            }
            self.is_unflushed = true;
        }
        if !self.waiting.is_empty() {
            self.waiting = Vec::new();
            self.written = 0;
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Buffers as much of `slices` as fits; writes the buffer first if it is full.
    fn take(&mut self, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.waiting.len() == ROOM {
            ready!(self.drain(context))?;
        }
        if self.waiting.is_empty() {
            self.waiting.reserve_exact(ROOM);
        }
        let before = self.waiting.len();
        for slice in slices {
            let fits = slice.len().min(ROOM - self.waiting.len());
            self.waiting.extend_from_slice(&slice[..fits]);
        }
        Poll::Ready(Ok(self.waiting.len() - before))
    }
}

impl<S: AsyncWrite + Unpin> BatchFlusher<S> {
    /// Writes the buffered bytes whenever it is polled. Returns only when writing fails.
    pub(super) async fn run(self) -> io::Error {
        std::future::poll_fn(|context| match lock(&self.0).drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            _ => Poll::Pending,
        })
        .await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BatchedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BatchedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).take(context, &[io::IoSlice::new(bytes)])
    }

    /// Does nothing: [`BatchFlusher`] flushes once the connection has nothing more to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.drain(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).take(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts the bytes that the other side has received so far.
    async fn received(client: &mut tokio::io::DuplexStream) -> usize {
        let mut bytes = vec![0; 1 << 20];
        let read = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut bytes);
            let _nothing_yet = Pin::new(&mut *client).poll_read(context, &mut buffer);
            Poll::Ready(buffer.filled().len())
        });
        read.await
    }

    async fn uncorked<S: AsyncWrite + Unpin>(uncork: &BatchFlusher<S>) -> Poll<io::Result<()>> {
        std::future::poll_fn(|context| Poll::Ready(lock(&uncork.0).drain(context))).await
    }

    #[tokio::test]
    async fn small_writes_are_sent_together_at_the_end_of_a_turn() {
        let (mut client, server) = duplex(1 << 20);
        let (mut corked, uncork) = batch_writes(server);
        for _ in 0..10 {
            corked.write_all(b"frame").await.expect("taken");
            corked.flush().await.expect("flushed");
        }
        assert_eq!(received(&mut client).await, 0);
        assert!(uncorked(&uncork).await.is_ready());
        assert_eq!(received(&mut client).await, 50);
        assert_eq!(lock(&uncork.0).waiting.capacity(), 0, "nothing is held while nothing waits");
    }

    #[tokio::test]
    async fn buffered_bytes_are_bounded() {
        let (mut client, server) = duplex(1 << 10);
        let (mut corked, uncork) = batch_writes(server);
        let write = async { corked.write_all(&[0; ROOM + 1]).await };
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), write).await.is_err());
        assert!(uncorked(&uncork).await.is_pending());
        let mut received = Vec::new();
        let reading = client.read_to_end(&mut received);
        let closing = async {
            corked.shutdown().await.expect("shut down");
            drop((corked, uncork));
        };
        let (read, ()) = tokio::join!(reading, closing);
        assert_eq!(read.expect("read"), ROOM, "all that was taken arrives");
    }

    /// A TLS stream: it takes a record whole, and its socket the bytes of it one by one.
    struct RecordStream {
        socket: tokio::io::DuplexStream,
        held: Vec<u8>,
    }

    impl AsyncRead for RecordStream {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for RecordStream {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            while !this.held.is_empty() {
                let written = ready!(Pin::new(&mut this.socket).poll_write(context, &this.held))?;
                this.held.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_shutdown(context)
        }
    }

    #[tokio::test]
    async fn what_a_slow_socket_leaves_in_the_tls_stream_is_sent_later() {
        let (mut client, socket) = duplex(16);
        let (mut corked, uncork) = batch_writes(RecordStream { socket, held: Vec::new() });
        corked.write_all(&[7; 100]).await.expect("taken");
        let mut all = vec![0; 100];
        let mut flushing = std::pin::pin!(uncork.run());
        tokio::select! {
            error = flushing.as_mut() => panic!("{error}"),
            read = client.read_exact(&mut all) => assert_eq!(read.expect("all of it arrives"), 100),
        }
        assert_eq!(all, [7; 100]);
    }

    #[tokio::test]
    async fn a_failed_write_is_reported() {
        let (client, server) = duplex(1 << 10);
        let (mut corked, uncork) = batch_writes(server);
        corked.write_all(b"frame").await.expect("taken");
        drop(client);
        assert_eq!(uncork.run().await.kind(), io::ErrorKind::BrokenPipe);
    }
}
