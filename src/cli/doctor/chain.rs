//! The certificate as a stranger sees it, at each address of the name.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::net::TcpStream;

use super::super::args::ClientKind;
use super::patient::Patient;
use super::verdict::{DoctorVerdict, Examination};
use crate::base::clock::{Clock, SystemClock};
use crate::certs::stranger::{self, ChainProblem, ChainView};

const CERTIFICATE: Examination = Examination::Certificate;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);
/// Automatic certificates were renewed long before.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// Examines the certificate at each address.
pub(super) async fn examine(
    patient: &Patient,
    open: &[SocketAddr],
    client: ClientKind,
) -> Vec<DoctorVerdict> {
    if !patient.is_https() {
        let why = "the public URL is plain http";
        return vec![DoctorVerdict::not_checked(CERTIFICATE, "no-certificate", patient.public.as_str(), why)];
    }
    if open.is_empty() {
        let why = "no address accepts connections";
        return vec![DoctorVerdict::not_checked(CERTIFICATE, "no-certificate", patient.host(), why)];
    }
    let examined = join_all(open.iter().map(|address| examine_address(patient, *address, client))).await;
    examined.into_iter().flatten().collect()
}

async fn examine_address(patient: &Patient, address: SocketAddr, client: ClientKind) -> Vec<DoctorVerdict> {
    let host = patient.host();
    let place = format!("{host} at {address}");
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        stranger::connect(stream, host).await
    };
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return vec![judge_no_tls(place, &error.to_string())],
        Err(_) => return vec![judge_no_tls(place, "no answer within 8 s")],
    };
    let now = SystemClock.now();
    match stranger::view_chain(&stream, host, now) {
        None => vec![judge_no_tls(place, "its certificate cannot be read")],
        Some(view) if view.problems.is_empty() => vec![judge_good(place, &view, now)],
        Some(view) => view.problems.iter().map(|problem| judge(&place, &view, problem, client)).collect(),
    }
}

fn judge_no_tls(place: String, why: &str) -> DoctorVerdict {
    DoctorVerdict::fault(CERTIFICATE, "no-tls", place, format!("the server there does not speak TLS as an https URL needs it ({why})"))
        .meaning("no client connects")
        .advice(
            "let the public port lead to the listener that has the certificate: `listen 443 ssl` in NGINX, an \
             https listener of the load balancer; or --tls acme for the gateway itself. Where there is really \
             no TLS, write http:// into the public URL",
        )
}

fn judge_good(place: String, view: &ChainView, now: Timestamp) -> DoctorVerdict {
    let left = view.not_after.duration_since(now).unsigned_abs();
    let days = left.as_secs() / 86_400;
    let found = format!("valid until {}, {days} days; issued by {}", view.not_after, view.issuer);
    match left < SOON {
        false => DoctorVerdict::ok(CERTIFICATE, "certificate-good", place, found),
        true => DoctorVerdict::warning(CERTIFICATE, "certificate-expires-soon", place, found)
            .meaning("its renewal does not work, or nobody renews it")
            .advice(
                "`tenantd certs doctor` for the gateway's own; otherwise renew it where TLS ends (the proxy)",
            ),
    }
}

fn judge(place: &str, view: &ChainView, problem: &ChainProblem, client: ClientKind) -> DoctorVerdict {
    let fault = |code, found: String| DoctorVerdict::fault(CERTIFICATE, code, place, found);
    let renew = "renew it where TLS ends: `tenantd certs list` and `certs doctor` for the gateway's own, else at the proxy";
    match problem {
        ChainProblem::Expired => fault("certificate-expired", format!("it expired on {}", view.not_after))
            .meaning("no client connects")
            .advice(renew),
        ChainProblem::NotYetValid => {
            fault("certificate-not-yet-valid", format!("it is valid from {} only", view.not_before))
                .meaning("clients refuse it, unless the clock of this machine is behind")
                .advice("compare the clock (below); else issue the certificate again")
        }
        ChainProblem::WrongName => {
            fault("certificate-wrong-name", format!("it is for {}", view.names.join(" ")))
                .meaning("clients refuse it: the URL has a name that it does not have")
                .advice(
                    "use the name of the certificate in the URL, or get one for this name: --host for the \
                     gateway's own, else at the proxy (`ssl_certificate` of the right `server_name`)",
                )
        }
        ChainProblem::LocalCa => judge_local_ca(place, view, client),
        ChainProblem::SelfSigned => {
            fault("certificate-self-signed", format!("it is self-signed ({})", view.issuer))
                .meaning("no client trusts it")
                .advice("get one of a public authority: `tenantd serve --accept-tos --host NAME`, or at the proxy")
        }
        ChainProblem::Staging => {
            fault("certificate-staging", format!("an authority for tests issued it ({})", view.issuer))
                .meaning("no client trusts it")
                .advice("order from the real directory: `--acme-directory letsencrypt`; at the proxy, remove its staging setting")
        }
        ChainProblem::Incomplete => fault(
            "chain-incomplete",
            format!("it comes without the certificate of its issuer, {}", view.issuer),
        )
        .meaning("browsers may fill the gap, but SDKs, Node.js and Python refuse it")
        .advice(
            "serve the whole chain: NGINX `ssl_certificate fullchain.pem`; Traefik `certFile: fullchain.pem`; \
             Application Gateway: a .pfx with all certificates. For a private authority, clients must have its root",
        ),
        ChainProblem::UnknownAuthority => {
            fault("certificate-untrusted", format!("nobody here knows its authority ({})", view.issuer))
                .meaning("clients refuse it unless they have the authority's root, as in a company's network")
                .advice(
                    "distribute the root (NODE_EXTRA_CA_CERTS for Node.js, the trust store for others), or get a \
                     certificate of a public authority. Hosted clients need the latter",
                )
        }
        ChainProblem::Other(why) => fault("certificate-invalid", format!("it is refused: {why}"))
            .meaning("clients refuse it, too")
            .advice(renew),
    }
}

/// A gateway's own authority is meant for this machine and for networks that have its root.
fn judge_local_ca(place: &str, view: &ChainView, client: ClientKind) -> DoctorVerdict {
    let found = format!("the gateway's local authority issued it ({})", view.issuer);
    let verdict = match client.is_hosted() {
        true => DoctorVerdict::fault(CERTIFICATE, "certificate-local-ca", place, found),
        false => DoctorVerdict::warning(CERTIFICATE, "certificate-local-ca", place, found),
    };
    verdict.meaning("only clients that have certs/local-ca.pem connect; hosted clients never do").advice(
        "give it to the clients (NODE_EXTRA_CA_CERTS, the trust store), or get a public certificate: \
         --accept-tos with a public --host",
    )
}
