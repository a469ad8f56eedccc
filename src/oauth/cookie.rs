//! Cookies of a browser during a login. The `__Host-` prefix binds them to the host, so that no
//! neighbouring host can set them; it also requires the path `/`, so a tenant's cookies are told
//! apart by their names and by what is sealed in them.
//!
//! A browser sends them with every request to the host, for whichever tenant, and a request head is
//! limited to 16 KiB. So cookies are few and small: however many logins a person is led to begin,
//! the next request can still be read.

use http::{HeaderMap, HeaderValue, header};

/// The limit on a value, in bytes. Browsers accept cookies of at most 4096 bytes, name and
/// attributes included.
const MAX_CHUNK_BYTES: usize = 3500;
const MAX_CHUNKS: usize = 2;
/// The limit on all cookies of one kind together: the largest single value.
const MAX_KIND_BYTES: usize = MAX_CHUNK_BYTES * MAX_CHUNKS;
/// The limit on cookies besides the newest, for two concurrent logins.
const OLDER_KEPT: usize = 1;

/// The value is too long for a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CookieTooLong;

/// Returns the value of a cookie, reassembled from its pieces.
pub(super) fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut value = find_chunk(headers, name)?.to_owned();
    for number in 1..MAX_CHUNKS {
        match find_chunk(headers, &chunk_name(name, number)) {
            Some(more) => value.push_str(more),
            None => break,
        }
    }
    Some(value)
}

fn find_chunk<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookie_pairs(headers).find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn cookie_pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// Sets a cookie for `seconds`; splits a long value into pieces.
pub(super) fn set(
    headers: &mut HeaderMap,
    name: &str,
    value: &str,
    seconds: i64,
) -> Result<(), CookieTooLong> {
    if value.len() > MAX_KIND_BYTES {
        return Err(CookieTooLong);
    }
    for (number, piece) in value.as_bytes().chunks(MAX_CHUNK_BYTES).enumerate() {
        let piece = std::str::from_utf8(piece).expect("sealed values are ASCII");
        append_set_cookie(headers, &chunk_name(name, number), piece, seconds);
    }
    Ok(())
}

/// Sets a cookie of a kind (a prefix of the name), and removes older ones of that kind, of all
/// tenants on the host.
pub(super) fn set_and_evict_older(
    asked: &HeaderMap,
    headers: &mut HeaderMap,
    kind: &str,
    (name, value): (&str, &str),
    seconds: i64,
) -> Result<(), CookieTooLong> {
    set(headers, name, value, seconds)?;
    let (mut room, mut kept) = (MAX_KIND_BYTES - value.len(), 0);
    for older in request_cookies(asked, kind).into_iter().rev().filter(|older| older.name != name) {
        if kept < OLDER_KEPT && older.bytes <= room {
            (room, kept) = (room - older.bytes, kept + 1);
        } else {
            older.chunk_names.iter().for_each(|piece| append_set_cookie(headers, piece, "", 0));
        }
    }
    Ok(())
}

/// Removes all cookies of a kind.
pub(super) fn clear_kind(asked: &HeaderMap, headers: &mut HeaderMap, kind: &str) {
    for gone in request_cookies(asked, kind) {
        gone.chunk_names.iter().for_each(|piece| append_set_cookie(headers, piece, "", 0));
    }
}

/// A received cookie, in its pieces.
struct RequestCookie<'a> {
    name: &'a str,
    chunk_names: Vec<&'a str>,
    bytes: usize,
}

/// Returns the cookies of a kind in the order received: browsers send older ones first (RFC 6265
/// section 5.4).
fn request_cookies<'a>(asked: &'a HeaderMap, kind: &str) -> Vec<RequestCookie<'a>> {
    let mut all: Vec<RequestCookie<'_>> = Vec::new();
    for (piece, value) in cookie_pairs(asked).filter(|(piece, _)| piece.starts_with(kind)) {
        let name = strip_chunk_suffix(piece);
        match all.iter_mut().find(|came| came.name == name) {
            Some(came) => {
                came.chunk_names.push(piece);
                came.bytes += value.len();
            }
            None => all.push(RequestCookie { name, chunk_names: vec![piece], bytes: value.len() }),
        }
    }
    all
}

/// Returns the name of the cookie that a piece belongs to. Other name parts are longer than a piece
/// number.
fn strip_chunk_suffix(piece: &str) -> &str {
    match piece.rsplit_once('.') {
        Some((name, number)) if number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => piece,
    }
}

/// Removes a cookie, all its pieces included.
pub(super) fn clear(asked: &HeaderMap, headers: &mut HeaderMap, name: &str) {
    for name in (0..MAX_CHUNKS).map(|number| chunk_name(name, number)) {
        if find_chunk(asked, &name).is_some() {
            append_set_cookie(headers, &name, "", 0);
        }
    }
}

