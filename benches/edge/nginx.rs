//! NGINX, tuned for this bench: one process, no log, files kept open, no resumption, and the
//! gateway's order of cipher suites, since SHA-384 makes a handshake more expensive.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::Server;

/// Starts NGINX with `page` as its only file.
pub(crate) fn start(folder: &Path, page: &[u8]) -> Result<Server> {
    fs::create_dir(folder.join("www"))?;
    fs::write(folder.join("www/page.html"), page)?;
    let address = free_address()?;
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration(folder, address))?;
    let file = file.display().to_string();
    let takes_connections = || TcpStream::connect(address).ok().map(|_| address);
    Server::program("nginx", &["-c", &file], &folder.join("nginx.log"), takes_connections)
        .context("nginx; install nginx-light (Debian)")
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 16384; multi_accept on; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; open_file_cache max=16;
  types {{ text/html html; }}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen {address} ssl http2; root {folder}/www;
    ssl_certificate {folder}/certs/localhost.pem; ssl_certificate_key {folder}/certs/localhost.pem;
    ssl_protocols TLSv1.3; ssl_prefer_server_ciphers on;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256;
    ssl_session_tickets off; ssl_session_cache off;
  }}
}}
"
    )
}
