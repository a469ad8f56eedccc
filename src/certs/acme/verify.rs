//! Verification that a CA sent what was ordered, before it is served.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;

use super::http;
use crate::certs::server_certificate::ServerCertificate;
use crate::certs::{Error, chain};

/// How far a CA's clock may be ahead.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(10);

/// Parses key and chain and verifies that they belong together, are for `name` and are valid now,
/// and that the chain verifies as it would for a client: up to the last certificate sent, or to one
/// in `root`.
pub(super) fn verify_bundle(
    pem: &str,
    name: &str,
    root: Option<&Path>,
    now: Timestamp,
) -> Result<ServerCertificate, Error> {
    let certificate = ServerCertificate::from_pem(pem.as_bytes())?;
    if !certificate.covers(name) {
        return Err(Error(format!("it is for {}, not {name}", certificate.names.join(" "))));
    }
    if certificate.not_after <= now {
        return Err(Error(format!("it expired at {}; check this machine's clock", certificate.not_after)));
    }
    if certificate.not_before > now + MAX_CLOCK_SKEW {
        let from = certificate.not_before;
        return Err(Error(format!("it is not valid before {from}; check this machine's clock")));
    }
    verify_chain(&certificate, name, root, now)?;
    Ok(certificate)
}

fn verify_chain(
    certificate: &ServerCertificate,
    name: &str,
    root: Option<&Path>,
    now: Timestamp,
) -> Result<(), Error> {
    let (leaf, rest) = certificate
        .certified_key
        .cert
        .split_first()
        .ok_or_else(|| Error("it contains no certificate".into()))?;
    let mut anchors =
        root.map(http::read_root_certificates).transpose()?.unwrap_or_else(RootCertStore::empty);
    if let Some(last) = rest.last() {
        chain::add_anchor(&mut anchors, last)?;
    }
    if anchors.is_empty() {
        return Err(Error("it came without its issuer's certificate, so no client would accept it".into()));
    }
    // A certificate may begin a moment from now.
    chain::verify_chain(leaf, rest, anchors, name, now.max(certificate.not_before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::local_ca::LocalCa;

    fn now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().expect("a time")
    }

    fn issue(name: &str, at: Timestamp) -> String {
        LocalCa::generate(at).expect("a CA").issue(&[name.to_owned()], at).expect("a certificate")
    }

    fn refusal(pem: &str) -> String {
        verify_bundle(pem, "a.test", None, now()).expect_err("it must not be used").to_string()
    }

    #[test]
    fn a_good_chain_is_used_for_names_and_addresses() {
        for name in ["a.test", "192.0.2.7", "2001:db8::1"] {
            verify_bundle(&issue(name, now()), name, None, now()).expect(name);
        }
    }

    #[test]
    fn wrong_certificates_are_rejected() {
        let year = SignedDuration::from_hours(365 * 24);
        assert!(refusal(&issue("b.test", now())).contains("b.test"));
        assert!(refusal(&issue("a.test", now() - year)).contains("clock"));
        assert!(refusal(&issue("a.test", now() + year)).contains("clock"));
        assert!(refusal("<html>").contains("no private key"));
    }

    #[test]
    fn an_invalid_chain_is_rejected() {
        let (ours, other) = (issue("a.test", now()), issue("a.test", now()));
        let certificates = |pem: &str| -> Vec<String> {
            let parts = pem.split_inclusive("-----END CERTIFICATE-----\n");
            parts.map(str::to_owned).filter(|part| part.contains("END CERTIFICATE")).collect()
        };
        let (ours, other) = (certificates(&ours), certificates(&other));
        // The first part is key and leaf.
        assert!(refusal(&ours[0]).contains("without its issuer's certificate"));
        assert!(refusal(&format!("{}{}", ours[0], other[1])).contains("chain is not valid"));
        let (key, leaf) =
            (ours[0].split_inclusive("KEY-----\n").nth(1), other[0].split_once("-----BEGIN CERT"));
        let mixed = format!(
            "-----BEGIN PRIVATE KEY-----\n{}-----BEGIN CERT{}{}",
            key.expect("a key"),
            leaf.expect("a leaf").1,
            other[1]
        );
        assert!(refusal(&mixed).contains("does not belong to the certificate"), "{}", refusal(&mixed));
    }
}
