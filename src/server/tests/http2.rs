//! HTTP/2 with clients that no library would write: floods, and responses that are never read.
//! Frames: RFC 9113 section 4.1.

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET / http` for the test's host: indexed fields of HPACK's static table, and one literal.
fn request(stream: u32, flags: u8) -> Vec<u8> {
    let host = b"mcp.example.com";
    let length = u8::try_from(host.len()).expect("a short name");
    frame(HEADERS, flags, stream, &[&[0x82, 0x86, 0x84, 0x01, length], &host[..]].concat())
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// The head of `POST / http` for our host, whose body follows.
fn post(stream: u32) -> Vec<u8> {
    let mut head = request(stream, END_HEADERS);
    head[9] = 0x83;
    head
}

/// What comes until a frame of this kind: the kind and stream of each.
async fn until(client: &mut RawClient, kind: u8) -> Vec<(u8, u32)> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(last, _)| *last != kind) {
        let mut head = [0; 9];
        let reading = tokio::time::timeout(Duration::from_secs(5), client.0.read_exact(&mut head)).await;
        reading.unwrap_or_else(|_| panic!("{kind} does not come: {seen:?}")).expect("the connection goes on");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        client.0.read_exact(&mut payload).await.expect("a payload");
        seen.push((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])));
    }
    seen
}

#[tokio::test]
async fn a_refused_stream_is_not_reset_while_its_body_comes_and_its_connection_goes_on() {
    let gateway = start(Limits::default());
    let mut client = connect(&gateway, &frame(SETTINGS, 0, 0, &[])).await;
    for stream in (1..600).step_by(2) {
        client.send(post(stream)).await;
        until(&mut client, DATA).await;
        // The answer is there; what comes is read and dropped all the same.
        client.send(frame(DATA, 0, stream, &[b'x'; 16 << 10]).repeat(2)).await;
        client.send(frame(DATA, END_STREAM, stream, &[b'x'; 16 << 10])).await;
        client.send(frame(PING, 0, 0, &[0; 8])).await;
        let seen = until(&mut client, PING).await;
        assert!(
            !seen.iter().any(|(kind, _)| [RST_STREAM, GOAWAY].contains(kind)),
            "stream {stream}: {seen:?}"
        );
    }
}

async fn connect(gateway: &TestServer, settings: &[u8]) -> RawClient {
    let addr = http2(gateway).await;
    let mut client = RawClient(TcpStream::connect(addr).await.expect("the edge listens"));
    client.send([PREFACE, settings].concat()).await;
    client
}

/// Sends repeatedly without reading. Returns whether the server closes the connection.
async fn is_cut_off(client: &mut RawClient, mut flood: impl FnMut(u32) -> Vec<u8>) -> bool {
    let sending = async {
        for turn in 0..100_000 {
            if client.0.write_all(&flood(turn)).await.is_err() {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(Duration::from_secs(10), sending).await.unwrap_or(false)
}

#[tokio::test]
async fn floods_end_their_own_connection() {
    let gateway = start(impatient());
    let settings = frame(SETTINGS, 0, 0, &[]);
    let streams = |turn: u32| (0..100).map(move |n| (turn * 100 + n) * 2 + 1).filter(|id| *id < 1 << 31);
    let mut reset = connect(&gateway, &settings).await;
    let open_and_reset =
        |id| [request(id, END_STREAM | END_HEADERS), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat();
    assert!(
        is_cut_off(&mut reset, |turn| streams(turn).flat_map(open_and_reset).collect()).await,
        "rapid reset"
    );
    let mut pings = connect(&gateway, &settings).await;
    assert!(
        is_cut_off(&mut pings, |_| frame(PING, 0, 0, &[0; 8]).repeat(1_000)).await,
        "pings, no answer read"
    );
    let mut tuned = connect(&gateway, &settings).await;
    assert!(is_cut_off(&mut tuned, |_| setting(4, 65_535).repeat(1_000)).await, "settings, no answer read");
    let mut endless = connect(&gateway, &[settings.clone(), request(1, END_STREAM)].concat()).await;
    let header = [&[0x00, 1, b'x', 127, 0x81, 0x07][..], &[b'y'; 1_024]].concat();
    assert!(is_cut_off(&mut endless, |_| frame(CONTINUATION, 0, 1, &header)).await, "a head without end");
    assert_eq!(ask(&gateway, get("/a/mcp")).await.0, 404, "neighbours are served");
}

#[tokio::test]
async fn a_closed_flow_control_window_is_not_waited_for() {
    let gateway = start(impatient());
    let no_window = setting(4, 0);
    let mut client = connect(&gateway, &[no_window, request(1, END_STREAM | END_HEADERS)].concat()).await;
    assert!(client.ends().await);
    assert!(gateway.server.metrics.encode().contains(r#"connections_refused_total{reason="stalled"} 1"#));
}

#[tokio::test]
async fn settings_frame_announces_the_limits() {
    let gateway = start(Limits::default());
    let mut client = connect(&gateway, &frame(SETTINGS, 0, 0, &[])).await;
    let mut head = [0; 9];
    client.0.read_exact(&mut head).await.expect("a frame");
    assert_eq!(head[3], SETTINGS);
    let mut said = vec![0; usize::from(head[2])];
    client.0.read_exact(&mut said).await.expect("settings");
    let value = |name: u8| {
        let found = said.chunks_exact(6).find(|one| one[..2] == [0, name]);
        found.map(|one| u32::from_be_bytes([one[2], one[3], one[4], one[5]]))
    };
    let (streams, window, header_list) = (value(3), value(4), value(6));
    assert_eq!((streams, window, header_list), (Some(100), Some(64 << 10), Some(16 << 10)), "{said:?}");
}

#[tokio::test]
async fn an_unfinished_preface_or_head_is_cut() {
    let gateway = start(Limits { idle_seconds: 600, ..impatient() });
    let addr = http2(&gateway).await;
    let mut mute = RawClient(TcpStream::connect(addr).await.expect("the edge listens"));
    assert!(mute.ends().await, "no preface");
    let mut half = connect(&gateway, &[frame(SETTINGS, 0, 0, &[]), request(1, END_STREAM)].concat()).await;
    assert!(half.ends().await, "half a head");
    let mut dribble = connect(&gateway, &[frame(SETTINGS, 0, 0, &[]), request(1, END_STREAM)].concat()).await;
    let dribbling = async {
        while dribble.0.write_all(&frame(CONTINUATION, 0, 1, &[])).await.is_ok() {
            // The pace of the client, which is what is tested.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dribbling).await.expect("a head without end is cut");
    assert!(
        gateway.server.metrics.encode().contains(r#"connections_refused_total{reason="header_timeout"} 3"#)
    );
}

#[tokio::test]
async fn an_http2_client_without_requests_is_disconnected() {
    let gateway = start(Limits { header_seconds: 600, ..impatient() });
    let mut mute = connect(&gateway, &frame(SETTINGS, 0, 0, &[])).await;
    assert!(mute.ends().await);
}
