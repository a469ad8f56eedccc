//! A certificate chain as a stranger sees it: a client that trusts what this machine trusts and
//! knows nothing else.
//!
//! The connection is opened whatever the chain is worth, so that its owner can read what is wrong
//! with it and what the server behind it answers. No secret may be sent over it before the chain
//! was judged.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::x509_info::{self, X509Info};
use super::{chain, local_ca};

/// What the issuers of certificates for tests call themselves.
const STAGING_MARKS: [&str; 4] = ["(STAGING)", "Fake LE ", "Pebble ", "Happy Hacker"];

/// A chain as a server presented it, and what a stranger thinks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainView {
    /// The names of the server's certificate.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// From when it counts.
    pub not_before: Timestamp,
    /// Until when it counts.
    pub not_after: Timestamp,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// Why a stranger refuses it, the most telling reason first; empty if he does not.
    pub problems: Vec<ChainProblem>,
}

/// Why a stranger refuses a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainProblem {
    /// It has expired.
    Expired,
    /// It counts only later, or the clock here is behind.
    NotYetValid,
    /// It is for other names.
    WrongName,
    /// The local CA of a gateway issued it (`--tls self-signed`).
    LocalCa,
    /// It names itself as its issuer.
    SelfSigned,
    /// A CA's directory for tests issued it.
    Staging,
    /// The issuer's certificate is missing.
    Incomplete,
    /// No root that this machine trusts is above it.
    UnknownAuthority,
    /// Another reason, as the verifier words it.
    Other(String),
}

/// Opens a TLS connection to a server, whatever its certificate is worth.
///
/// # Errors
/// The server does not speak TLS, or the name can be no server's.
pub async fn connect(stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = AcceptAnyServerCert(provider.signature_verification_algorithms);
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let connector = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    connector.connect(name, stream).await
}

/// Returns the chain that the server of a connection presented; `None` if it cannot be read.
pub fn view_chain(stream: &TlsStream<TcpStream>, host: &str, now: Timestamp) -> Option<ChainView> {
    let chain = stream.get_ref().1.peer_certificates()?;
    ChainView::new(chain, host, now)
}

impl ChainView {
    fn new(chain: &[CertificateDer<'_>], host: &str, now: Timestamp) -> Option<Self> {
        let info = X509Info::parse(chain.first()?).ok()?;
        let problems = find_problems(chain, &info, host, now);
        Some(Self {
            names: info.names,
            issuer: info.issuer,
            not_before: info.not_before,
            not_after: info.not_after,
            serial: info.serial,
            problems,
        })
    }
}

/// Returns what is wrong, by the fields of the certificate first: one verifier names only the first
/// fault that it meets.
fn find_problems(
    chain: &[CertificateDer<'_>],
    info: &X509Info,
    host: &str,
    now: Timestamp,
) -> Vec<ChainProblem> {
    let mut problems = Vec::new();
    problems.extend((info.not_after <= now).then_some(ChainProblem::Expired));
    problems.extend((info.not_before > now).then_some(ChainProblem::NotYetValid));
    let is_covered = x509_info::covers(&info.names, &host.to_ascii_lowercase());
    problems.extend((!is_covered).then_some(ChainProblem::WrongName));
    // Whether the chain is trusted does not depend on the names, and dates were judged above.
    let asked = info.names.first().map_or(host.to_owned(), |name| name.replacen('*', "any", 1));
    // A certificate may claim to end before it begins.
    let last = info.not_after - Duration::from_secs(1);
    let at = now.min(last).max(info.not_before);
    problems.extend(verify(chain, &asked, at).err().map(|error| classify(chain, info, error)));
    problems
}

/// Verifies the chain as this machine's programs do.
fn verify(chain: &[CertificateDer<'_>], name: &str, at: Timestamp) -> Result<(), rustls::Error> {
    let verifier = rustls_platform_verifier::Verifier::new(Arc::new(aws_lc_rs::default_provider()))?;
    let Some((leaf, rest)) = chain.split_first() else {
        return Err(rustls::Error::NoCertificatesPresented);
    };
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| rustls::Error::General(format!("{name:?} is not a server name")))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)));
    verifier.verify_server_cert(leaf, rest, &name, &[], at).map(drop)
}

