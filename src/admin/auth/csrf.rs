//! Tokens against cross-site request forgery: a keyed digest of the browser's cookie, which every
//! form of our pages carries. Another page can neither read it nor make it, and one of another
//! browser or session does not fit.

use aws_lc_rs::hmac;

use crate::base::hex;
use crate::base::random;

/// The field of a form, and the query parameter of an upload by a form.
pub(in crate::admin) const FIELD: &str = "csrf_token";
/// The header of a request by a script.
pub(in crate::admin) const HEADER: &str = "x-csrf-token";

/// The key of this process.
pub(in crate::admin) struct CsrfKey(hmac::Key);

impl CsrfKey {
    /// Makes a key.
    pub(super) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()))
    }

    /// Returns the token that belongs to a browser's cookie.
    pub(in crate::admin) fn token(&self, cookie: &str) -> String {
        let mut text = String::new();
        hex::write(&mut text, hmac::sign(&self.0, cookie.as_bytes()).as_ref())
            .expect("writing to a String cannot fail");
        text
    }

    /// Whether a token belongs to a browser's cookie.
    pub(in crate::admin) fn is_valid(&self, cookie: &str, token: &str) -> bool {
        let tag: Option<[u8; 32]> = hex::decode(token);
        tag.is_some_and(|tag| hmac::verify(&self.0, cookie.as_bytes(), &tag).is_ok())
    }
}

impl std::fmt::Debug for CsrfKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CsrfKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_its_cookie_and_process_only() {
        let key = CsrfKey::new();
        let token = key.token("cookie");
        assert!(key.is_valid("cookie", &token));
        assert!(!key.is_valid("other", &token) && !CsrfKey::new().is_valid("cookie", &token));
        assert!(!key.is_valid("cookie", "") && !key.is_valid("cookie", &token[2..]));
    }
}
