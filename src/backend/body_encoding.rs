//! Undoes the encodings of a response that nobody asked for: content codings (RFC 9110 section
//! 8.4.1) and character encodings other than UTF-8.
//!
//! Python's HTTP clients undo them silently, so a backend whose answers have them works for
//! everybody who called it with Python. What cannot be undone is named in the error.
//!
//! The decoded bytes count against the same limit and the same budget as the received ones, and are
//! counted as they grow: a few bytes can decode to a thousand times as many.

use encoding_rs::{DecoderResult, Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};

use super::Error;
use super::body::BoundedBuffer;
use super::response_budget::release;
use crate::base::budget::Reservation;

/// The number of bytes that are decoded at a time.
const CHUNK_BYTES: usize = 8 << 10;
/// The base-2 logarithm of the largest window of deflate (RFC 1951).
const WINDOW_BITS: u8 = 15;
/// The most bytes that one byte of deflate decodes to.
const MAX_INFLATION: usize = 1032;
/// Stands for half a surrogate pair. It is replaced, and the caller told, when the JSON is checked.
const LONE_SURROGATE: &[u8] = br"\ud800";

/// The encoding of a body, as the headers describe it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BodyEncoding {
    coding: Option<ContentCoding>,
    /// The declared character encoding, unless it is UTF-8 or unknown.
    charset: Option<&'static Encoding>,
}

impl BodyEncoding {
    /// Reads `Content-Encoding` and `Content-Type`.
    ///
    /// # Errors
    /// [`Error::Compressed`] for a coding that cannot be undone.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self { coding: ContentCoding::from_headers(headers)?, charset: declared_charset(headers) })
    }

    /// Returns how many bytes a body of `size` bytes decodes to at most.
    pub(super) fn decoded_size(self, size: usize) -> usize {
        if self.coding.is_some() { size.saturating_mul(MAX_INFLATION) } else { size }
    }

    /// Decodes a body to UTF-8, up to `cap` bytes, and exchanges its reservation in `reservation`.
    /// Bytes that are no text at all pass unchanged.
    ///
    /// # Errors
    /// - [`Error::Corrupt`] if the compressed data is damaged or incomplete
    /// - [`Error::TooLarge`] or [`Error::BudgetExhausted`] as soon as there are too many bytes
    /// - [`Error::NotUtf8`] if the text is not in the encoding that it claims
    pub(super) fn decode(
        self,
        body: Vec<u8>,
        cap: usize,
        reservation: &mut Reservation,
    ) -> Result<Vec<u8>, Error> {
        let body = match self.coding {
            Some(coding) if !body.is_empty() => {
                replace_body(body, cap, reservation, |body, output| coding.decompress_into(body, output))?
            }
            _ => body,
        };
        match TextEncoding::detect(&body, self.charset) {
            TextEncoding::Utf8 => Ok(body),
            TextEncoding::Utf32 { unit } => {
                replace_body(body, cap, reservation, |body, output| decode_utf32(body, unit, output))
            }
            TextEncoding::Other(charset) => {
                replace_body(body, cap, reservation, |body, output| transcode(body, charset, output))
            }
        }
    }
}

/// Replaces a body by what `decode` makes of it, and its reservation by one for the result.
fn replace_body(
    body: Vec<u8>,
    cap: usize,
    reservation: &mut Reservation,
    decode: impl FnOnce(&[u8], &mut BoundedBuffer) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let mut output = BoundedBuffer::new(cap, reservation);
    decode(&body, &mut output)?;
    let decoded = output.into_bytes();
    release(reservation, body.capacity());
    Ok(decoded)
}

/// A content coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentCoding {
    Gzip,
    Deflate,
}

