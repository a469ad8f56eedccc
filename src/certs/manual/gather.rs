//! Builds certificates with their keys from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::file as disk;
use crate::certs::facts::Facts;
use crate::certs::material::{Material, Parts};
use crate::certs::{Error, storage};

/// The certificates in a set of files, and the unusable files, by the file that contains the chain.
#[derive(Debug, Default)]
pub(in crate::certs) struct Gathered {
    pub(in crate::certs) good: BTreeMap<PathBuf, Arc<Material>>,
    pub(in crate::certs) broken: BTreeMap<PathBuf, Error>,
}

/// Reads files and pairs chains with keys.
pub(super) fn read<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Gathered {
    let mut gathered = Gathered::default();
    let mut parts = BTreeMap::new();
    for path in paths {
        match read_parts(path) {
            Ok(read) => _ = parts.insert(path.clone(), read),
            Err(error) => _ = gathered.broken.insert(path.clone(), error),
        }
    }
    let keys = lone_keys(&parts);
    for (path, parts) in parts.iter().filter(|(_, parts)| is_server_chain(parts)) {
        match pair(path, parts, &keys, &gathered.broken) {
            Ok(material) => _ = gathered.good.insert(path.clone(), Arc::new(material)),
            Err(error) => _ = gathered.broken.insert(path.clone(), error),
        }
    }
    drop_leaves_without_chain(&mut gathered.good);
    complete(&mut gathered.good, &parts);
    gathered
}

/// A chain that came in a file of its own (`chain.crt`, `a.ca-bundle`) belongs behind its certificate.
fn complete(good: &mut BTreeMap<PathBuf, Arc<Material>>, parts: &BTreeMap<PathBuf, Parts>) {
    for (path, material) in good {
        let beside = parts.iter().filter(|(other, _)| other.parent() == path.parent());
        let known: Vec<_> = beside.flat_map(|(_, parts)| parts.chain.iter().cloned()).collect();
        if let Some(completed) = material.completed(&known) {
            *material = Arc::new(completed);
        }
    }
}

/// Whether a file has a private key in it.
pub(in crate::certs) fn holds_key(path: &Path) -> bool {
    read_parts(path).is_ok_and(|parts| !parts.keys.is_empty())
}

fn read_parts(path: &Path) -> Result<Parts, Error> {
    let pem = disk::read(path, storage::LARGEST).map_err(|error| Error(error.to_string()))?;
    let parts = Parts::read(&pem)?;
    if parts.is_empty() {
        return Err(Error("it holds neither a certificate nor an unencrypted private key".into()));
    }
    Ok(parts)
}

type Keys<'a> = BTreeMap<&'a Path, &'a PrivateKeyDer<'static>>;

fn lone_keys(parts: &BTreeMap<PathBuf, Parts>) -> Keys<'_> {
    let lone = parts.iter().filter(|(_, parts)| parts.chain.is_empty());
    lone.filter_map(|(path, parts)| Some((path.as_path(), parts.keys.first()?))).collect()
}

/// Returns whether a file is for a server: a CA's certificate without key (certbot's `chain.pem`)
/// is not.
fn is_server_chain(parts: &Parts) -> bool {
    let is_ca = |leaf: &CertificateDer<'_>| Facts::of(leaf).is_ok_and(|facts| facts.is_ca);
    parts.chain.first().is_some_and(|leaf| !(parts.keys.is_empty() && is_ca(leaf)))
}

fn pair(
    path: &Path,
    parts: &Parts,
    keys: &Keys<'_>,
    broken: &BTreeMap<PathBuf, Error>,
) -> Result<Material, Error> {
    let chain = || parts.chain.clone();
    if let Some(key) = parts.keys.first() {
        return Material::new(chain(), key.clone_key());
    }
    if let Some((beside, key)) = key_names(path).iter().find_map(|name| keys.get_key_value(name.as_path())) {
        let told = |error| Error(format!("{error} ({})", beside.display()));
        return Material::new(chain(), key.clone_key()).map_err(told);
    }
    let nearby = keys.iter().filter(|(key, _)| key.parent() == path.parent());
    let fits = nearby.filter_map(|(_, key)| Material::new(chain(), key.clone_key()).ok()).next();
    let unread = key_names(path).into_iter().find_map(|name| broken.get_key_value(&name));
    fits.ok_or_else(|| match unread {
        Some((name, error)) => Error(format!("its private key {} cannot be used: {error}", name.display())),
        None => {
            let wanted = path.with_extension("key");
            Error(format!("its private key was not found; put it into {}", wanted.display()))
        }
    })
}

/// Returns where the key of a chain is by convention.
fn key_names(path: &Path) -> [PathBuf; 2] {
    let is_certbots = path.file_stem().is_some_and(|stem| stem == "fullchain");
    let beside = if is_certbots { path.with_file_name("privkey.pem") } else { path.with_extension("key") };
    [beside, path.with_extension("key")]
}

/// Drops leaves that another file has with their chain: certbot's `cert.pem` repeats the leaf of
/// `fullchain.pem`.
fn drop_leaves_without_chain(good: &mut BTreeMap<PathBuf, Arc<Material>>) {
    let chains: Vec<_> = good.values().map(|material| material.key.clone()).collect();
    good.retain(|_, material| {
        let own = &material.key.cert;
        !chains.iter().any(|other| other.cert.first() == own.first() && other.cert.len() > own.len())
    });
}
