//! The only place where chance comes from.

use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::hex;

/// `N` bytes nobody can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    rand::fill(&mut out).expect("the operating system always has randomness once it has booted");
    out
}

/// A text of 43 URL characters (base64url) that nobody can guess.
pub fn text() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes::<32>())
}

/// Whether a text has the form of [`text`].
pub fn is_text(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// `N` unguessable bytes as lower-case hex, `2 * N` characters.
pub fn hex<const N: usize>() -> String {
    let mut text = String::with_capacity(2 * N);
    hex::write(&mut text, &bytes::<N>()).expect("writing to a String cannot fail");
    text
}
