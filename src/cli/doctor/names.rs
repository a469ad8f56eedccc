//! Whether the public name leads here, and whether the client can reach it at all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::args::ClientKind;
use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};
use crate::base::dns::DnsResolver;
use crate::base::net;

const NAMES: Examination = Examination::Names;

/// The addresses of the public name, and the verdicts on them.
pub(super) struct Names {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) verdicts: Vec<DoctorVerdict>,
}

/// Looks the name up and judges where it leads.
pub(super) async fn examine(patient: &Patient, client: ClientKind) -> Names {
    let host = patient.host();
    let mut verdicts = Vec::new();
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => {
            match DnsResolver::global().lookup(host).await {
                Ok(found) => found.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
                Err(error) => {
                    verdicts.push(
                    DoctorVerdict::fault(NAMES, "name-unresolved", host, format!("the name has no address ({error})"))
                        .meaning("no client finds the server")
                        .advice(
                            "create an A or AAAA record that points to this machine or to the proxy in front of \
                             it, or correct the host (--host, public_url)",
                        ),
                );
                    Vec::new()
                }
            }
        }
    };
    if !addresses.is_empty() {
        verdicts.push(judge_addresses(patient, &addresses));
    }
    verdicts.extend(judge_reach(patient, &addresses, client));
    Names { addresses, verdicts }
}

/// Returns whether an address is one of this machine's, as far as it can be known.
pub(super) fn is_own(address: IpAddr) -> bool {
    // An address can be bound only where it is.
    address.is_loopback() || std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn judge_addresses(patient: &Patient, addresses: &[IpAddr]) -> DoctorVerdict {
    let host = patient.host();
    let listed = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let own: Vec<IpAddr> = [net::outbound_ipv4(), net::outbound_ipv6()].into_iter().flatten().collect();
    let has_public = own.iter().any(|own| net::is_global(*own));
    match () {
        () if addresses.iter().any(|address| is_own(*address)) => DoctorVerdict::ok(
            NAMES,
            "name-is-here",
            host,
            format!("leads to {listed}, which is this machine"),
        ),
        () if !has_public || !patient.is_direct_tls() => DoctorVerdict::ok(
            NAMES,
            "name-is-in-front",
            host,
            format!("leads to {listed}: a router, load balancer or proxy in front of this machine"),
        ),
        () => {
            let own = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            DoctorVerdict::warning(
                NAMES,
                "name-elsewhere",
                host,
                format!("leads to {listed}, and this machine is {own}"),
            )
            .meaning("clients reach another machine, unless that one forwards to this one")
            .advice("change the name's A and AAAA records, or see below who answers there")
        }
    }
}

/// Clients in their vendors' clouds reach public addresses over https only.
fn judge_reach(patient: &Patient, addresses: &[IpAddr], client: ClientKind) -> Option<DoctorVerdict> {
    if !client.is_hosted() {
        return None;
    }
    let vendor = client.vendor();
    let is_private = !addresses.is_empty() && addresses.iter().all(|address| !net::is_global(*address));
    let found = match () {
        () if !patient.is_https() => "the public URL is plain http",
        () if is_private => "the name leads to private addresses only",
        () => return None,
    };
    Some(
        DoctorVerdict::fault(NAMES, "not-public", patient.public.as_str(), found)
            .meaning(format!(
                "{} calls from {vendor}'s cloud, which reaches neither this network nor plain http",
                client.title()
            ))
            .advice(
                "give the server a public https URL with a certificate of a public authority (public_base, \
                 --url for `tenantd run`), or use a client that runs on people's computers",
            ),
    )
}

impl ClientKind {
    /// Returns what the client calls itself.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Claude => "Claude",
            Self::Chatgpt => "ChatGPT",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
            Self::CopilotStudio => "Copilot Studio",
            Self::Teams => "Teams",
            Self::Sdk => "an SDK",
        }
    }

    /// Whether it calls from its vendor's cloud.
    pub(super) fn is_hosted(self) -> bool {
        matches!(self, Self::Claude | Self::Chatgpt | Self::CopilotStudio | Self::Teams)
    }

    fn vendor(self) -> &'static str {
        match self {
            Self::Claude => "Anthropic",
            Self::Chatgpt => "OpenAI",
            _ => "its vendor",
        }
    }
}
