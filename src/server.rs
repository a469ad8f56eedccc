//! Floor 5: the public edge. Bytes in, a dispatched request, bytes out.

pub mod connection {}
