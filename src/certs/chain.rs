//! The chain of a certificate: its order, its missing issuers, and whether a client could verify it
//! (RFC 8446 section 4.4.2).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Error;
use super::x509_info::X509Info;

/// Sorts certificates into the order in which they are sent: the leaf, its issuer, and so on.
/// Certificates that do not belong to the chain follow in their original order.
pub(super) fn order_chain(certificates: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let Ok(infos) = certificates.iter().map(X509Info::parse).collect::<Result<Vec<_>, _>>() else {
        return certificates;
    };
    let mut rest: Vec<_> = certificates.into_iter().zip(infos).collect();
    let Some(leaf) = find_leaf(&rest) else { return Vec::new() };
    let mut chain = vec![rest.remove(leaf)];
    while let Some(next) = chain.last().and_then(|(_, last)| find_issuer(last, &rest)) {
        chain.push(rest.remove(next));
    }
    chain.into_iter().chain(rest).map(|(certificate, _)| certificate).collect()
}

/// Returns the index of the first certificate that is not a CA's; if all are CAs', of the first
/// that issued none of the others.
fn find_leaf(certificates: &[(CertificateDer<'static>, X509Info)]) -> Option<usize> {
    let issued_none = |info: &X509Info| {
        let mut others = certificates.iter().map(|(_, other)| other);
        !others.any(|other| !other.is_self_issued() && info.may_have_issued(other))
    };
    let infos = || certificates.iter().map(|(_, info)| info);
    let leaf = infos().position(|info| !info.is_ca).or_else(|| infos().position(issued_none));
    leaf.or_else(|| (!certificates.is_empty()).then_some(0))
}

fn find_issuer(
    certificate: &X509Info,
    certificates: &[(CertificateDer<'static>, X509Info)],
) -> Option<usize> {
    match certificate.is_self_issued() {
        true => None,
        false => certificates.iter().position(|(_, info)| info.is_ca && info.may_have_issued(certificate)),
    }
}

/// Completes a chain with the missing issuers that are in `known`, without roots, which are not
/// sent. Returns `None` if no issuer is missing, none is known, or the completed chain does not
/// verify.
pub(super) fn complete(
    chain: &[CertificateDer<'static>],
    names: &[String],
    known: &[CertificateDer<'static>],
) -> Option<Vec<CertificateDer<'static>>> {
    let leaf = chain.first().filter(|_| is_missing_issuer(chain))?;
    let info = X509Info::parse(leaf).ok()?;
    let issuers = known
        .iter()
        .filter(|other| X509Info::parse(other).is_ok_and(|it| it.is_ca && it.may_have_issued(&info)));
    // Several CAs may have the issuer's name; only the signature tells which one it is.
    let mut chains = issuers.map(|issuer| {
        let others = known.iter().filter(|other| is_ca(other));
        take_linked(order_chain([leaf, issuer].into_iter().chain(others).cloned().collect()))
    });
    let chain = chains.find(|chain| verify_ignoring_time(chain, names).is_ok())?;
    let is_root = |other: &CertificateDer<'_>| X509Info::parse(other).is_ok_and(|info| info.is_self_issued());
    let chain: Vec<_> = chain.into_iter().filter(|other| !is_root(other)).collect();
    (chain.len() > 1).then_some(chain)
}

fn is_ca(certificate: &CertificateDer<'_>) -> bool {
    X509Info::parse(certificate).is_ok_and(|info| info.is_ca)
}

/// Returns the longest prefix of a chain in which each certificate is the issuer of the one before.
fn take_linked(chain: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let infos: Vec<_> = chain.iter().map_while(|certificate| X509Info::parse(certificate).ok()).collect();
    let pairs = infos.iter().zip(infos.iter().skip(1));
    let links = pairs.take_while(|(one, next)| next.may_have_issued(one)).count();
    chain.into_iter().take(links + 1).collect()
}

/// Whether the issuer's certificate is not among those that follow.
pub(super) fn is_missing_issuer(chain: &[CertificateDer<'_>]) -> bool {
    let Some(leaf) = chain.first().and_then(|leaf| X509Info::parse(leaf).ok()) else { return false };
    let mut rest = chain[1..].iter().filter_map(|other| X509Info::parse(other).ok());
    !leaf.is_self_issued() && !rest.any(|other| other.may_have_issued(&leaf))
}

/// Explains why clients may not be able to verify a chain, and what to do; `None` if the chain
/// verifies.
pub(super) fn problem(chain: &[CertificateDer<'static>], names: &[String]) -> Option<String> {
    if is_missing_issuer(chain) {
        let issuer = chain.first().and_then(|leaf| X509Info::parse(leaf).ok()).map(|info| info.issuer);
        return Some(format!(
            "it comes without its issuer's certificate ({}), so clients that do not have that one cannot \
             verify it: add the issuer's certificate (CAs call it chain, intermediate or CA bundle) after \
             it, or in a file beside it. This is not needed if its clients trust this issuer itself",
            issuer.unwrap_or_default()
        ));
    }
    let broken = verify_ignoring_time(&take_linked(chain.to_vec()), names).err()?;
    Some(format!("{broken}; add the certificates of its issuers after it, as the CA supplied them"))
}

/// Verifies a chain as of the latest `not_before` in it, since expiry is reported elsewhere.
fn verify_ignoring_time(chain: &[CertificateDer<'_>], names: &[String]) -> Result<(), Error> {
    let begins =
        |certificate: &CertificateDer<'_>| X509Info::parse(certificate).ok().map(|info| info.not_before);
    let (Some((leaf, rest)), Some(at)) = (chain.split_first(), chain.iter().filter_map(begins).max()) else {
        return Ok(());
    };
    let (Some(name), Some(last)) = (names.first(), rest.last()) else { return Ok(()) };
    let mut anchors = RootCertStore::empty();
    add_anchor(&mut anchors, last)?;
    verify_chain(leaf, rest, anchors, &name.replacen('*', "any", 1), at)
}

/// Makes the last certificate of a chain a trust anchor.
pub(super) fn add_anchor(anchors: &mut RootCertStore, last: &CertificateDer<'_>) -> Result<(), Error> {
    let added = anchors.add(last.clone().into_owned());
    added.map_err(|error| Error(format!("the last of its chain cannot be read: {error}")))
}

/// Verifies that a chain leads to one of the anchors, as a client of `name` would at the time `at`.
pub(super) fn verify_chain(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    anchors: RootCertStore,
    name: &str,
    at: Timestamp,
) -> Result<(), Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider)
        .build()
        .map_err(|error| Error(error.to_string()))?;
    let server =
        ServerName::try_from(name.to_owned()).map_err(|_| Error(format!("{name:?} is not a server name")))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)));
    let verified = verifier.verify_server_cert(leaf, rest, &server, &[], at);
    verified.map(drop).map_err(|error| Error(format!("its chain is not valid: {error}")))
}

#[cfg(test)]
mod tests;
