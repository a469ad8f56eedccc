//! What a file is that has the name of a zip but is none.

use std::fmt;

/// What else a file with the name of a zip can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bundle) enum OtherFormat {
    Html,
    Gzip,
    SevenZip,
    Rar,
    Xz,
    Bzip2,
    Pdf,
    Yaml,
}

impl OtherFormat {
    /// Recognizes a format by its first bytes.
    pub(super) fn detect(bytes: &[u8]) -> Option<Self> {
        let text = bytes.trim_ascii_start();
        let begins_with =
            |start: &[u8]| text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
        match bytes {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Some(Self::SevenZip),
            [b'R', b'a', b'r', b'!', ..] => Some(Self::Rar),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', ..] => Some(Self::Bzip2),
            _ if begins_with(b"<!doctype html") || begins_with(b"<html") => Some(Self::Html),
            _ if begins_with(b"%PDF-") => Some(Self::Pdf),
            _ if begins_with(b"search_url:") => Some(Self::Yaml),
            _ => None,
        }
    }
}

impl fmt::Display for OtherFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Html => "a web page (HTML)",
            Self::Gzip => "a gzip file",
            Self::SevenZip => "a 7z archive",
            Self::Rar => "a RAR archive",
            Self::Xz => "an xz file",
            Self::Bzip2 => "a bzip2 file",
            Self::Pdf => "a PDF document",
            Self::Yaml => "a YAML file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_recognized_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\n <!DOCTYPE HTML><title>Log in</title>"[..], Some("a web page (HTML)")),
            (b"<html>", Some("a web page (HTML)")),
            (b"\x1f\x8b\x08", Some("a gzip file")),
            (b"7z\xbc\xaf\x27\x1c\x00", Some("a 7z archive")),
            (b"Rar!\x1a\x07", Some("a RAR archive")),
            (b"\xfd7zXZ\0", Some("an xz file")),
            (b"BZh9", Some("a bzip2 file")),
            (b"%PDF-1.7", Some("a PDF document")),
            (b"search_url: https://x\n", Some("a YAML file")),
            (b"PK\x03\x04", None),
            (b"<htm", None),
            (b"", None),
        ] {
            let found = OtherFormat::detect(bytes).map(|format| format.to_string());
            assert_eq!(found.as_deref(), expected, "{}", bytes.escape_ascii());
        }
    }
}
