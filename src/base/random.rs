//! The only place where chance comes from.

use aws_lc_rs::rand;

/// `N` bytes nobody can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    rand::fill(&mut out).expect("the operating system always has randomness once it has booted");
    out
}

/// `N` unguessable bytes as lower-case hex, `2 * N` characters.
pub fn hex<const N: usize>() -> String {
    use std::fmt::Write;
    bytes::<N>().iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
