//! The body of a response as it arrives. Reading fails once its pieces are not worth the work.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::Error;
use super::meter::{ConnectionMeter, ReadEffort};
use super::response_budget::{release, reserve};
use crate::base::budget::Reservation;

/// The initial capacity of a body's buffer.
const SMALL: usize = 16 << 10;

/// The body of a response.
#[derive(Debug)]
pub(super) struct ResponseBody {
    incoming: Incoming,
    meter: Option<Arc<ConnectionMeter>>,
    effort: ReadEffort,
    has_waited: bool,
}

impl ResponseBody {
    /// Wraps the body that arrives on a connection with this meter.
    pub(super) fn new(incoming: Incoming, meter: Option<Arc<ConnectionMeter>>) -> Self {
        Self { incoming, meter, effort: ReadEffort::default(), has_waited: false }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        this.has_waited |= polled.is_pending();
        let Some(frame) = ready!(polled) else { return Poll::Ready(None) };
        let frame = frame.map_err(|error| Error::from_body_error(&error))?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        this.effort.add_chunk(bytes, std::mem::take(&mut this.has_waited))?;
        if let Some(meter) = &this.meter {
            meter.on_progress();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Reads the whole body, up to `cap` bytes. The allocated capacity is reserved in `reservation`.
pub(super) async fn collect(
    mut body: ResponseBody,
    cap: usize,
    reservation: &mut Reservation,
) -> Result<Vec<u8>, Error> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > cap {
        return Err(Error::TooLarge { limit: cap });
    }
    let mut all = BoundedBuffer { announced, ..BoundedBuffer::new(cap, reservation) };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        all.push(&data)?;
    }
    Ok(all.into_bytes())
}

/// Bytes that are collected, up to `cap`. The allocated capacity is reserved as it grows.
#[derive(Debug)]
pub(super) struct BoundedBuffer<'a> {
    bytes: Vec<u8>,
    /// The expected number of bytes, 0 if it is unknown. They take no memory until they arrive.
    announced: usize,
    cap: usize,
    reservation: &'a mut Reservation,
}

impl<'a> BoundedBuffer<'a> {
    /// Creates an empty buffer. What `reservation` holds already stays.
    pub(super) fn new(cap: usize, reservation: &'a mut Reservation) -> Self {
        Self { bytes: Vec::new(), announced: 0, cap, reservation }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above the cap, [`Error::BudgetExhausted`] if there is no memory to
    /// reserve.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Error> {
        if data.len() > self.cap - self.bytes.len() {
            return Err(Error::TooLarge { limit: self.cap });
        }
        self.make_room(data.len())?;
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Returns the bytes. Their capacity stays reserved.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Grows the buffer to twice its size, up to the announced length, or the cap once more than
    /// that has arrived.
    fn make_room(&mut self, more: usize) -> Result<(), Error> {
        let (old, needed) = (self.bytes.capacity(), self.bytes.len() + more);
        if needed <= old {
            return Ok(());
        }
        let bound = if self.announced >= needed { self.announced } else { self.cap };
        let wanted = (2 * needed).max(SMALL).min(bound).max(needed);
        // While the buffer grows, both the old and the new allocation exist.
        reserve(self.reservation, wanted)?;
        self.bytes.reserve_exact(wanted - self.bytes.len());
        release(self.reservation, old);
        Ok(())
    }
}
