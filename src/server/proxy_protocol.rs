//! The PROXY protocol, versions 1 and 2 (HAProxy, "The PROXY protocol"): a header before everything
//! else on a connection, in which a proxy that does not speak HTTP says who called it.
//!
//! Exactly the header is read, so that a TLS handshake can follow on the same socket. Only trusted
//! proxies may send one; the caller checks that, and sets the deadline.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The beginning of both versions that tells them apart; every header is longer.
const SIGNATURE_BYTES: usize = 12;
const SIGNATURE_V2: [u8; SIGNATURE_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, and length.
const FIXED_BYTES_V2: usize = 16;
/// The longest line of version 1.
const MAX_BYTES_V1: usize = 107;
/// Version 2 allows 64 KiB; real headers have at most a few hundred bytes (addresses, and what
/// clouds add).
const MAX_BYTES_V2: usize = 2 << 10;

/// Why a connection has no usable header.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the peer is not in trusted_proxies")]
    NotTrusted,
    #[error("the connection does not begin with a PROXY protocol header")]
    Absent,
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    #[error("the PROXY protocol header is longer than {MAX_BYTES_V2} bytes")]
    TooLong,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header, and nothing after it. Returns the address of the client, or `None` if the
/// proxy asks for itself (`LOCAL`, as in health checks) or does not know it (`UNKNOWN`).
pub(super) async fn read_client(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Error> {
    let mut bytes = vec![0; SIGNATURE_BYTES];
    stream.read_exact(&mut bytes).await?;
    match bytes == SIGNATURE_V2 {
        true => read_rest_v2(stream, &mut bytes).await?,
        false if bytes.starts_with(b"PROXY ") => read_rest_v1(stream, &mut bytes).await?,
        false => return Err(Error::Absent),
    }
    parse(&bytes)
}

async fn read_rest_v2(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), Error> {
    bytes.resize(FIXED_BYTES_V2, 0);
    stream.read_exact(&mut bytes[SIGNATURE_BYTES..]).await?;
    let length = FIXED_BYTES_V2 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > MAX_BYTES_V2 {
        return Err(Error::TooLong);
    }
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[FIXED_BYTES_V2..]).await?;
    Ok(())
}

/// Reads to the end of the line. What is peeked at and has no line end belongs to the line.
async fn read_rest_v1(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let mut peeked = [0; MAX_BYTES_V1];
    while !bytes.ends_with(b"\n") {
        let room = MAX_BYTES_V1 - bytes.len();
        let count = stream.peek(&mut peeked[..room]).await?;
        // No room, or the end of the stream.
        if count == 0 {
            return Err(Error::Malformed);
        }
        let line_end = peeked[..count].iter().position(|byte| *byte == b'\n');
        let take = line_end.map_or(count, |at| at + 1);
        let start = bytes.len();
        bytes.resize(start + take, 0);
        stream.read_exact(&mut bytes[start..]).await?;
    }
    Ok(())
}

/// Parses a whole header.
fn parse(bytes: &[u8]) -> Result<Option<SocketAddr>, Error> {
    let (header, length) = ProxyHeader::parse(bytes, ParseConfig::default()).map_err(|_| Error::Malformed)?;
    // Version 1 says how long it is by its line end only.
    if length != bytes.len() {
        return Err(Error::Malformed);
    }
    Ok(header.proxied_address().map(|addresses| addresses.source))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Returns what is read of `sent`, in pieces of `piece` bytes, and what is left on the socket.
    async fn read(sent: &[u8], piece: usize) -> (Result<Option<String>, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut near = TcpStream::connect(address).await.expect("a connection");
        let (mut far, _) = listener.accept().await.expect("a connection");
        near.set_nodelay(true).expect("set");
        let sending = async {
            for piece in sent.chunks(piece) {
                near.write_all(piece).await.expect("sent");
                tokio::task::yield_now().await;
            }
            near.shutdown().await.expect("shut");
        };
        let (read, ()) = tokio::join!(read_client(&mut far), sending);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("the rest");
        (read.map(|it| it.map(|it| it.to_string())).map_err(|error| error.to_string()), rest)
    }

    fn v2(command: u8, family: u8, addresses: &[u8], extra: usize) -> Vec<u8> {
        let length = u16::try_from(addresses.len() + extra).expect("a length").to_be_bytes();
        let mut bytes = [&SIGNATURE_V2[..], &[0x20 | command, family], &length, addresses].concat();
        // A no-op field (PP2_TYPE_NOOP) of what is left.
        if extra >= 3 {
            bytes.push(4);
            bytes.extend(u16::try_from(extra - 3).expect("a length").to_be_bytes());
            bytes.resize(bytes.len() + extra - 3, 0);
        }
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 9, 10, 0, 0, 1, 0x12, 0x34, 1, 0xbb];

    #[tokio::test]
    async fn the_client_is_read_and_what_follows_is_left() {
        let v6 =
            [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9].as_slice(), &[0; 16], &[0, 80, 0, 80]]
                .concat();
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.9 10.0.0.1 4660 443\r\n".to_vec(), Some("192.0.2.9:4660")),
            (b"PROXY TCP6 2001:db8::9 ::1 80 80\r\n".to_vec(), Some("[2001:db8::9]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &V4, 0), Some("192.0.2.9:4660")),
            (v2(1, 0x11, &V4, 300), Some("192.0.2.9:4660")),
            (v2(1, 0x21, &v6, 0), Some("[2001:db8::9]:80")),
            (v2(0, 0x11, &V4, 0), None),
            (v2(0, 0, &[], 0), None),
            (v2(1, 0, &[], 0), None),
        ] {
            for piece in [1, 7, 4096] {
                let (read, rest) = read(&[&header[..], b"\x16\x03 then TLS\n"].concat(), piece).await;
                assert_eq!(read, Ok(client.map(str::to_owned)), "{header:?} by {piece}");
                assert_eq!(rest, b"\x16\x03 then TLS\n", "{header:?} by {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long_line = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        let mut odd_version = v2(1, 0x11, &V4, 0);
        odd_version[12] = 0x31;
        for (sent, why) in [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "does not begin"),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0".to_vec(), "does not begin"),
            (b"PROXY TCP4 192.0.2.9\r\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.9 10.0.0.1 1 2\n".to_vec(), "malformed"),
            (b"PROXY TCP4 192.0.2.9 10.0.0.1 1".to_vec(), "malformed"),
            (long_line, "malformed"),
            (v2(1, 0x11, &V4[..4], 0), "malformed"),
            (odd_version, "malformed"),
            (v2(1, 0x11, &V4, MAX_BYTES_V2), "longer"),
            (v2(1, 0x11, &V4, 0)[..20].to_vec(), "eof"),
            (b"PROXY".to_vec(), "eof"),
        ] {
            let (read, _) = read(&sent, 4096).await;
            assert!(read.as_ref().is_err_and(|error| error.contains(why)), "{sent:?}: {read:?}");
        }
    }
}
