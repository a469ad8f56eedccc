//! Retries of requests whose nonce the CA refuses (`badNonce`, RFC 8555 section 6.5).

/// How many refusals in a row are retried, besides those that instant-acme retries itself.
pub(super) const MAX_BAD_NONCE_RETRIES: usize = 5;

/// Repeats a request when the CA only refused its nonce, which says nothing about the request.
macro_rules! retry_bad_nonce {
    ($request:expr) => {{
        let mut left = $crate::certs::acme::bad_nonce::MAX_BAD_NONCE_RETRIES;
        loop {
            match $request.await {
                Err(error) if left > 0 && $crate::certs::acme::failure::is_bad_nonce(&error) => left -= 1,
                other => break other,
            }
        }
    }};
}

pub(super) use retry_bad_nonce;
