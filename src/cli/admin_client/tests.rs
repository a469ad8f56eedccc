use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// A listener that answers one connection with `answer` and returns the request it received.
fn listener(answer: &'static str) -> (AdminClient, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = AdminClient::new(listener.local_addr().expect("an address"));
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut piece = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut piece).expect("readable");
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(answer.as_bytes()).expect("writable");
        String::from_utf8(request).expect("text")
    });
    (client, asked)
}

#[test]
fn a_tenant_is_asked_for_by_its_encoded_name() {
    let (client, asked) = listener(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
         {\"name\":\"a\",\"stem\":\"a b\",\"state\":\"serving\",\"since\":\"2026-11-24T00:00:00Z\"}",
    );
    let answer = client.tenant("a-b c/../d");
    let asked = asked.join().expect("asked");
    assert!(asked.starts_with("GET /api/tenants/a-b%20c%2F..%2Fd HTTP/1.1\r\n"), "{asked}");
    assert_eq!(answer.expect("a status").stem, "a b");
}

#[test]
fn a_missing_tenant_is_said() {
    let (client, _) = listener("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert!(matches!(client.tenant("x"), Err(Error::NotFound(_))));
}

#[test]
fn an_unwell_gateway_is_told_from_a_stranger() {
    let (client, _) = listener("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    assert!(matches!(client.health(), Err(Error::Status(_, StatusCode::SERVICE_UNAVAILABLE))));
    let (client, _) = listener("220 mail.example ESMTP\r\n");
    assert!(matches!(client.health(), Err(Error::NotAGateway(_))));
}

#[test]
fn nobody_there_is_said_with_what_to_do() {
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let error = AdminClient::new(address).health().expect_err("nobody listens");
    assert!(error.to_string().contains("tenantd serve"), "{error}");
}

#[test]
fn a_listener_on_every_address_is_asked_on_loopback() {
    let client = AdminClient::new("0.0.0.0:9900".parse().expect("an address"));
    assert_eq!(client.address.to_string(), "127.0.0.1:9900");
}
