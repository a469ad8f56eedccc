//! The local certificate authority: ECDSA P-256, for local work and for networks that distribute
//! its certificate.
//!
//! Certificates follow RFC 5280 strictly (key identifiers, key usages, basic constraints), because
//! Python, and OpenSSL in strict mode, refuse chains without them.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;
use super::server_certificate::ServerCertificate;
use super::x509_info::X509Info;
use crate::base::random;

/// Names that every certificate of the local CA includes.
pub(super) const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// What the CA's common name begins with.
pub(super) const CA_COMMON_NAME: &str = "tenantd local CA";
const DAY: Duration = Duration::from_secs(86_400);
const CA_LIFETIME: Duration = DAY.saturating_mul(3650);
/// The validity of a server certificate; browsers refuse more than 398 days.
pub(super) const LEAF_LIFETIME: Duration = DAY.saturating_mul(90);
/// How far certificates are backdated, for clients whose clocks are behind.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A local CA and its key.
pub(super) struct LocalCa {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
}

impl LocalCa {
    /// Creates a new CA.
    pub(super) fn generate(now: Timestamp) -> Result<Self, Error> {
        let key = generate_key()?;
        let mut params = CertificateParams::default();
        // Trust stores identify CAs by subject, so the CAs of two machines must not have the same
        // name.
        params.distinguished_name = distinguished_name(&format!("{CA_COMMON_NAME} {}", random::hex::<4>()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, now + CA_LIFETIME);
        let certificate = params.self_signed(&key).map_err(generation_error)?;
        Self::from_parts(&certificate.pem(), key)
    }

    /// Loads a CA from its two files.
    pub(super) fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        // Besides parsing both, this checks that they belong together.
        let chain = vec![first_certificate(certificate)?];
        let der =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error("the key is not PEM".into()))?;
        ServerCertificate::new(chain, der)?;
        Self::from_parts(
            certificate,
            KeyPair::from_pem(key).map_err(|_| Error("the key cannot be read".into()))?,
        )
    }

    fn from_parts(pem: &str, key: KeyPair) -> Result<Self, Error> {
        let der = first_certificate(pem)?;
        let info = X509Info::parse(&der)?;
        if !info.is_ca {
            return Err(Error("it is not a CA certificate".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| Error("it cannot be read".into()))?;
        Ok(Self { pem: pem.to_owned(), issuer, not_after: info.not_after })
    }

    /// Returns the certificate, which is public.
    pub(super) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Returns the private key, which must stay on this machine.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Returns when the CA expires.
    pub(super) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Issues a certificate with a fresh key. Returns PEM: the key, the certificate and the CA's
    /// certificate.
    pub(super) fn issue(&self, names: &[String], now: Timestamp) -> Result<String, Error> {
        let key = generate_key()?;
        let certificate = leaf_params(names, now, self.not_after)?
            .signed_by(&key, &self.issuer)
            .map_err(generation_error)?;
        Ok(format!("{}{}{}", key.serialize_pem(), certificate.pem(), self.pem))
    }
}

fn leaf_params(
    names: &[String],
    now: Timestamp,
    max_not_after: Timestamp,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| to_san(name)).collect::<Result<_, _>>()?;
    params.distinguished_name = distinguished_name("tenantd");
    // An explicit "no CA" also adds the subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_validity(&mut params, now, (now + LEAF_LIFETIME).min(max_not_after));
    Ok(params)
}

fn to_san(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let invalid_name = |_| Error(format!("{name:?} is not allowed in a certificate"));
    Ok(SanType::DnsName(name.try_into().map_err(invalid_name)?))
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error("the certificate is not PEM".into()))
}

fn generate_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(generation_error)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn generation_error(error: rcgen::Error) -> Error {
    Error(format!("a certificate cannot be created: {error}"))
}

fn set_validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let since_1970 = |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_1970(from - MAX_CLOCK_SKEW);
    params.not_after = epoch + since_1970(until);
}
