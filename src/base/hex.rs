//! Hexadecimal encoding and decoding.

use std::fmt;

/// Decodes exactly `N` bytes from digits of either case.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (text, mut out) = (text.as_bytes(), [0; N]);
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Writes bytes as lower-case digits.
///
/// # Errors
/// The error of `out`.
pub fn write(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back() {
        let mut text = String::new();
        write(&mut text, &[0, 0x1f, 0xff]).expect("written");
        assert_eq!(text, "001fff");
        assert_eq!(decode(&text), Some([0, 0x1f, 0xff]));
        assert_eq!(decode("001FFF"), Some([0, 0x1f, 0xff]));
        for bad in ["001ff", "001fff0", "001ffg", "00é1f", ""] {
            assert_eq!(decode::<3>(bad), None, "{bad}");
        }
    }
}
