//! The way to a receiver: what all kinds have in common, and the kinds.

mod datagram;
mod http;
mod stream;

use std::time::Duration;

use self::datagram::DatagramChannel;
use self::http::HttpChannel;
use self::stream::StreamChannel;
use super::config::{ChannelConfig, SyslogAddress};
use crate::base::error_chain;

/// How long a receiver may take for its part of one batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to one receiver, with its connection.
pub(super) enum SinkChannel {
    Datagram(DatagramChannel),
    Stream(StreamChannel),
    Http(Box<HttpChannel>),
}

/// What a receiver took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Whether the receiver said so. A stream of syslog has no answers.
    pub(super) is_confirmed: bool,
    /// Lines too long for a datagram, which no attempt can send.
    pub(super) oversized: u64,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) struct SendFailure {
    pub(super) why: String,
    /// How long the receiver asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl SendFailure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), retry_after: None }
    }
}

impl<E: std::error::Error + 'static> From<E> for SendFailure {
    fn from(error: E) -> Self {
        Self::new(error_chain::format_chain(&error))
    }
}

impl SinkChannel {
    pub(super) fn new(config: &ChannelConfig) -> Self {
        match config {
            ChannelConfig::Http(http) => Self::Http(Box::new(HttpChannel::new(http.clone()))),
            ChannelConfig::Syslog(syslog) => match syslog.address {
                SyslogAddress::Udp(_) | SyslogAddress::Unix(_) => {
                    Self::Datagram(DatagramChannel::new(syslog))
                }
                SyslogAddress::Tcp(_) | SyslogAddress::Tls { .. } => Self::Stream(StreamChannel::new(syslog)),
            },
        }
    }

    /// Returns how many lines a batch has at most.
    pub(super) fn max_lines(&self) -> usize {
        match self {
            Self::Datagram(_) => 64,
            Self::Stream(_) => 512,
            Self::Http(http) => http.max_lines(),
        }
    }

    /// Returns how long lines are gathered before a batch.
    pub(super) fn gather_interval(&self) -> Duration {
        match self {
            // Lines were gathered before they came here.
            Self::Datagram(_) | Self::Stream(_) => Duration::ZERO,
            Self::Http(_) => Duration::from_secs(1),
        }
    }

    /// Sends a batch, under a deadline.
    pub(super) async fn send(&mut self, lines: &[Vec<u8>]) -> Result<Delivery, SendFailure> {
        match self {
            Self::Datagram(channel) => channel.send(lines).await,
            Self::Stream(channel) => channel.send(lines).await,
            Self::Http(channel) => channel.send(lines).await,
        }
    }

    /// Waits until the receiver closes the connection.
    pub(super) async fn closed(&mut self) {
        match self {
            Self::Stream(channel) => channel.closed().await,
            Self::Datagram(_) | Self::Http(_) => std::future::pending().await,
        }
    }

    /// Ends the connection. Returns whether the receiver has read everything that was sent.
    pub(super) async fn finish(&mut self) -> bool {
        match self {
            Self::Stream(channel) => channel.finish().await,
            Self::Datagram(_) | Self::Http(_) => true,
        }
    }
}
