//! Nonces that a CA refuses (`badNonce`, RFC 8555 6.5): it says nothing about what was asked.

/// How many in a row, besides those that instant-acme tries again by itself.
pub(super) const BAD_NONCES: usize = 5;

/// Does a request again when the CA only disliked its nonce, which says nothing about what was asked.
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
