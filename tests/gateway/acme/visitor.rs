//! A TLS client that accepts only certificates of its root.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Clone)]
pub(crate) struct Visitor {
    tls: Arc<ClientConfig>,
    port: u16,
}

impl Visitor {
    pub(crate) fn trusting(root: &CertificateDer<'static>, port: u16) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a root");
        Self::with(roots, port)
    }

    pub(crate) fn trusting_nobody(port: u16) -> Self {
        Self::with(RootCertStore::empty(), port)
    }

    fn with(roots: RootCertStore, port: u16) -> Self {
        let mut tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        // Every handshake is a full one.
        tls.resumption = rustls::client::Resumption::disabled();
        Self { tls: Arc::new(tls), port }
    }

    /// Returns the serial number of the certificate for a name, if it is trusted.
    pub(crate) async fn serial(&self, name: &str) -> Option<String> {
        self.handshake(name).await.ok().map(|stream| shown(&stream))
    }

    /// The same for an address, to which the client connects directly.
    pub(crate) async fn serial_at(&self, address: IpAddr) -> Option<String> {
        let stream = TcpStream::connect((address, self.port)).await.ok()?;
        let name = ServerName::IpAddress(address.into());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
        stream.ok().map(|stream| shown(&stream))
    }

    /// Returns whether a certificate is served, trusted or not.
    pub(crate) async fn is_served(&self, name: &str) -> bool {
        match self.handshake(name).await {
            Ok(_) => true,
            Err(error) => error.to_string().contains("UnknownIssuer"),
        }
    }

    /// Opens a keep-alive connection.
    pub(crate) async fn keep_alive(&self, name: &str) -> Kept {
        let mut kept = Kept {
            stream: self.handshake(name).await.expect("a handshake"),
            host: format!("{name}:{}", self.port),
            first: None,
        };
        kept.first = Some(kept.get("/a/mcp/").await);
        kept
    }

    /// Opens an event stream.
    pub(crate) async fn listen_stream(&self, name: &str, path: &str) -> EventStream {
        let mut stream = self.handshake(name).await.expect("a handshake");
        let body = serde_json::json!({
            "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
            "params": {
                "notifications": { "toolsListChanged": true },
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": { "name": "visitor", "version": "1" },
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        })
        .to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {name}:{}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
             mcp-method: subscriptions/listen\r\ncontent-length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut opened = EventStream { stream };
        let text = opened.read().await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("text/event-stream"), "{text}");
        opened
    }

    /// Makes handshakes continuously until stopped.
    #[expect(clippy::disallowed_methods, reason = "a test's load has no gateway whose task it could be")]
    pub(crate) fn hammer(&self, name: &'static str) -> Hammer {
        let (visitor, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                seen.handshakes += 1;
                match visitor.handshake(name).await {
                    Ok(stream) => _ = seen.serials.insert(shown(&stream)),
                    Err(error) => seen.failed.push(error.to_string()),
                }
            }
            seen
        });
        Hammer { stop, task }
    }

    async fn handshake(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from(name.to_owned()).expect("a server's name");
        TlsConnector::from(self.tls.clone()).connect(name, stream).await
    }
}

fn shown(stream: &TlsStream<TcpStream>) -> String {
    serial(&stream.get_ref().1.peer_certificates().expect("a chain")[0])
}

pub(crate) fn serial(certificate: &CertificateDer<'_>) -> String {
    let (_, leaf) = X509Certificate::from_der(certificate).expect("a certificate");
    leaf.raw_serial_as_string()
}

/// A keep-alive connection.
pub(crate) struct Kept {
    stream: TlsStream<TcpStream>,
    host: String,
    first: Option<String>,
}

impl Kept {
    /// Sends a GET. Returns the status line of the response.
    pub(crate) async fn get(&mut self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\naccept: text/html\r\n\r\n", self.host);
        self.stream.write_all(head.as_bytes()).await.expect("the connection is open");
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.stream.read_u8().await.expect("the connection is open"));
        }
        let text = String::from_utf8(text).expect("a head of ASCII");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        self.stream.read_exact(&mut body).await.expect("the body");
        text.lines().next().unwrap_or_default().to_owned()
    }

    pub(crate) fn first(&self) -> String {
        self.first.clone().expect("it was asked when it was opened")
    }
}

/// An event stream.
pub(crate) struct EventStream {
    stream: TlsStream<TcpStream>,
}

impl EventStream {
    async fn read(&mut self) -> String {
        let mut bytes = [0; 4096];
        let read = self.stream.read(&mut bytes).await.expect("the stream is open");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    /// Returns whether the stream is open: data is available, or nothing yet.
    pub(crate) async fn is_open(&mut self) -> bool {
        loop {
            match tokio::time::timeout(Duration::from_millis(200), self.read()).await {
                Ok(text) if text.is_empty() || text.contains("\r\n0\r\n\r\n") => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }
}

/// The results of a hammer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) handshakes: usize,
    pub(crate) serials: BTreeSet<String>,
    pub(crate) failed: Vec<String>,
}

pub(crate) struct Hammer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

impl Hammer {
    pub(crate) async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it does not panic")
    }
}