impl ContentCoding {
    /// Returns the coding of a body. `None` if it has none.
    fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        if !headers.contains_key(CONTENT_ENCODING) || has_no_body(headers) {
            return Ok(None);
        }
        let values = headers.get_all(CONTENT_ENCODING).into_iter();
        let mut codings = values
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        let Some(coding) = codings.next() else { return Ok(None) };
        match codings.next() {
            Some(_) => Err(Error::Compressed { coding: "more than one coding" }),
            None => Self::parse(coding).map(Some),
        }
    }

    fn parse(coding: &[u8]) -> Result<Self, Error> {
        let is = |name: &&str| coding.eq_ignore_ascii_case(name.as_bytes());
        if ["gzip", "x-gzip"].iter().any(is) {
            return Ok(Self::Gzip);
        }
        if is(&"deflate") {
            return Ok(Self::Deflate);
        }
        let named = ["br", "zstd", "compress"].into_iter().find(|known| is(known));
        Err(Error::Compressed { coding: named.unwrap_or("an unknown coding") })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Decompresses a body that is not empty. What follows the end of the data is ignored.
    fn decompress_into(self, body: &[u8], output: &mut BoundedBuffer) -> Result<(), Error> {
        let corrupt = || Error::Corrupt { coding: self.name() };
        let mut inflater = self.inflater(body);
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress(&body[read as usize..], &mut chunk, FlushDecompress::None)
                .map_err(|_| corrupt())?;
            let inflated = (inflater.total_out() - written) as usize;
            output.push(&chunk[..inflated])?;
            match status {
                Status::StreamEnd => return Ok(()),
                Status::Ok if inflated > 0 || inflater.total_in() > read => {}
                Status::Ok | Status::BufError => return Err(corrupt()),
            }
        }
    }

    /// `deflate` means deflated data within the zlib format; some servers leave the format out
    /// (RFC 9110 section 8.4.1.2).
    fn inflater(self, body: &[u8]) -> Decompress {
        const ZLIB_METHOD: u8 = 8;
        match self {
            Self::Gzip => Decompress::new_gzip(WINDOW_BITS),
            Self::Deflate => Decompress::new(body[0] & 0x0f == ZLIB_METHOD),
        }
    }
}

fn has_no_body(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
}

/// The character encoding of a JSON text.
enum TextEncoding {
    Utf8,
    Utf32 {
        /// Reads one code unit.
        unit: fn([u8; 4]) -> u32,
    },
    Other(&'static Encoding),
}

impl TextEncoding {
    /// Detects the encoding as Python's `json` module does: by the byte order mark, else by the
    /// zero bytes around the first characters, which are ASCII in JSON.
    ///
    /// A text that is valid in UTF-8 is in UTF-8 whatever is declared: servers declare a default of
    /// theirs, and no other text happens to be valid. The exception is ISO-2022-JP, whose bytes are
    /// all ASCII.
    fn detect(body: &[u8], declared: Option<&'static Encoding>) -> Self {
        match *body {
            [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=0xff, ..] => Self::Utf32 { unit: u32::from_be_bytes },
            [0xff, 0xfe, 0, 0, ..] | [1..=0xff, 0, 0, 0, ..] => Self::Utf32 { unit: u32::from_le_bytes },
            [0xfe, 0xff, ..] | [0, 1..=0xff, ..] => Self::Other(UTF_16BE),
            [0xff, 0xfe, ..] | [1..=0xff, 0, ..] => Self::Other(UTF_16LE),
            _ => match declared {
                Some(charset) if charset == ISO_2022_JP || str::from_utf8(body).is_err() => {
                    Self::Other(charset)
                }
                _ => Self::Utf8,
            },
        }
    }
}

/// Returns the `charset` of a `Content-Type`. UTF-16 is left out: its texts show what they are.
fn declared_charset(headers: &HeaderMap) -> Option<&'static Encoding> {
    let parameters = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').skip(1);
    let (_, label) = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Encoding::for_label_no_replacement(label.trim().trim_matches('"').as_bytes())
        .filter(|charset| ![UTF_8, UTF_16BE, UTF_16LE].contains(charset))
}

fn transcode(body: &[u8], charset: &'static Encoding, output: &mut BoundedBuffer) -> Result<(), Error> {
    let is_utf16 = charset == UTF_16BE || charset == UTF_16LE;
    let mut decoder = charset.new_decoder_without_bom_handling();
    let mut chunk = [0; CHUNK_BYTES];
    let mut rest = body;
    loop {
        let (outcome, read, written) = decoder.decode_to_utf8_without_replacement(rest, &mut chunk, true);
        output.push(&chunk[..written])?;
        rest = &rest[read..];
        match outcome {
            DecoderResult::InputEmpty => return Ok(()),
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) if is_utf16 => output.push(LONE_SURROGATE)?,
            DecoderResult::Malformed(..) => return Err(Error::NotUtf8),
        }
    }
}

