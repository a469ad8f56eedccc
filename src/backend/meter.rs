//! Meters a connection to a backend: whether it was used before, whether its response has begun,
//! and whether the incoming data is worth the work of reading it.
//!
//! A backend may respond in crumbs (a byte at a time, chunks of one byte, endless interim
//! responses). Each costs as much CPU as a full read. A connection that yields nothing useful for
//! long is therefore closed, and so is a response with far too many pieces for its length.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::error::{Error, UselessTraffic};

/// The maximum of useless bytes on a connection that carries one call at a time: a response head
/// (64 KiB at most), interim responses before it, and read-ahead of the body.
const MAX_IDLE_BYTES: u64 = 1 << 20;
/// The same where calls share the connection: more data can wait in their HTTP/2 windows.
const MAX_SHARED_IDLE_BYTES: u64 = 16 << 20;
/// The maximum of reads in a row that yield nothing useful.
const MAX_IDLE_READS: u64 = 1 << 14;

/// The allowance of work for the pieces of one response, in addition to the work its bytes justify;
/// about a quarter of a second.
const BASE_EFFORT: u64 = 1 << 18;
/// The extra cost of a piece that had to be waited for: a wake-up and a read.
const WAIT_COST: u64 = 4;
/// The number of bytes that justify one piece.
const BYTES_PER_CHUNK: u64 = 16;

/// The meter of one connection, updated by the connection and read by the calls on it.
#[derive(Debug)]
pub(super) struct ConnectionMeter {
    idle_bytes_limit: u64,
    /// Whether calls share the connection, so that a write belongs to no particular one.
    is_shared: bool,
    /// Requests started on the connection.
    requests: AtomicU32,
    /// Whether anything was read since the last write.
    is_answering: AtomicBool,
    /// Bytes read, and number of reads, since the last useful data.
    idle_bytes: AtomicU64,
    idle_reads: AtomicU64,
}

impl ConnectionMeter {
    /// Creates the meter of a connection that carries one call at a time.
    pub(super) fn exclusive() -> Self {
        Self::new(MAX_IDLE_BYTES, false)
    }

    /// Creates the meter of a connection that calls share.
    pub(super) fn multiplexed() -> Self {
        Self::new(MAX_SHARED_IDLE_BYTES, true)
    }

    fn new(idle_bytes_limit: u64, is_shared: bool) -> Self {
        Self {
            idle_bytes_limit,
            is_shared,
            requests: AtomicU32::new(0),
            is_answering: AtomicBool::new(true),
            idle_bytes: AtomicU64::new(0),
            idle_reads: AtomicU64::new(0),
        }
    }

    /// Records a write. The first write after a read starts the next request.
    pub(super) fn on_write(&self) {
        if !self.is_shared && self.is_answering.swap(false, Ordering::AcqRel) {
            self.requests.fetch_add(1, Ordering::AcqRel);
            self.on_progress();
        }
    }

    /// Records one read of `bytes` bytes.
    ///
    /// # Errors
    /// [`UselessTraffic`] if too much was read since the last useful data.
    pub(super) fn on_read(&self, bytes: u64) -> io::Result<()> {
        self.is_answering.store(true, Ordering::Release);
        let read = self.idle_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let reads = self.idle_reads.fetch_add(1, Ordering::AcqRel) + 1;
        match read > self.idle_bytes_limit || reads > MAX_IDLE_READS {
            true => Err(io::Error::other(UselessTraffic)),
            false => Ok(()),
        }
    }

    /// Records useful data: a response head or a piece of a body.
    pub(super) fn on_progress(&self) {
        self.idle_bytes.store(0, Ordering::Release);
        self.idle_reads.store(0, Ordering::Release);
    }

    /// Whether the connection carried an earlier response and has received nothing since the last
    /// request.
    ///
    /// If it then closes, the peer closed an idle connection while the request was on its way.
    pub(super) fn is_reused_and_silent(&self) -> bool {
        self.requests.load(Ordering::Acquire) > 1 && !self.is_answering.load(Ordering::Acquire)
    }
}

/// The work caused by the pieces of one response, compared with what its bytes justify.
#[derive(Debug, Default)]
pub(super) struct ReadEffort {
    spent: u64,
    bytes: u64,
}

impl ReadEffort {
    /// Records one piece.
    ///
    /// # Errors
    /// [`Error::TooFragmented`] if there are far too many pieces for their bytes.
    pub(super) fn add_chunk(&mut self, bytes: usize, waited: bool) -> Result<(), Error> {
        self.spent += if waited { 1 + WAIT_COST } else { 1 };
        self.bytes += bytes as u64;
        match self.spent > BASE_EFFORT + self.bytes / BYTES_PER_CHUNK {
            true => Err(Error::TooFragmented),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_reused_when_a_request_follows_an_answer() {
        let meter = ConnectionMeter::exclusive();
        meter.on_write();
        meter.on_write();
        assert!(!meter.is_reused_and_silent(), "a request in two pieces is one request");
        meter.on_read(10).expect("little");
        meter.on_write();
        assert!(meter.is_reused_and_silent());
        meter.on_read(1).expect("little");
        assert!(!meter.is_reused_and_silent(), "the answer has begun");
    }

    #[test]
    fn a_shared_connection_is_never_reused_and_silent() {
        let meter = ConnectionMeter::multiplexed();
        for _ in 0..3 {
            meter.on_write();
            meter.on_read(MAX_IDLE_BYTES).expect("less than may wait in its windows");
        }
        meter.on_write();
        assert!(!meter.is_reused_and_silent());
        assert!(
            (0..20).any(|_| meter.on_read(MAX_IDLE_BYTES).is_err()),
            "what is written makes nothing of it useful"
        );
    }

    #[test]
    fn useless_traffic_ends_a_connection_and_useful_traffic_does_not() {
        let meter = ConnectionMeter::exclusive();
        for _ in 0..1000 {
            meter.on_read(MAX_IDLE_BYTES).expect("of use");
            meter.on_progress();
        }
        meter.on_read(MAX_IDLE_BYTES).expect("as much as may be");
        let error = meter.on_read(1).expect_err("too much");
        assert!(error.get_ref().is_some_and(|cause| cause.is::<UselessTraffic>()));

        let meter = ConnectionMeter::exclusive();
        let failed = (0..MAX_IDLE_READS + 1).position(|_| meter.on_read(1).is_err());
        assert_eq!(failed, Some(MAX_IDLE_READS as usize));
    }

    #[test]
    fn usual_chunks_are_read_and_tiny_ones_are_not() {
        let whole = |pieces: usize, bytes: usize, waited: bool| {
            let mut effort = ReadEffort::default();
            (0..pieces).try_for_each(|_| effort.add_chunk(bytes, waited))
        };
        assert_eq!(whole(100_000, 16 << 10, true), Ok(()), "a gigabyte as it comes");
        assert_eq!(whole(1_000_000, 100, true), Ok(()), "a row at a time");
        assert_eq!(whole(200_000, 5, false), Ok(()), "a megabyte of chunks as a JSON encoder yields them");
        assert_eq!(whole(50_000, 1, true), Ok(()), "a dripping answer of 50 kB");
        assert_eq!(whole(1_000_000, 1, false), Err(Error::TooFragmented));
        assert_eq!(whole(1_000_000, 0, false), Err(Error::TooFragmented));
        assert_eq!(whole(60_000, 1, true), Err(Error::TooFragmented));
    }
}
