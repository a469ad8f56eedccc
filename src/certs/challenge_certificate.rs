//! The certificate that answers a TLS-ALPN-01 challenge (RFC 8737), and the server name that asks for
//! it.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use super::Error;

/// Returns the SNI value that a CA sends for an identifier: addresses in reverse notation (RFC 8738
/// section 6).
pub(super) fn challenge_sni(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let digits: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

/// Builds the challenge certificate. It bypasses rustls' checks, which would refuse its critical
/// extension: only CAs understand that.
pub(super) fn build_challenge_certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let generation_error =
        |error: rcgen::Error| Error(format!("a challenge's certificate cannot be created: {error}"));
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(generation_error)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(generation_error)?;
    let certificate = params.self_signed(&key).map_err(generation_error)?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = any_supported_type(&der).map_err(|error| Error(error.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_alpn_challenges_for_addresses_use_their_reverse_names() {
        assert_eq!(challenge_sni("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        assert!(challenge_sni("2001:db8::1").starts_with("1.0.0.0."));
        assert!(challenge_sni("2001:db8::1").ends_with("8.b.d.0.1.0.0.2.ip6.arpa"));
        assert_eq!(challenge_sni("MCP.example.com"), "mcp.example.com");
    }
}
