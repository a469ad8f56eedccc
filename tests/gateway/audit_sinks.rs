//! The receivers of the audit beside its file: the setting `audit_sinks`.

mod reload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::harness::backend::Recorded;
use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Reply, Setup, Tenant, until, until_within};

/// Longer than the first pauses between attempts together.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A gateway with one HTTP sink, a token and a key that signs.
fn with_http_sink(receiver: &FakeBackend) -> Setup {
    with_http_sink_and(receiver, "")
}

fn with_http_sink_and(receiver: &FakeBackend, settings: &str) -> Setup {
    let settings = format!(
        "{settings}audit_sinks:\n  - name: lake\n    http: {}\n    token_file: sink.token\n    secret_file: sink.key\n",
        receiver.url("/audit")
    );
    let setup = Setup::new().settings(&settings);
    fs::write(setup.path().join("sink.token"), secret("sink-token")).expect("written");
    fs::write(setup.path().join("sink.key"), secret("sink-key")).expect("written");
    setup
}

/// Returns the lines of the audit file.
fn written_lines(gateway: &Gateway) -> Vec<Value> {
    let text = fs::read_to_string(gateway.path().join("state/audit.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn ids<'a>(lines: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    lines.into_iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect()
}

/// Returns the lines that an HTTP receiver got from the request `from` on.
fn posted_lines(receiver: &FakeBackend, from: usize) -> Vec<Value> {
    let requests = receiver.requests();
    let bodies =
        requests[from..].iter().map(|request| String::from_utf8(request.body.clone()).expect("text"));
    bodies
        .flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| parse(&line))
        .collect()
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

fn pause_and_resume(gateway: &Gateway) {
    for order in ["pause", "resume"] {
        let output = super::state::tenants(gateway, &[order, "a"]);
        assert_eq!(output.status.code(), Some(0), "{order}");
    }
}

/// Verifies a request as Standard Webhooks says.
fn is_signed(request: &Recorded, key: &str) -> bool {
    let header = |name: &str| request.header(name).expect("a header");
    let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
    signed.extend_from_slice(&request.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = header("webhook-signature");
    let bytes = BASE64_STANDARD.decode(signature.strip_prefix("v1,").expect("version 1")).expect("base64");
    hmac::verify(&key, &signed, &bytes).is_ok()
}

#[tokio::test]
async fn a_receiver_that_fails_hangs_and_closes_delays_no_call_and_gets_every_line_in_the_end() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(503, Value::Null));
    let gateway = with_http_sink(&receiver).file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    for reply in [Reply::Status(503, Value::Null), Reply::Close, Reply::Reset, Reply::HangInHeaders] {
        let before = receiver.requests().len();
        receiver.answer("/audit", reply);
        gateway.client().search(Era::Modern, "/a", "q").await.data();
        let asked = async || (receiver.requests().len() > before).then_some(());
        until_within(PATIENCE, "the receiver is asked", asked).await;
    }
    let before = receiver.requests().len();
    receiver.answer("/audit", Reply::Status(202, Value::Null));
    pause_and_resume(&gateway);
    until_within(PATIENCE, "all lines arrive", async || {
        let written = ids(&written_lines(&gateway));
        (written.len() >= 6 && ids(&posted_lines(&receiver, before)).is_superset(&written)).then_some(())
    })
    .await;
    let request = receiver.requests().pop().expect("a request");
    assert_eq!(request.header("content-type"), Some("application/x-ndjson".to_owned()));
    assert_eq!(request.header("authorization"), Some(format!("Bearer {}", secret("sink-token"))));
    assert!(is_signed(&request, &secret("sink-key")) && !is_signed(&request, "another"));
    let (_, metrics) = gateway.admin("/metrics").await;
    for line in [
        r#"tenantd_audit_sink_failing{sink="lake"} 0"#,
        r#"tenantd_audit_sink_lines_dropped_total{sink="lake"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn lines_that_wait_when_the_gateway_is_killed_arrive_after_it_starts_again() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(500, Value::Null));
    let gateway = with_http_sink(&receiver).file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    for _ in 0..5 {
        pause_and_resume(&gateway);
    }
    let spooled = async || {
        let spool = fs::read_dir(gateway.path().join("state/audit-sinks/lake")).ok()?;
        let segments = spool.flatten().filter(|file| file.file_name().to_string_lossy().ends_with(".jsonl"));
        let lines: usize =
            segments.map(|file| fs::read_to_string(file.path()).map_or(0, |text| text.lines().count())).sum();
        (lines >= 10).then_some(())
    };
    until("all lines wait on the disk", spooled).await;
    let gateway = gateway.killed();
    let before_kill = ids(&written_lines(&gateway));
    assert!(before_kill.len() >= 10, "{before_kill:?}");
    let first = receiver.requests().len();
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    let gateway = gateway.start_again().await;
    pause_and_resume(&gateway);
    until_within(PATIENCE, "all lines arrive", async || {
        let written = ids(&written_lines(&gateway));
        let is_complete = ids(&posted_lines(&receiver, first)).is_superset(&written);
        (written.len() >= before_kill.len() + 2 && is_complete).then_some(())
    })
    .await;
    let spool = async || {
        let (_, metrics) = gateway.admin("/metrics").await;
        metrics.contains(r#"tenantd_audit_sink_waiting_bytes{sink="lake"} 0"#).then_some(())
    };
    until("nothing waits", spool).await;
}

#[tokio::test]
async fn the_last_lines_arrive_before_the_gateway_ends() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    let mut gateway =
        with_http_sink(&receiver).file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    pause_and_resume(&gateway);
    gateway.signal("TERM");
    assert!(gateway.until_ended().await.success());
    let written = ids(&written_lines(&gateway));
    assert_eq!(written.len(), 2, "{written:?}");
    assert_eq!(ids(&posted_lines(&receiver, 0)), written);
}

#[tokio::test]
async fn the_last_lines_of_a_gateway_arrive_when_it_is_upgraded() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    let setup = with_http_sink_and(&receiver, "limits:\n  drain_seconds: 5\n");
    let mut gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    gateway.upgrade(&[]).await;
    assert!(gateway.until_first_process_ended().await.success());
    let orders = posted_lines(&receiver, 0);
    assert!(orders.iter().any(|line| line["order"] == "upgrade"), "{orders:?}");
    pause_and_resume(&gateway);
    until_within(PATIENCE, "the lines of the new one arrive", async || {
        ids(&posted_lines(&receiver, 0)).is_superset(&ids(&written_lines(&gateway))).then_some(())
    })
    .await;
}

/// Parses a message as RFC 5424 section 6 has it, strictly. Returns PRI, MSGID and MSG.
fn parse_syslog(message: &str) -> (u32, String, Value) {
    let rest = message.strip_prefix('<').expect("PRI");
    let (priority, rest) = rest.split_once('>').expect("PRI");
    let fields: Vec<&str> = rest.splitn(8, ' ').collect();
    let [version, timestamp, host, app_name, process, message_id, data, text] = fields[..] else {
        panic!("eight fields: {message}")
    };
    assert_eq!((version, app_name, data), ("1", "tenantd", "-"), "{message}");
    let is_printable = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    assert!(
        is_printable(host, 255) && is_printable(process, 128) && is_printable(message_id, 32),
        "{message}"
    );
    assert!(timestamp.len() == "2026-11-25T09:00:00.000Z".len() && timestamp.ends_with('Z'), "{message}");
    assert!(priority.len() <= 3 && text.is_ascii(), "{message}");
    let line = parse(text);
    assert_eq!((line["at"].as_str(), line["event"].as_str()), (Some(timestamp), Some(message_id)));
    (priority.parse().expect("a number"), message_id.to_owned(), line)
}

/// Reads the frames of a connection (RFC 6587 section 3.4.1), until it ends or `most` were read.
fn read_frames(stream: TcpStream, most: usize, lines: &mpsc::Sender<(u32, String, Value)>) {
    let mut stream = BufReader::new(stream);
    for _ in 0..most {
        let mut length = String::new();
        loop {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            match byte[0] {
                b' ' => break,
                digit => length.push(char::from(digit)),
            }
        }
        assert!(!length.starts_with('0'), "MSG-LEN has no zero in front: {length}");
        let mut message = vec![0; length.parse().expect("a length")];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        if lines.send(parse_syslog(&String::from_utf8(message).expect("text"))).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn syslog_over_tcp_is_strict_rfc_5424_and_survives_a_receiver_that_goes() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        // The first connections end after a message or two, while others are on their way.
        for most in [1, 2, usize::MAX] {
            let (stream, _) = listener.accept().expect("a connection");
            read_frames(stream, most, &sender);
        }
    });
    let backend = FakeBackend::start().await;
    let settings = format!("audit_sinks:\n  - syslog: tcp://{address}\n    facility: local4\n");
    let gateway =
        Setup::new().settings(&settings).file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    let mut lines = BTreeMap::new();
    for _ in 0..3 {
        gateway.client().search(Era::Modern, "/a", "ä query").await.data();
        pause_and_resume(&gateway);
    }
    until_within(PATIENCE, "all lines arrive", async || {
        lines
            .extend(received.try_iter().map(|line| (line.2["id"].as_str().expect("an id").to_owned(), line)));
        let written = ids(&written_lines(&gateway));
        (written.len() >= 9 && written.iter().all(|id| lines.contains_key(id))).then_some(())
    })
    .await;
    assert!(
        lines.values().any(|(_, kind, _)| kind == "call")
            && lines.values().any(|(_, kind, _)| kind == "order")
    );
    for (priority, _, line) in lines.values() {
        let severity = if line["outcome"] == "ok" { 6 } else { 5 };
        assert_eq!(*priority, 20 * 8 + severity, "{line}");
    }
}