fn decode_utf32(body: &[u8], unit: fn([u8; 4]) -> u32, output: &mut BoundedBuffer) -> Result<(), Error> {
    let (units, rest) = body.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Error::NotUtf8);
    }
    for bytes in units {
        match unit(*bytes) {
            0xd800..=0xdfff => output.push(LONE_SURROGATE)?,
            code => {
                let character = char::from_u32(code).ok_or(Error::NotUtf8)?;
                output.push(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::base::budget::Budget;

    const CAP: usize = 64 << 10;
    const TEXT: &str = r#"{"name": "Müller €"}"#;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn decode(of: &[(HeaderName, &'static str)], body: &[u8]) -> Result<Vec<u8>, Error> {
        let mut reservation = Budget::from_mib(1).new_reservation(None, None, true);
        BodyEncoding::from_headers(&headers(of))?.decode(body.to_vec(), CAP, &mut reservation)
    }

    fn decode_with(coding: &'static str, body: &[u8]) -> Result<Vec<u8>, Error> {
        decode(&[(CONTENT_ENCODING, coding)], body)
    }

    fn typed(content_type: &'static str, body: &[u8]) -> Result<String, Error> {
        decode(&[(CONTENT_TYPE, content_type)], body).map(|body| String::from_utf8(body).expect("UTF-8"))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn codings_that_python_clients_decode_are_decoded() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(TEXT.as_bytes()).expect("memory");
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(TEXT.as_bytes()).expect("memory");
        let plain = Ok(TEXT.as_bytes().to_vec());
        for coding in ["gzip", "GZIP", "x-gzip", "identity, gzip"] {
            assert_eq!(decode_with(coding, &gzip(TEXT.as_bytes())), plain, "{coding}");
        }
        assert_eq!(decode_with("deflate", &zlib.finish().expect("memory")), plain);
        assert_eq!(decode_with("deflate", &raw.finish().expect("memory")), plain);
        assert_eq!(decode_with("identity", TEXT.as_bytes()), plain);
        assert_eq!(decode_with("gzip", b""), Ok(Vec::new()), "an empty answer is named for that");
        let long: Vec<u8> = (0..CAP).map(|at| (at % 251) as u8 | 1).collect();
        assert_eq!(decode_with("gzip", &gzip(&long)), Ok(long), "many pieces");
    }

    #[test]
    fn a_coding_that_cannot_be_undone_is_named() {
        let compressed = |coding| Err(Error::Compressed { coding });
        assert_eq!(decode_with("BR", b"x"), compressed("br"));
        assert_eq!(decode_with("zstd", b"x"), compressed("zstd"));
        assert_eq!(decode_with("a b<c", b"x"), compressed("an unknown coding"));
        assert_eq!(decode_with("gzip, br", b"x"), compressed("more than one coding"));
        let twice = decode(&[(CONTENT_ENCODING, "gzip"), (CONTENT_ENCODING, "gzip")], b"x");
        assert_eq!(twice, compressed("more than one coding"));
        let nothing = decode(&[(CONTENT_ENCODING, "br"), (CONTENT_LENGTH, "0")], b"");
        assert_eq!(nothing, Ok(Vec::new()));
    }

    #[test]
    fn damaged_and_incomplete_data_is_named() {
        let whole = gzip(TEXT.as_bytes());
        let mut damaged = whole.clone();
        *damaged.last_mut().expect("a length") ^= 1;
        for bad in [&b"{}"[..], &whole[..whole.len() - 9], &whole[..3], &damaged] {
            assert_eq!(decode_with("gzip", bad), Err(Error::Corrupt { coding: "gzip" }));
        }
        assert_eq!(decode_with("deflate", b"\x78\x9cxx"), Err(Error::Corrupt { coding: "deflate" }));
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_more_than_the_cap() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < CAP + (1 << 10));
        let budget = Budget::from_mib(1);
        let mut reservation = budget.new_reservation(None, None, true);
        let encoding = BodyEncoding { coding: Some(ContentCoding::Gzip), charset: None };
        assert_eq!(encoding.decode(bomb.clone(), CAP, &mut reservation), Err(Error::TooLarge { limit: CAP }));
        assert!(reservation.weight() <= 2 * CAP as u64, "{}", reservation.weight());
        reservation.release();
        let refused = encoding.decode(bomb, usize::MAX, &mut reservation);
        assert!(matches!(refused, Err(Error::BudgetExhausted(_))), "{refused:?}");
        assert!(encoding.decoded_size(100) > 100_000, "it is worked on beside the requests of others");
    }

    #[test]
    fn the_reservation_follows_the_bytes() {
        let (budget, text) = (Budget::from_mib(1), vec![b' '; CAP]);
        let mut reservation = budget.new_reservation(None, None, true);
        let body = gzip(&text);
        assert_eq!(reservation.try_grow(body.capacity() as u64), Ok(()));
        let encoding = BodyEncoding { coding: Some(ContentCoding::Gzip), charset: None };
        let decoded = encoding.decode(body, CAP, &mut reservation).expect("within the cap");
        assert_eq!(reservation.weight(), decoded.capacity() as u64);
    }

    #[test]
    fn declared_character_encodings_are_read() {
        let latin = b"{\"name\": \"M\xfcller \x80\"}";
        for label in ["iso-8859-1", "\"Windows-1252\"", "latin1"] {
            let content_type: &'static str = format!("application/json; charset={label}").leak();
            assert_eq!(typed(content_type, latin).as_deref(), Ok(TEXT), "{label}");
        }
        assert_eq!(typed("application/json;v=1; Charset=shift_jis", b"\"\x83e\"").as_deref(), Ok("\"テ\""));
        assert_eq!(typed("a/b; charset=iso-2022-jp", b"\"\x1b$B%F\x1b(B\"").as_deref(), Ok("\"テ\""));
        assert_eq!(typed("a/b; charset=shift_jis", b"\"\x83\""), Err(Error::NotUtf8));
    }

    #[test]
    fn utf8_is_utf8_whatever_is_declared() {
        for declared in ["text/html; charset=iso-8859-1", "a/b; charset=utf-16", "a/b; charset=utf-8", "a/b"]
        {
            assert_eq!(typed(declared, TEXT.as_bytes()).as_deref(), Ok(TEXT), "{declared}");
        }
        for undeclared in ["application/json", "a/b; charset=utf-8", "a/b; charset=nonsense", "a/b; charset"]
        {
            let body = decode(&[(CONTENT_TYPE, undeclared)], b"\"\xfc\"");
            assert_eq!(body, Ok(b"\"\xfc\"".to_vec()), "whoever reads it says so: {undeclared}");
        }
    }

    #[test]
    fn wide_encodings_show_what_they_are() {
        let utf16: Vec<u16> = TEXT.encode_utf16().collect();
        let utf32: Vec<u32> = TEXT.chars().map(u32::from).collect();
        let wide = [
            utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>(),
            utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            utf32.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            utf32.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        ];
        let marks = [&b"\xff\xfe"[..], b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff"];
        for (body, mark) in wide.iter().zip(marks) {
            assert_eq!(typed("application/json", body).as_deref(), Ok(TEXT));
            let marked = typed("application/json", &[mark, body].concat());
            assert_eq!(marked, Ok(format!("\u{feff}{TEXT}")), "{mark:?}");
        }
        assert_eq!(typed("a/b", b"1\0").as_deref(), Ok("1"));
    }

    #[test]
    fn a_lone_surrogate_is_left_to_the_json_parser() {
        assert_eq!(typed("a/b", b"\"\0\x3d\xd8\"\0").as_deref(), Ok(r#""\ud800""#));
        assert_eq!(typed("a/b", b"\0\0\0\"\0\0\xd8\x3d\0\0\0\"").as_deref(), Ok(r#""\ud800""#));
        assert_eq!(typed("a/b", b"\0\0\0\"\0\x11\0\0"), Err(Error::NotUtf8), "no character");
        assert_eq!(typed("a/b", b"\0\0\0\"\0"), Err(Error::NotUtf8), "not a whole unit");
    }

    proptest! {
        #[test]
        fn any_body_is_decoded_or_rejected_by_name(
            body in proptest::collection::vec(any::<u8>(), 0..4096),
            coding in proptest::sample::select(vec!["", "gzip", "deflate"]),
            charset in proptest::sample::select(vec!["a/b", "a/b; charset=gbk", "a/b; charset=utf-16"]),
        ) {
            let of = [(CONTENT_ENCODING, coding), (CONTENT_TYPE, charset)];
            let decoded = decode(&of, &body);
            let is_named = matches!(decoded, Err(Error::Corrupt { .. } | Error::NotUtf8 | Error::TooLarge { .. }));
            prop_assert!(is_named || decoded.is_ok_and(|decoded| decoded.len() <= CAP));
        }
    }
}
