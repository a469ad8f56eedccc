//! PKCE (RFC 7636, S256 only): between clients and us, and between us and Entra.

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::base::digest::Digest;
use crate::base::random;

/// Returns the challenge of a verifier (section 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Digest::of(verifier.as_bytes()).as_bytes())
}

/// Whether a text can be a challenge: the encoding of a digest is that of 32 random bytes.
pub(super) fn is_challenge(text: &str) -> bool {
    random::is_text(text)
}

/// Whether the verifier is well-formed and yields this challenge (sections 4.1 and 4.6).
pub(super) fn is_verified(challenge: &str, verifier: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
    let computed = self::challenge(verifier);
    formed && constant_time::verify_slices_are_equal(computed.as_bytes(), challenge.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_fits_and_its_neighbours_do_not() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(self::challenge(verifier), challenge);
        assert!(is_challenge(challenge) && is_verified(challenge, verifier));
        assert!(!is_verified(challenge, &verifier.replace('d', "e")));
        let short = &verifier[1..];
        assert!(!is_verified(&self::challenge(short), short), "42 characters are too few");
        assert!(!is_challenge(&challenge[1..]) && !is_challenge(&challenge.replace('-', "+")));
    }
}
