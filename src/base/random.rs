//! The only source of randomness in this crate.

use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::hex;

/// Returns `N` unpredictable bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    rand::fill(&mut out).expect("the operating system always has randomness once it has booted");
    out
}

/// Returns an unpredictable text of 43 base64url characters (256 bits).
pub fn token() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes::<32>())
}

/// Whether a text has the form that [`token`] returns.
pub fn is_token(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Returns `N` unpredictable bytes as lower-case hex, `2 * N` characters.
pub fn hex<const N: usize>() -> String {
    let mut text = String::with_capacity(2 * N);
    hex::write(&mut text, &bytes::<N>()).expect("writing to a String cannot fail");
    text
}
