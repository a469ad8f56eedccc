//! Who has the ports: on this machine, and at the public address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::super::port_holder;
use super::contact::GatewayContact;
use super::names;
use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};

const PORTS: Examination = Examination::Ports;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// The public addresses that accept connections, and the verdicts on all ports.
pub(super) struct Ports {
    pub(super) open: Vec<SocketAddr>,
    pub(super) verdicts: Vec<DoctorVerdict>,
}

/// Examines the ports.
pub(super) async fn examine(patient: &Patient, addresses: &[IpAddr]) -> Ports {
    let mut verdicts = examine_own(patient);
    let public = addresses.iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(*ip, patient.port()));
    let public: Vec<SocketAddr> = public.collect();
    let tried = join_all(public.iter().map(|address| connect(*address))).await;
    let tried: Vec<(SocketAddr, io::Result<()>)> =
        public.into_iter().zip(tried).map(|(address, tried)| (address, tried.map(drop))).collect();
    let open: Vec<SocketAddr> =
        tried.iter().filter(|(_, tried)| tried.is_ok()).map(|(address, _)| *address).collect();
    verdicts.extend(tried.iter().map(|(address, tried)| match tried {
        Ok(()) => DoctorVerdict::ok(PORTS, "port-open", address.to_string(), describe_open(*address)),
        Err(error) => judge_closed(*address, error, !open.is_empty()),
    }));
    verdicts.extend(examine_port_80(patient, addresses).await);
    Ports { open, verdicts }
}

/// The ports that the gateway wants on this machine. Those of one that runs are its own.
fn examine_own(patient: &Patient) -> Vec<DoctorVerdict> {
    if !matches!(patient.gateway, GatewayContact::Silent { .. }) {
        return Vec::new();
    }
    let wanted = patient.direct_addresses().into_iter().chain(patient.settings.listen_http.iter().copied());
    let taken = wanted.filter(|address| port_holder::is_taken(address.port()));
    taken.map(|address| judge_taken(address.port())).collect()
}

fn judge_taken(port: u16) -> DoctorVerdict {
    let place = format!("port {port} of this machine");
    match port_holder::find(port) {
        // It may be another gateway, whose admin listener is elsewhere or off.
        Some(holder) if holder.name == "tenantd" => DoctorVerdict::warning(
            PORTS,
            "port-has-gateway",
            place,
            format!("a gateway has it ({holder}), but its admin listener was not found"),
        )
        .meaning("what only the gateway knows could not be asked")
        .advice(
            "give the address of its admin listener with --admin, and --admin-token-file if it asks for a token",
        ),
        Some(holder) => DoctorVerdict::fault(
            PORTS,
            "port-taken",
            place,
            format!("Port {port} already in use (by {holder})"),
        )
        .meaning("the gateway cannot start on it; often the holder is the old server")
        .advice("stop that program, or choose another port (--listen, --port or MCP_PORT) and use it in the clients"),
        None => DoctorVerdict::fault(PORTS, "port-taken", place, format!("Port {port} already in use"))
            .meaning("the gateway cannot start on it, or it runs as a user whose processes are hidden")
            .advice("run the doctor as root to see who has it (`ss -ltnp`)"),
    }
}

fn describe_open(address: SocketAddr) -> String {
    let holder = names::is_own(address.ip()).then(|| port_holder::find(address.port())).flatten();
    match holder {
        Some(holder) => format!("accepts connections; {holder} has it"),
        None => "accepts connections".to_owned(),
    }
}

fn judge_closed(address: SocketAddr, error: &io::Error, others_answer: bool) -> DoctorVerdict {
    let place = address.to_string();
    if others_answer {
        return DoctorVerdict::warning(
            PORTS,
            "address-dead",
            place,
            format!("this address of the name does not answer ({error})"),
        )
        .meaning("clients that try it first wait or fail; others do not notice")
        .advice("remove its A or AAAA record, or let the gateway or proxy listen there, too");
    }
    let is_silent = error.kind() == io::ErrorKind::TimedOut;
    let is_own = names::is_own(address.ip());
    let advice = match (is_silent, is_own) {
        (false, true) => {
            "start the gateway (or the proxy in front of it) on this port; in the URL the port is \
                          needed unless it is 443 (https) or 80 (http)"
        }
        (false, false) => {
            "start the proxy or load balancer there, and let it forward to this machine; in \
                           Kubernetes check Service and Ingress"
        }
        (true, _) => {
            "open the port in the firewall, the security group and at the router. If only this machine \
                      cannot reach its own public address, ask from another one: `tenantd doctor --url URL`"
        }
    };
    let (code, found) = match is_silent {
        true => ("port-silent", format!("nothing answers ({error})")),
        false => ("port-refused", format!("the connection is refused ({error})")),
    };
    DoctorVerdict::fault(PORTS, code, place, found).meaning("no client connects").advice(advice)
}

/// Port 80 redirects people, and answers a CA's challenges.
async fn examine_port_80(patient: &Patient, addresses: &[IpAddr]) -> Option<DoctorVerdict> {
    if !patient.is_https() || patient.port() != HTTPS {
        return None;
    }
    let address = SocketAddr::new(*addresses.first()?, HTTP);
    let place = address.to_string();
    Some(match connect(address).await {
        Ok(_) => DoctorVerdict::ok(PORTS, "port-80-open", place, describe_open(address)),
        Err(error) => DoctorVerdict::ok(
            PORTS,
            "port-80-closed",
            place,
            format!(
                "does not answer ({error}); only addresses typed without https:// and http-01 challenges need it"
            ),
        ),
    })
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}