fn append_set_cookie(headers: &mut HeaderMap, name: &str, value: &str, seconds: i64) {
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    headers.append(header::SET_COOKIE, HeaderValue::try_from(text).expect("names and values are ASCII"));
}

fn chunk_name(name: &str, number: usize) -> String {
    match number {
        0 => name.to_owned(),
        _ => format!("{name}.{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the headers that a browser sends after these were set.
    fn to_request_headers(set: &HeaderMap) -> HeaderMap {
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
        for length in [1, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 1, MAX_CHUNK_BYTES * MAX_CHUNKS] {
            let mut headers = HeaderMap::new();
            let value: String = (0..length).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
            set(&mut headers, "__Host-x", &value, 600).expect("set");
            let asked = to_request_headers(&headers);
            assert_eq!(read(&asked, "__Host-x"), Some(value));
            let mut cleared = HeaderMap::new();
            clear(&asked, &mut cleared, "__Host-x");
            assert_eq!(cleared.get_all(header::SET_COOKIE).iter().count(), length.div_ceil(MAX_CHUNK_BYTES));
        }
        let long = "x".repeat(MAX_CHUNK_BYTES * MAX_CHUNKS + 1);
        assert_eq!(set(&mut HeaderMap::new(), "__Host-x", &long, 600), Err(CookieTooLong));
    }

    #[test]
    fn however_many_are_begun_few_and_small_ones_are_kept() {
        let kind = "__Host-login.";
        let mut jar: Vec<(String, String)> = Vec::new();
        for number in 0..40_usize {
            let line =
                jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
            let line = HeaderValue::try_from(line).expect("ASCII");
            let asked = HeaderMap::from_iter([(header::COOKIE, line)]);
            let (name, value) =
                (format!("{kind}t{}.state{number:03}", number % 3), "x".repeat(500 + number * 160));
            let mut headers = HeaderMap::new();
            set_and_evict_older(&asked, &mut headers, kind, (&name, &value), 600).expect("set");
            for line in headers.get_all(header::SET_COOKIE) {
                let line = line.to_str().expect("ASCII");
                let (name, value) = line.split(';').next().and_then(|it| it.split_once('=')).expect("a pair");
                jar.retain(|(known, _)| known != name);
                if !line.contains("Max-Age=0;") {
                    jar.push((name.to_owned(), value.to_owned()));
                }
            }
            let taken: usize = jar.iter().map(|(_, value)| value.len()).sum();
            assert!(
                taken <= MAX_KIND_BYTES && jar.len() <= 2 * MAX_CHUNKS,
                "{number}: {taken} bytes in {}",
                jar.len()
            );
            assert!(jar.iter().any(|(known, _)| *known == name), "the newest is there");
            let before = format!("state{:03}", number.wrapping_sub(1));
            let is_kept = jar.iter().any(|(known, _)| known.ends_with(&before));
            assert_eq!(
                is_kept,
                number > 0 && 2 * value.len() - 160 <= MAX_KIND_BYTES,
                "{number}: the one before"
            );
        }
    }

    #[test]
    fn cookies_of_older_versions_are_removed_with_all_chunks() {
        let line = "__Host-login.a.aaaaaaaa=1; x=2; __Host-login.a.aaaaaaaa.1=1; __Host-login.a.aaaaaaaa.2=1; \
                    __Host-login.a.aaaaaaaa.3=1; __Host-consent.a=4; __Host-login.b.bbbbbbbb=5";
        let asked = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))]);
        let mut headers = HeaderMap::new();
        set_and_evict_older(&asked, &mut headers, "__Host-login.", ("__Host-login.c.cccccccc", "6"), 600)
            .expect("set");
        clear_kind(&asked, &mut headers, "__Host-consent.");
        let lines: Vec<_> =
            headers.get_all(header::SET_COOKIE).iter().map(|it| it.to_str().expect("ASCII")).collect();
        let gone: Vec<_> = lines.iter().filter(|line| line.contains("Max-Age=0;")).collect();
        assert_eq!(gone.len(), 5, "{lines:?}");
        assert!(gone[..4].iter().all(|line| line.starts_with("__Host-login.a.aaaaaaaa")), "{lines:?}");
        assert!(gone[4].starts_with("__Host-consent.a="), "{lines:?}");
    }

    #[test]
    fn only_the_exact_cookie_name_matches() {
        let headers =
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static("a=1; __Host-x=2;b=3"))]);
        assert_eq!(read(&headers, "__Host-x").as_deref(), Some("2"));
        assert_eq!(read(&headers, "x"), None);
        assert_eq!(read(&headers, "b").as_deref(), Some("3"));
    }
}