#[tokio::test]
async fn an_audit_without_a_file_still_reaches_its_sinks() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    let setup = with_http_sink(&receiver).variable("TENANTD_AUDIT", "off");
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    pause_and_resume(&gateway);
    until_within(PATIENCE, "both orders arrive", async || {
        let lines = posted_lines(&receiver, 0);
        let orders: Vec<_> = lines.iter().filter_map(|line| line["order"].as_str()).collect();
        (orders == ["pause", "resume"]).then_some(())
    })
    .await;
    assert!(!gateway.path().join("state/audit.jsonl").exists());
}

#[tokio::test]
async fn a_dead_receiver_is_an_alert_and_its_end_too() {
    let (backend, receiver) = (FakeBackend::start().await, FakeBackend::start().await);
    receiver.answer("/audit", Reply::Status(500, Value::Null));
    let told = FakeBackend::start().await;
    let settings = format!(
        "limits: {{notify_hold_seconds: 0}}\nnotify:\n  - name: pager\n    webhook: {}\n    format: slack\n",
        told.url("/hook")
    );
    let setup = with_http_sink_and(&receiver, &settings);
    let gateway = setup.file("a.yaml", Tenant::new("a", &backend).yaml()).start().await;
    pause_and_resume(&gateway);
    let texts = || -> Vec<String> {
        told.requests().iter().map(|request| request.json()["text"].to_string()).collect()
    };
    let is_told =
        async || texts().iter().any(|text| text.contains("the sink lake of the audit")).then_some(());
    until_within(PATIENCE, "it is told", is_told).await;
    assert!(texts().iter().all(|text| !text.contains(&secret("sink-token"))), "{:?}", texts());
    let count = texts().len();
    receiver.answer("/audit", Reply::Status(200, Value::Null));
    until_within(PATIENCE, "its end is told", async || (texts().len() > count).then_some(())).await;
}
