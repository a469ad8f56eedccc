//! Syslog over a connection: TCP with octet counting (RFC 6587 section 3.4.1), or TLS (RFC 5425).
//!
//! Syslog has no answers, so a batch that was written may still be lost with its connection. The
//! sink therefore takes written lines for delivered only after some seconds, or when the receiver
//! has answered the end of the connection with its own.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::config::{HostPort, SyslogAddress, SyslogConfig};
use super::super::syslog_message::SyslogHeader;
use super::{CONNECT_TIMEOUT, Delivery, SEND_TIMEOUT, SendFailure};
use crate::base::dns::DnsResolver;
use crate::base::tls_client;

/// How long the receiver may take to answer the end of the connection.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

pub(in crate::telemetry::audit::sinks) struct StreamChannel {
    address: SyslogAddress,
    header: SyslogHeader,
    connection: Option<Box<dyn Connected>>,
}

trait Connected: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connected for S {}

impl StreamChannel {
    pub(super) fn new(config: &SyslogConfig) -> Self {
        let address = config.address.clone();
        Self { address, header: SyslogHeader::new(config), connection: None }
    }

    pub(super) async fn send(&mut self, lines: &[Vec<u8>]) -> Result<Delivery, SendFailure> {
        let mut connection = match self.connection.take() {
            Some(mut connection) => {
                if is_closed(&mut *connection).await {
                    return Err(SendFailure::new("it closed the connection"));
                }
                connection
            }
            None => timeout(CONNECT_TIMEOUT, connect(&self.address)).await??,
        };
        let frames: Vec<u8> = lines.iter().flat_map(|line| self.header.format_counted(line)).collect();
        let writing = async {
            connection.write_all(&frames).await?;
            connection.flush().await
        };
        timeout(SEND_TIMEOUT, writing).await??;
        self.connection = Some(connection);
        Ok(Delivery::default())
    }

    /// Waits until the receiver closes the connection.
    pub(super) async fn closed(&mut self) {
        let Some(connection) = &mut self.connection else { return std::future::pending().await };
        read_to_end(connection).await;
        self.connection = None;
    }

    /// Closes the connection. Returns whether the receiver has read everything.
    pub(super) async fn finish(&mut self) -> bool {
        let Some(mut connection) = self.connection.take() else { return true };
        let finishing = async { connection.shutdown().await.is_ok() && read_to_end(&mut connection).await };
        timeout(FINISH_TIMEOUT, finishing).await.unwrap_or(false)
    }
}

/// Reads and drops what a receiver sends. Returns whether it ends in order.
async fn read_to_end(connection: &mut Box<dyn Connected>) -> bool {
    let mut dropped = [0; 1024];
    loop {
        match connection.read(&mut dropped).await {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }
}

/// Whether the receiver has closed the connection by now.
async fn is_closed(connection: &mut dyn Connected) -> bool {
    std::future::poll_fn(|context| {
        let mut bytes = [0; 1024];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut *connection).poll_read(context, &mut buffer);
        Poll::Ready(match read {
            Poll::Ready(Ok(())) => buffer.filled().is_empty(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        })
    })
    .await
}

async fn connect(address: &SyslogAddress) -> Result<Box<dyn Connected>, SendFailure> {
    match address {
        SyslogAddress::Tls { receiver, ca_file, identity } => {
            let (ca_file, identity) = (ca_file.clone(), identity.clone());
            // The files may have been replaced since the last connection.
            let reading = tokio::task::spawn_blocking(move || match &identity {
                Some(identity) => tls_client::config_with_identity(ca_file.as_deref(), identity),
                None => tls_client::config(ca_file.as_deref()),
            });
            let config = reading.await??;
            let name = ServerName::try_from(receiver.host.clone())?;
            let stream = connect_tcp(receiver).await?;
            Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
        }
        SyslogAddress::Tcp(receiver) | SyslogAddress::Udp(receiver) => {
            Ok(Box::new(connect_tcp(receiver).await?))
        }
        SyslogAddress::Unix(path) => Err(SendFailure::new(format!("{} is no stream", path.display()))),
    }
}

async fn connect_tcp(receiver: &HostPort) -> Result<TcpStream, SendFailure> {
    let addresses = DnsResolver::global().lookup(&receiver.host).await?;
    let addresses: Vec<_> = addresses.iter().map(|&ip| SocketAddr::new(ip, receiver.port)).collect();
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
