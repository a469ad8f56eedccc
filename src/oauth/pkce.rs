//! PKCE (RFC 7636, S256 only): between clients and us, and between us and Entra.

use aws_lc_rs::constant_time;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::base::digest::Digest;
use crate::base::random;

/// Returns the challenge of a verifier (section 4.2).
pub(super) fn compute_challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Digest::of(verifier.as_bytes()).as_bytes())
}

/// Whether a text can be a challenge: the encoding of a digest is that of 32 random bytes.
pub(super) fn is_valid_challenge(text: &str) -> bool {
    random::is_token(text)
}

/// Whether the verifier is well-formed and yields this challenge (sections 4.1 and 4.6).
pub(super) fn verify(challenge: &str, verifier: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
    let computed = self::compute_challenge(verifier);
    formed && constant_time::verify_slices_are_equal(computed.as_bytes(), challenge.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_verifies_and_similar_values_do_not() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(self::compute_challenge(verifier), challenge);
        assert!(is_valid_challenge(challenge) && verify(challenge, verifier));
        assert!(!verify(challenge, &verifier.replace('d', "e")));
        let short = &verifier[1..];
        assert!(!verify(&self::compute_challenge(short), short), "42 characters are too few");
        assert!(!is_valid_challenge(&challenge[1..]) && !is_valid_challenge(&challenge.replace('-', "+")));
    }
}
