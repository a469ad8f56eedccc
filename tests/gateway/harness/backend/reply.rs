//! The replies of the fake backend, and their bytes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

/// A reaction to a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Rows in the form of the vendor's API.
    Rows,
    Json(Value),
    /// A verbatim body with the content type JSON and further headers.
    Text(Arc<str>, &'static [(&'static str, &'static str)]),
    /// Any status with any JSON body.
    Status(u16, Value),
    /// Any status with these bytes and these headers.
    Bytes(u16, Arc<[u8]>, &'static [(&'static str, &'static str)]),
    /// The reply after a delay.
    After(Duration, Box<Reply>),
    /// The reply after the next [`FakeBackend::release`].
    Held(Box<Reply>),
    /// No response.
    Hang,
    /// The status line, then silence.
    HangInHeaders,
    /// Headers and half a body, then silence.
    HangInBody,
    /// The reply's bytes in drips.
    Drip(Box<Reply>),
    /// A body of this many bytes with a Content-Length.
    Huge(usize),
    /// A chunked body of this many bytes.
    HugeChunked(usize),
    /// A body that is not JSON, with the content type JSON.
    Garbage,
    /// A web page.
    Html(u16),
    /// 429 with this Retry-After.
    RateLimited(&'static str),
    /// A chunk that ends early, then the end of the connection.
    TruncatedChunk,
    /// A connection reset instead of a response.
    Reset,
    /// The end of the connection instead of a response.
    Close,
    /// The first text, then the second repeatedly for as long as the client reads.
    Endless(&'static str, &'static str),
    /// A response with this many headers.
    ManyHeaders(usize),
    /// A redirect.
    Redirect(u16, String),
    /// JSON with a byte order mark, with a text content type.
    WrongContentType,
}

/// What happens to the connection after a reply.
pub(super) enum After {
    KeepAlive,
    Close,
    Reset,
}

/// Returns the bytes of a reply, and what follows them; `None` is silence.
pub(super) fn bytes_of(reply: &Reply) -> (Vec<u8>, Option<After>) {
    let json = "application/json";
    let whole =
        |status, kind, body: &[u8]| (answer(status, &[("content-type", kind)], body), Some(After::KeepAlive));
    match reply {
        Reply::Rows => whole(200, json, rows().to_string().as_bytes()),
        Reply::Json(value) => whole(200, json, value.to_string().as_bytes()),
        Reply::Text(text, headers) => {
            let headers = [&[("content-type", json)], *headers].concat();
            (answer(200, &headers, text.as_bytes()), Some(After::KeepAlive))
        }
        Reply::Status(status, value) => whole(*status, json, value.to_string().as_bytes()),
        Reply::Bytes(status, body, headers) => (answer(*status, headers, body), Some(After::KeepAlive)),
        Reply::Hang => (Vec::new(), None),
        Reply::HangInHeaders => (b"HTTP/1.1 200 OK\r\ncontent-type: applic".to_vec(), None),
        Reply::HangInBody => (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"rows\": [".to_vec(), None),
        Reply::Huge(size) => whole(200, json, format!("\"{}\"", "x".repeat(size - 2)).as_bytes()),
        Reply::HugeChunked(size) => {
            let body = format!("{:x}\r\n\"{}\"\r\n0\r\n\r\n", size, "x".repeat(size - 2));
            (chunked(body.as_bytes()), Some(After::KeepAlive))
        }
        Reply::Garbage => whole(200, json, b"\x00\xff{not json"),
        Reply::Html(status) => whole(*status, "text/html", b"<!doctype html><h1>It works</h1>"),
        Reply::RateLimited(after) => (answer(429, &[("retry-after", after)], b"{}"), Some(After::KeepAlive)),
        Reply::TruncatedChunk => (chunked(b"ff\r\n{\"rows\": ["), Some(After::Close)),
        Reply::Reset => (Vec::new(), Some(After::Reset)),
        Reply::Close => (Vec::new(), Some(After::Close)),
        Reply::Redirect(status, target) => {
            (answer(*status, &[("location", target)], b""), Some(After::KeepAlive))
        }
        Reply::WrongContentType => whole(200, "text/plain", b"\xef\xbb\xbf{\"rows\": []}"),
        Reply::Endless(head, _) => (head.as_bytes().to_vec(), None),
        Reply::ManyHeaders(count) => {
            let names: Vec<String> = (0..*count).map(|number| format!("x-{number}")).collect();
            let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
            (answer(200, &headers, b"{}"), Some(After::KeepAlive))
        }
        Reply::After(..) | Reply::Held(_) | Reply::Drip(_) => unreachable!("unwrapped before"),
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Some Reason\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    [&head[..], body].concat()
}

/// Returns two rows about orders.
pub(crate) fn rows() -> Value {
    json!({
        "columns": ["region", "orders"],
        "rows": [{"region": "north", "orders": 12}, {"region": "south", "orders": 7}],
        "row_count": 2,
    })
}
