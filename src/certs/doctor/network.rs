//! Checks of the names, as seen by a client on this machine. They give hints only: many routers do
//! not let a machine reach its own public address, so an unreachable address is unclear, and only a
//! wrong response is trouble.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CheckResult, DoctorCheck};
use crate::base::dns::DnsResolver;
use crate::base::net;
use crate::certs::local_ca;
use crate::certs::stranger;
use crate::certs::x509_info::X509Info;
use crate::certs::{CertificateStatus, NO_CHALLENGE_TEXT};

/// How long an address may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The addresses of one name that are checked.
const MAX_ADDRESSES: usize = 4;

/// A client that checks whether the names lead to this gateway.
pub(super) struct EndpointProbe {
    /// The serial numbers of the gateway's certificates.
    serials: BTreeSet<String>,
    probes_port_80: bool,
}

impl EndpointProbe {
    pub(super) fn new(statuses: &[CertificateStatus], probes_port_80: bool) -> Self {
        Self { serials: statuses.iter().filter_map(|status| status.serial.clone()).collect(), probes_port_80 }
    }

    /// Checks the addresses of a name, and which server answers at each.
    pub(super) async fn probe_host(&self, host: &str, checks: &mut Vec<DoctorCheck>) {
        let addresses = match resolve(host).await {
            Ok(addresses) => addresses,
            Err(trouble) => return checks.push(DoctorCheck::new(host, Err(trouble))),
        };
        checks.push(DoctorCheck {
            subject: host.to_owned(),
            result: check_addresses(&addresses, &own_addresses()),
        });
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            let tls = SocketAddr::new(address, 443);
            checks.push(DoctorCheck {
                subject: format!("{host} at {tls}"),
                result: self.probe_tls(tls, host).await,
            });
            if self.probes_port_80 {
                let plain = SocketAddr::new(address, 80);
                checks.push(DoctorCheck {
                    subject: format!("{host} at {plain}"),
                    result: probe_http(plain, host).await,
                });
            }
        }
    }

    /// Checks whose certificate a server presents.
    pub(super) async fn probe_tls(&self, address: SocketAddr, host: &str) -> CheckResult {
        let stream = match connect(address).await {
            Ok(stream) => stream,
            Err(error) => return unreachable_result(&error),
        };
        let Some(leaf) = fetch_server_certificate(stream, host).await else {
            return CheckResult::Fail(
                "the server there does not speak TLS; let port 443 lead to this gateway".into(),
            );
        };
        let Ok(info) = X509Info::parse(&leaf) else {
            return CheckResult::Fail(
                "the certificate there cannot be read, so it is not this gateway's".into(),
            );
        };
        match self.serials.contains(&info.serial) || info.issuer.contains(local_ca::CA_COMMON_NAME) {
            true => CheckResult::Pass("this gateway answers".into()),
            false => CheckResult::Fail(format!(
                "another server answers, with a certificate for {} by {}: turn TLS off at the server in \
                 front (a CDN, a proxy), or let the name point here",
                info.names.join(" "),
                info.issuer
            )),
        }
    }
}

/// Checks whether this gateway answers HTTP-01 challenges.
pub(super) async fn probe_http(address: SocketAddr, host: &str) -> CheckResult {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /.well-known/acme-challenge/doctor HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(16 << 10).read_to_end(&mut response).await?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    };
    match with_timeout(exchange).await {
        Ok(response) if response.ends_with(NO_CHALLENGE_TEXT) => {
            CheckResult::Pass("this gateway answers challenges".into())
        }
        Ok(response) => CheckResult::Fail(format!(
            "another server answers challenges ({:?}): let port 80 lead to this gateway",
            response.lines().next().unwrap_or_default()
        )),
        Err(error) => unreachable_result(&error),
    }
}

/// Checks whether a name leads to an address of this machine, or may do so.
pub(super) fn check_addresses(found: &[IpAddr], own: &[IpAddr]) -> CheckResult {
    let join = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let public: Vec<IpAddr> = own.iter().copied().filter(|own| net::is_global(*own)).collect();
    if found.iter().any(|address| address.is_loopback() || own.contains(address)) {
        CheckResult::Pass(format!("points to {}, which is this machine", join(found)))
    } else if public.is_empty() {
        CheckResult::Unclear(format!(
            "points to {}; this machine has no public address, so that must be a router or load balancer \
             that forwards 443 and 80 to it",
            join(found)
        ))
    } else {
        CheckResult::Fail(format!(
            "points to {}, but this machine is {}: change the name's A and AAAA records, unless the machine \
             there forwards 443 and 80 to this one",
            join(found),
            join(&public)
        ))
    }
}

fn own_addresses() -> Vec<IpAddr> {
    [net::outbound_ipv4(), net::outbound_ipv6()].into_iter().flatten().collect()
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = DnsResolver::global().lookup(host).await.map_err(|fault| {
        format!(
            "it does not resolve ({fault}); create an A or AAAA record that points to this machine's public \
             address"
        )
    })?;
    Ok(found.iter().copied().collect::<BTreeSet<_>>().into_iter().collect())
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    with_timeout(TcpStream::connect(address)).await
}

async fn with_timeout<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed_out = || {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", PROBE_TIMEOUT.as_secs()),
        ))
    };
    tokio::time::timeout(PROBE_TIMEOUT, work).await.unwrap_or_else(|_| timed_out())
}

fn unreachable_result(error: &io::Error) -> CheckResult {
    CheckResult::Unclear(format!(
        "not reachable from here ({error}). If others cannot reach it either, start the gateway, and open \
         the port in the firewall and at the router"
    ))
}

async fn fetch_server_certificate(stream: TcpStream, host: &str) -> Option<CertificateDer<'static>> {
    let stream = with_timeout(stranger::connect(stream, host)).await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().cloned()
}
