//! Sinks with receivers on sockets of this machine.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixDatagram};

use super::*;
use crate::base::clock::SystemClock;
use crate::telemetry::audit::{AuditConfig, AuditEvent, AuditFileConfig, AuditRecord};

const PATIENCE: Duration = Duration::from_secs(30);

fn sink(address: SyslogAddress, spool_bytes: u64) -> SinkConfig {
    let syslog = SyslogConfig { address, facility: Facility::AUTHPRIV, app_name: "tenantd".into() };
    SinkConfig { name: "siem".into(), channel: ChannelConfig::Syslog(syslog), spool_bytes }
}

/// An audit with a file and these sinks, whose tasks run.
fn start(folder: &Path, sinks: Vec<SinkConfig>) -> (Audit, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let file = AuditFileConfig { path: folder.join("audit.jsonl"), max_bytes: 64 << 20, max_files: 2 };
    let config = AuditConfig { file: Some(file), sinks, state: folder.to_owned(), node: None };
    let audit = Audit::start(config, SystemClock::shared(), Arc::clone(&metrics)).expect("opened");
    audit.start_sinks(&Tasks::new());
    (audit, metrics)
}

async fn record(audit: &Audit, count: usize) {
    let audit = audit.clone();
    let recording = tokio::task::spawn_blocking(move || {
        for number in 0..count {
            let order = number.to_string();
            let line = AuditRecord::new(AuditEvent::Order, "acme", "ok");
            audit.record(&AuditRecord { order: Some(&order), ..line });
        }
        audit.flush(PATIENCE);
    });
    recording.await.expect("recorded");
}

/// Returns the JSON of a message of RFC 5424.
fn parse(message: &[u8]) -> Value {
    let text = std::str::from_utf8(message).expect("text");
    let json = text.splitn(8, ' ').last().expect("MSG");
    serde_json::from_str(json).expect("JSON")
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect()
}

fn file_lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Receives datagrams until a line fits.
async fn receive_until(socket: &UnixDatagram, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut lines = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let receiving = async {
        while !lines.last().is_some_and(&fits) {
            let length = socket.recv(&mut buffer).await.expect("a datagram");
            lines.push(parse(&buffer[..length]));
        }
    };
    tokio::time::timeout(PATIENCE, receiving).await.expect("in time");
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_spool_drops_is_counted_exactly_and_stated() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("log");
    let (audit, metrics) = start(folder.path(), vec![sink(SyslogAddress::Unix(socket.clone()), 16 << 10)]);
    record(&audit, 1000).await;
    let trouble = audit.sink_troubles();
    assert!(trouble.first().is_some_and(|it| it.sink == "siem" && it.is_dropping), "{trouble:?}");

    let receiver = UnixDatagram::bind(&socket).expect("bound");
    let lines = receive_until(&receiver, |line| line["event"] == "loss").await;
    let (loss, orders) = lines.split_last().expect("lines");
    assert_eq!((&loss["sink"], &loss["outcome"]), (&"siem".into(), &"dropped".into()));
    let received = ids(orders).len() as u64;
    assert_eq!(loss["left_out"].as_u64(), Some(1000 - received), "{received}");
    assert!(received > 50, "{received}");
    let text = metrics.encode();
    let dropped = format!("tenantd_audit_sink_lines_dropped_total{{sink=\"siem\"}} {}", 1000 - received);
    assert!(text.contains(&dropped), "{dropped}\n{text}");
    let in_file = file_lines(folder.path());
    assert_eq!(in_file.len(), 1001, "the file has every line, and the loss");
    assert_eq!(in_file.last().expect("a line")["left_out"], loss["left_out"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_sends_what_waited_and_ends_with_nothing_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("log");
    let config = || vec![sink(SyslogAddress::Unix(socket.clone()), 1 << 20)];
    let (audit, _) = start(folder.path(), config());
    record(&audit, 20).await;
    audit.finish_sinks(PATIENCE).await;
    drop(audit);

    let receiver = UnixDatagram::bind(&socket).expect("bound");
    let (audit, metrics) = start(folder.path(), config());
    record(&audit, 1).await;
    let last = ids(&file_lines(folder.path()));
    assert_eq!(last.len(), 21, "ids of two processes differ");
    let mut received = BTreeSet::new();
    while received != last {
        let lines = receive_until(&receiver, |_| true).await;
        received.extend(ids(&lines));
    }
    audit.finish_sinks(PATIENCE).await;
    assert!(metrics.encode().contains("tenantd_audit_sink_waiting_bytes{sink=\"siem\"} 0"));
}

/// Reads one frame of RFC 6587; `None` at the end of the connection.
async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        match stream.read_u8().await.ok()? {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_closes_early_gets_what_it_had_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let receiver = HostPort { host: "127.0.0.1".into(), port };
    let (audit, metrics) = start(folder.path(), vec![sink(SyslogAddress::Tcp(receiver), 1 << 20)]);
    record(&audit, 300).await;
    let (mut first, _) = listener.accept().await.expect("a connection");
    let mut received = Vec::new();
    for _ in 0..10 {
        received.push(parse(&read_frame(&mut first).await.expect("a frame")));
    }
    first.shutdown().await.expect("closed");
    drop(first);
    let (mut second, _) =
        tokio::time::timeout(PATIENCE, listener.accept()).await.expect("again").expect("one");
    let all = ids(&file_lines(folder.path()));
    let reading = async {
        while ids(&received) != all {
            received.push(parse(&read_frame(&mut second).await.expect("a frame")));
        }
        second
    };
    let mut second = tokio::time::timeout(PATIENCE, reading).await.expect("all arrive");
    // The end of the connection, answered with its own, says that everything was read.
    let ending = tokio::join!(audit.finish_sinks(PATIENCE), async {
        let end = read_frame(&mut second).await;
        drop(second);
        end
    });
    assert_eq!(ending.1, None);
    assert!(metrics.encode().contains("tenantd_audit_sink_waiting_bytes{sink=\"siem\"} 0"));
}