fn classify(chain: &[CertificateDer<'_>], info: &X509Info, error: rustls::Error) -> ChainProblem {
    use rustls::CertificateError::UnknownIssuer;
    match error {
        _ if info.issuer.contains(local_ca::CA_COMMON_NAME) => ChainProblem::LocalCa,
        _ if info.is_self_issued() => ChainProblem::SelfSigned,
        _ if STAGING_MARKS.iter().any(|mark| info.issuer.contains(mark)) => ChainProblem::Staging,
        rustls::Error::InvalidCertificate(UnknownIssuer) => match chain::is_missing_issuer(chain) {
            true => ChainProblem::Incomplete,
            false => ChainProblem::UnknownAuthority,
        },
        other => ChainProblem::Other(other.to_string()),
    }
}

/// Accepts every certificate: it is only inspected.
#[derive(Debug)]
struct AcceptAnyServerCert(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAnyServerCert {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    const NOW: &str = "2026-11-26T12:00:00Z";

    fn params(subject: &str, names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, subject);
        params.not_before = rcgen::date_time_ymd(2026, 11, 1);
        params.not_after = rcgen::date_time_ymd(2027, 2, 1);
        params
    }

    /// The problems of a certificate that an authority of this name issued.
    fn problems(authority: &str, leaf: CertificateParams, is_complete: bool, now: &str) -> Vec<ChainProblem> {
        let keys = [(); 2].map(|()| KeyPair::generate().expect("a key"));
        let mut above = params(authority, &[]);
        above.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = above.self_signed(&keys[0]).expect("a root");
        let issued = leaf.signed_by(&keys[1], &Issuer::new(above, &keys[0])).expect("a certificate");
        let chain: Vec<CertificateDer<'_>> = match is_complete {
            true => vec![issued.der().clone(), root.der().clone()],
            false => vec![issued.der().clone()],
        };
        let now = now.parse().expect("a time");
        ChainView::new(&chain, "mcp.example.com", now).expect("it can be read").problems
    }

    #[test]
    fn each_fault_of_a_chain_is_named() {
        use ChainProblem::{Expired, Incomplete, LocalCa, NotYetValid, Staging, UnknownAuthority, WrongName};
        let leaf = || params("leaf", &["mcp.example.com"]);
        assert_eq!(problems("Some CA", leaf(), false, NOW), [Incomplete]);
        assert_eq!(problems("Some CA", leaf(), true, NOW), [UnknownAuthority]);
        assert_eq!(problems("Some CA", leaf(), false, "2027-03-01T00:00:00Z"), [Expired, Incomplete]);
        assert_eq!(problems("Some CA", leaf(), false, "2026-10-01T00:00:00Z"), [NotYetValid, Incomplete]);
        let other = params("leaf", &["www.example.com", "*.mcp.example.com"]);
        assert_eq!(problems("Some CA", other, false, NOW), [WrongName, Incomplete]);
        let wild = params("leaf", &["*.example.com"]);
        assert_eq!(problems("(STAGING) Riddling Rhubarb R12", wild, false, NOW), [Staging]);
        assert_eq!(problems("tenantd local CA 0a1b2c3d", leaf(), false, NOW), [LocalCa]);
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_has_expired() {
        let mut leaf = params("leaf", &["mcp.example.com"]);
        leaf.not_after = rcgen::date_time_ymd(2026, 10, 1);
        assert_eq!(problems("Some CA", leaf, true, NOW)[0], ChainProblem::Expired);
    }

    #[test]
    fn a_certificate_that_issued_itself_is_named() {
        let own = params("leaf", &["mcp.example.com"]);
        let own = own.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let now = NOW.parse().expect("a time");
        let view = ChainView::new(&[own.der().clone()], "mcp.example.com", now).expect("it can be read");
        assert_eq!(view.problems, [ChainProblem::SelfSigned]);
    }
}
