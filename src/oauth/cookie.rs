//! Cookies of a browser that is logging in. Their names bind them to the host alone (`__Host-`), so that no neighbouring host can
//! set them; the path must then be `/`, so a tenant's are its own by name and by what is sealed in them.

use http::{HeaderMap, HeaderValue, header};

/// Browsers keep cookies of 4096 bytes at most, name and attributes included.
const PIECE: usize = 3500;
const MOST_PIECES: usize = 4;

/// Why a value cannot be a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// The value of the cookie of this name, put together again from its pieces.
pub(super) fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut value = piece(headers, name)?.to_owned();
    for number in 1..MOST_PIECES {
        match piece(headers, &numbered(name, number)) {
            Some(more) => value.push_str(more),
            None => break,
        }
    }
    Some(value)
}

fn piece<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Sets a cookie for so many seconds; a long value comes in pieces.
pub(super) fn set(headers: &mut HeaderMap, name: &str, value: &str, seconds: i64) -> Result<(), TooLong> {
    if value.len() > PIECE * MOST_PIECES {
        return Err(TooLong);
    }
    for (number, piece) in value.as_bytes().chunks(PIECE).enumerate() {
        let piece = std::str::from_utf8(piece).expect("sealed values are ASCII");
        append(headers, &numbered(name, number), piece, seconds);
    }
    Ok(())
}

/// Takes a cookie away, all its pieces included.
pub(super) fn clear(asked: &HeaderMap, headers: &mut HeaderMap, name: &str) {
    for name in (0..MOST_PIECES).map(|number| numbered(name, number)) {
        if piece(asked, &name).is_some() {
            append(headers, &name, "", 0);
        }
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &str, seconds: i64) {
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    headers.append(header::SET_COOKIE, HeaderValue::try_from(text).expect("names and values are ASCII"));
}

fn numbered(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        _ => format!("{name}.{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser sends after these were set.
    fn sent(set: &HeaderMap) -> HeaderMap {
        let pairs = set.get_all(header::SET_COOKIE).iter().map(|line| {
            let line = line.to_str().expect("ASCII");
            assert!(
                line.ends_with("; Secure; HttpOnly; SameSite=Lax") && line.contains("; Path=/; "),
                "{line}"
            );
            line.split(';').next().expect("a pair").to_owned()
        });
        let line = pairs.collect::<Vec<_>>().join("; ");
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(line).expect("ASCII"))])
    }

    #[test]
    fn a_long_value_comes_back_whole() {
        for length in [1, PIECE, PIECE + 1, PIECE * MOST_PIECES] {
            let mut headers = HeaderMap::new();
            let value: String = (0..length).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
            set(&mut headers, "__Host-x", &value, 600).expect("set");
            let asked = sent(&headers);
            assert_eq!(read(&asked, "__Host-x"), Some(value));
            let mut cleared = HeaderMap::new();
            clear(&asked, &mut cleared, "__Host-x");
            assert_eq!(cleared.get_all(header::SET_COOKIE).iter().count(), length.div_ceil(PIECE));
        }
        let long = "x".repeat(PIECE * MOST_PIECES + 1);
        assert_eq!(set(&mut HeaderMap::new(), "__Host-x", &long, 600), Err(TooLong));
    }

    #[test]
    fn only_the_very_name_counts() {
        let headers =
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static("a=1; __Host-x=2;b=3"))]);
        assert_eq!(read(&headers, "__Host-x").as_deref(), Some("2"));
        assert_eq!(read(&headers, "x"), None);
        assert_eq!(read(&headers, "b").as_deref(), Some("3"));
    }
}
