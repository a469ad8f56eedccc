//! Builds certificates with their keys from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::disk;
use crate::certs::server_certificate::{PemContents, ServerCertificate};
use crate::certs::x509_info::X509Info;
use crate::certs::{Error, key_files};

/// The certificates in a set of files, and the unusable files, by the file that contains the chain.
#[derive(Debug, Default)]
pub(in crate::certs) struct PairedCertificates {
    pub(in crate::certs) good: BTreeMap<PathBuf, Arc<ServerCertificate>>,
    pub(in crate::certs) broken: BTreeMap<PathBuf, Error>,
}

/// Reads files and pairs chains with keys.
pub(super) fn pair_files<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> PairedCertificates {
    let mut paired = PairedCertificates::default();
    let mut parts = BTreeMap::new();
    for path in paths {
        match read_pem_file(path) {
            Ok(read) => _ = parts.insert(path.clone(), read),
            Err(error) => _ = paired.broken.insert(path.clone(), error),
        }
    }
    let keys = collect_lone_keys(&parts);
    for (path, parts) in parts.iter().filter(|(_, parts)| is_server_chain(parts)) {
        match pair_with_key(path, parts, &keys, &paired.broken) {
            Ok(certificate) => _ = paired.good.insert(path.clone(), Arc::new(certificate)),
            Err(error) => _ = paired.broken.insert(path.clone(), error),
        }
    }
    drop_leaves_without_chain(&mut paired.good);
    complete_chains(&mut paired.good, &parts);
    paired
}

/// Completes each certificate with a chain from a file of its own (`chain.crt`, `a.ca-bundle`) in
/// the same folder.
fn complete_chains(
    good: &mut BTreeMap<PathBuf, Arc<ServerCertificate>>,
    parts: &BTreeMap<PathBuf, PemContents>,
) {
    for (path, certificate) in good {
        let beside = parts.iter().filter(|(other, _)| other.parent() == path.parent());
        let known: Vec<_> = beside.flat_map(|(_, parts)| parts.chain.iter().cloned()).collect();
        if let Some(completed) = certificate.complete(&known) {
            *certificate = Arc::new(completed);
        }
    }
}

/// Whether a file has a private key in it.
pub(in crate::certs) fn holds_key(path: &Path) -> bool {
    read_pem_file(path).is_ok_and(|parts| !parts.keys.is_empty())
}

fn read_pem_file(path: &Path) -> Result<PemContents, Error> {
    let pem = disk::read(path, key_files::MAX_FILE_BYTES).map_err(|error| Error(error.to_string()))?;
    let parts = PemContents::parse(&pem)?;
    if parts.is_empty() {
        return Err(Error("it contains neither a certificate nor an unencrypted private key".into()));
    }
    Ok(parts)
}

type LoneKeys<'a> = BTreeMap<&'a Path, &'a PrivateKeyDer<'static>>;

fn collect_lone_keys(parts: &BTreeMap<PathBuf, PemContents>) -> LoneKeys<'_> {
    let lone = parts.iter().filter(|(_, parts)| parts.chain.is_empty());
    lone.filter_map(|(path, parts)| Some((path.as_path(), parts.keys.first()?))).collect()
}

/// Returns whether a file is for a server: a CA's certificate without key (certbot's `chain.pem`)
/// is not.
fn is_server_chain(parts: &PemContents) -> bool {
    let is_ca = |leaf: &CertificateDer<'_>| X509Info::parse(leaf).is_ok_and(|info| info.is_ca);
    parts.chain.first().is_some_and(|leaf| !(parts.keys.is_empty() && is_ca(leaf)))
}

fn pair_with_key(
    path: &Path,
    parts: &PemContents,
    keys: &LoneKeys<'_>,
    broken: &BTreeMap<PathBuf, Error>,
) -> Result<ServerCertificate, Error> {
    let chain = || parts.chain.clone();
    if let Some(key) = parts.keys.first() {
        return ServerCertificate::new(chain(), key.clone_key());
    }
    if let Some((beside, key)) =
        customary_key_paths(path).iter().find_map(|name| keys.get_key_value(name.as_path()))
    {
        let describe = |error| Error(format!("{error} ({})", beside.display()));
        return ServerCertificate::new(chain(), key.clone_key()).map_err(describe);
    }
    let nearby = keys.iter().filter(|(key, _)| key.parent() == path.parent());
    let fits = nearby.filter_map(|(_, key)| ServerCertificate::new(chain(), key.clone_key()).ok()).next();
    let unreadable = customary_key_paths(path).into_iter().find_map(|name| broken.get_key_value(&name));
    fits.ok_or_else(|| match unreadable {
        Some((name, error)) => Error(format!("its private key {} cannot be used: {error}", name.display())),
        None => {
            let wanted = path.with_extension("key");
            Error(format!("its private key was not found; put it into {}", wanted.display()))
        }
    })
}

/// Returns where the key of a chain is by convention.
fn customary_key_paths(path: &Path) -> [PathBuf; 2] {
    let is_certbots = path.file_stem().is_some_and(|stem| stem == "fullchain");
    let beside = if is_certbots { path.with_file_name("privkey.pem") } else { path.with_extension("key") };
    [beside, path.with_extension("key")]
}

/// Drops leaves that another file has with their chain: certbot's `cert.pem` repeats the leaf of
/// `fullchain.pem`.
fn drop_leaves_without_chain(good: &mut BTreeMap<PathBuf, Arc<ServerCertificate>>) {
    let chains: Vec<_> = good.values().map(|certificate| certificate.certified_key.clone()).collect();
    good.retain(|_, certificate| {
        let own = &certificate.certified_key.cert;
        !chains.iter().any(|other| other.cert.first() == own.first() && other.cert.len() > own.len())
    });
}
