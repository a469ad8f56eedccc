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

/// Reads the whole body, up to `cap` bytes. The allocated capacity is reserved in `hold`.
pub(super) async fn collect(
    mut body: ResponseBody,
    cap: usize,
    hold: &mut Reservation,
) -> Result<Vec<u8>, Error> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > cap {
        return Err(Error::TooLarge { limit: cap });
    }
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if all.len() + data.len() > cap {
            return Err(Error::TooLarge { limit: cap });
        }
        // The announced length bounds the buffer only until more than that has arrived.
        let bound = if announced >= all.len() + data.len() { announced } else { cap };
        make_room(&mut all, data.len(), bound, hold)?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Grows the buffer to twice its size, up to `bound`. Announced bytes take no memory until they
/// arrive.
fn make_room(all: &mut Vec<u8>, more: usize, bound: usize, hold: &mut Reservation) -> Result<(), Error> {
    let (old, needed) = (all.capacity(), all.len() + more);
    if needed <= old {
        return Ok(());
    }
    let wanted = (2 * needed).max(SMALL).min(bound).max(needed);
    // While the buffer grows, both the old and the new allocation exist.
    reserve(hold, wanted)?;
    all.reserve_exact(wanted - all.len());
    release(hold, old);
    Ok(())
}
