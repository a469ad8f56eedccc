//! An NGINX with TLS that stands in front of a gateway, with a `server` for each port.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::until;

/// Returns ports of loopback that are free now: NGINX does not report one that the kernel chose.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

/// A running NGINX. Dropping it stops it.
pub(crate) struct Front {
    folder: TempDir,
    nginx: Child,
}

impl Front {
    /// Starts an NGINX with a `server` with these lines for each port, and a certificate for
    /// `localhost`.
    pub(crate) async fn start(servers: &[(u16, String)]) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        Self::start_with(servers, &made.cert.pem(), &made.signing_key.serialize_pem()).await
    }

    /// Starts an NGINX that sends each request to the next of these nodes: with TLS on one port,
    /// without on the other.
    pub(crate) async fn balancing(nodes: &[SocketAddr], port: u16, plain_port: u16) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let listed: String = nodes.iter().map(|node| format!(" server {node};")).collect();
        let pass =
            "location / { proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Connection \"\"; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_buffering off; proxy_read_timeout 3600s; }";
        let plain =
            format!("  upstream nodes {{{listed} }}\n  server {{ listen 127.0.0.1:{plain_port}; {pass} }}\n");
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Self::start_beside(&plain, &[(port, pass.to_owned())], &certificate, &key).await
    }

    /// The same as [`Front::start`] with another certificate.
    pub(crate) async fn start_with(servers: &[(u16, String)], certificate: &str, key: &str) -> Self {
        Self::start_beside("", servers, certificate, key).await
    }

    /// The same with lines beside the servers.
    async fn start_beside(beside: &str, servers: &[(u16, String)], certificate: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        fs::write(at.join("front.pem"), certificate).expect("written");
        fs::write(at.join("front.key"), key).expect("written");
        fs::write(at.join("nginx.conf"), configuration(at, beside, servers)).expect("written");
        let log = File::create(at.join("front.log")).expect("made");
        let nginx = Command::new("nginx")
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("nginx is installed (Debian: nginx-light)");
        let mut front = Self { folder, nginx };
        for (port, _) in servers {
            let address = SocketAddr::from(([127, 0, 0, 1], *port));
            until("the proxy listens", async || {
                let ended = front.nginx.try_wait().expect("a child can be asked");
                assert!(ended.is_none(), "nginx ended: {}", front.log());
                TcpStream::connect(address).await.ok().map(drop)
            })
            .await;
        }
        front
    }

    /// Returns the file with the certificate, for those who shall trust it.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("front.pem")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("front.log")).unwrap_or_default()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
        if std::thread::panicking() {
            eprintln!("nginx's output:\n{}", self.log());
        }
    }
}

fn configuration(at: &Path, beside: &str, servers: &[(u16, String)]) -> String {
    let at = at.display();
    let servers: String = servers
        .iter()
        .map(|(port, lines)| {
            format!(
                "  server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {at}/front.pem; \
                 ssl_certificate_key {at}/front.key;\n{lines}\n  }}\n"
            )
        })
        .collect();
    format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  limit_req_zone $binary_remote_addr zone=slow:64k rate=1r/m;
  access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
  uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
{beside}{servers}}}
"
    )
}
