//! What stands between a gateway and the backends of several tenants: the vendor's portal (a stock
//! NGINX), and a forward proxy.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use super::{FakeBackend, until};

/// An NGINX with TLS, HTTP/1.1 and HTTP/2 in front of one backend.
pub(crate) struct Portal {
    folder: TempDir,
    port: u16,
    nginx: Child,
}

impl Portal {
    /// Starts NGINX; `lines` are added to its `server` block.
    pub(crate) async fn start(backend: &FakeBackend, lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "portal.test".to_owned()])
            .expect("a certificate");
        fs::write(folder.path().join("portal.pem"), made.cert.pem()).expect("written");
        fs::write(folder.path().join("portal.key"), made.signing_key.serialize_pem()).expect("written");
        // NGINX does not report a port that the kernel chose, so a free one is chosen for it.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(folder.path(), port, backend.address(), lines)).expect("written");
        let log = fs::File::create(folder.path().join("nginx.log")).expect("made");
        let nginx = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("nginx is installed (Debian: nginx-light)");
        let mut portal = Self { folder, port, nginx };
        let is_up = async |portal: &mut Self| {
            let ended = portal.nginx.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "nginx ended: {}", portal.log());
            TcpStream::connect(portal.address()).await.ok().map(drop)
        };
        until("the portal listens", async || is_up(&mut portal).await).await;
        portal
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Returns the path of the certificate that a gateway must trust (`SSL_CERT_FILE`).
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("portal.pem")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("nginx.log")).unwrap_or_default()
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        // Both fail only if NGINX has already ended.
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
        if std::thread::panicking() {
            eprintln!("the portal's output:\n{}", self.log());
        }
    }
}

fn configuration(folder: &Path, port: u16, backend: SocketAddr, lines: &str) -> String {
    let at = folder.display();
    format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr info;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
  uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {at}/portal.pem; ssl_certificate_key {at}/portal.key;
    {lines}
    location / {{ proxy_pass http://{backend}; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
  }}
}}
"
    )
}

/// A forward proxy that connects to a fixed target whatever is requested, and records the requests.
pub(crate) struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy that connects to `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = asked.clone();
        let serving = spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(lead(stream, target, noted.clone()));
            }
        });
        Self { address, asked, serving }
    }

    /// Returns the address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the first line of each request, followed by its `Proxy-Authorization`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder of this lock panics").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server has no gateway whose task it could be")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Reads one request head, then copies bytes both ways. A request in absolute form is forwarded
/// with its head unchanged.
async fn lead(stream: TcpStream, target: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let line = |name: &str| head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
    let said =
        format!("{} {}", line("").unwrap_or_default(), line("proxy-authorization:").unwrap_or_default());
    asked.lock().expect("no holder of this lock panics").push(said.trim().to_owned());
    let Ok(mut onward) = TcpStream::connect(target).await else { return };
    let first = match head.starts_with("CONNECT ") {
        true => stream.get_mut().write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await,
        false => onward.write_all(head.as_bytes()).await,
    };
    if first.is_ok() {
        // Either side may close the connection at any time.
        let _ended = copy_bidirectional(&mut stream, &mut onward).await;
    }
}
