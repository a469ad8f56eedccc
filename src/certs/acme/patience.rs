//! Retries of requests whose nonce the CA refuses (`badNonce`, RFC 8555 section 6.5).

/// How many refusals in a row are retried, besides those that instant-acme retries itself.
pub(super) const BAD_NONCES: usize = 5;

/// Repeats a request when the CA only refused its nonce, which says nothing about the request.
macro_rules! patiently {
    ($request:expr) => {{
        let mut left = $crate::certs::acme::patience::BAD_NONCES;
        loop {
            match $request.await {
                Err(error) if left > 0 && $crate::certs::acme::fault::is_bad_nonce(&error) => left -= 1,
                other => break other,
            }
        }
    }};
}

pub(super) use patiently;
