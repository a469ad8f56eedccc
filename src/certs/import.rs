//! Import of a certificate from elsewhere, for `--tls manual`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::server_certificate::{PemContents, ServerCertificate};
use super::{Error, key_files};
use crate::base::disk;

/// An imported certificate.
#[derive(Debug)]
pub struct ImportedCertificate {
    /// The file in the certs folder.
    pub file: PathBuf,
    /// The names it is for, the first of which names the file.
    pub names: Vec<String>,
    /// When it expires.
    pub not_after: Timestamp,
    /// A reason why clients may refuse it.
    pub warning: Option<String>,
}

/// Checks a certificate and its key, and writes both into the folder as one private file. `key` is
/// needed if the key is in a file of its own.
///
/// # Errors
/// What is wrong with the files or the folder; nothing has changed then.
pub fn import(
    folder: &Path,
    certificate: &Path,
    key: Option<&Path>,
    now: Timestamp,
) -> Result<ImportedCertificate, Error> {
    let mut pem = read_pem(certificate)?;
    if let Some(key) = key {
        pem.extend_from_slice(b"\n");
        pem.extend(read_pem(key)?);
    }
    let describe = |error: Error| Error(format!("{}: {error}", certificate.display()));
    let parts = PemContents::parse(&pem).map_err(describe)?;
    if parts.keys.is_empty() {
        return Err(describe(Error("it contains no private key; give the key's file with --key".into())));
    }
    let certificate = ServerCertificate::from_pem(&pem).map_err(describe)?;
    if certificate.not_after <= now {
        return Err(describe(Error(format!("it expired at {}: clients refuse it", certificate.not_after))));
    }
    let name = certificate.names.first().ok_or_else(|| describe(Error("it contains no host name".into())))?;
    let file = folder.join(format!("{}.pem", key_files::sanitize_name(name)));
    let write = key_files::ensure_private_folder(folder).and_then(|()| key_files::replace_file(&file, &pem));
    write.map_err(|error| Error(format!("{} cannot be written: {error}", file.display())))?;
    let warning = match () {
        () if certificate.not_before > now => {
            Some(format!("it is not valid before {}", certificate.not_before))
        }
        () => certificate.chain_problem(),
    };
    Ok(ImportedCertificate { file, names: certificate.names, not_after: certificate.not_after, warning })
}

fn read_pem(path: &Path) -> Result<Vec<u8>, Error> {
    disk::read(path, key_files::MAX_FILE_BYTES).map_err(|error| Error(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::local_ca::LocalCa;

    #[test]
    fn a_certificate_is_imported_whole_or_not_at_all() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().expect("a time");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certs = folder.path().join("certs");
        let issue = |name: &str| {
            LocalCa::generate(now).expect("a CA").issue(&[name.to_owned()], now).expect("issued")
        };
        let (good, other) = (issue("a.test"), issue("b.test"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let whole = write("whole.pem", &good);
        let imported = import(&certs, &whole, None, now).expect("it is good");
        assert_eq!((imported.names.clone(), imported.warning.clone()), (vec!["a.test".to_owned()], None));
        assert!(!key_files::is_readable_by_others(&imported.file));

        let (_, chain) = other.split_once("-----BEGIN CERT").expect("a chain");
        let chain = write("chain.pem", &format!("-----BEGIN CERT{chain}"));
        let refusal = import(&certs, &chain, None, now).expect_err("no key").to_string();
        assert!(refusal.contains("--key"), "{refusal}");
        let refusal = import(&certs, &chain, Some(&whole), now).expect_err("another key").to_string();
        assert!(refusal.contains("does not belong to the certificate"), "{refusal}");
        assert!(!certs.join("b.test.pem").exists());

        // The good one that lies there stays.
        let much_later = now + std::time::Duration::from_secs(400 * 86_400);
        let before = std::fs::read(&imported.file).expect("there");
        let refusal = import(&certs, &whole, None, much_later).expect_err("it has ended").to_string();
        assert!(refusal.contains("expired"), "{refusal}");
        assert_eq!(std::fs::read(&imported.file).expect("there"), before);

        // The key stands first.
        const END: &str = "-----END CERTIFICATE-----";
        let (leaf, _issuer) = other.split_once(END).expect("a chain");
        let leaf = write("leaf.pem", &format!("{leaf}{END}\n"));
        let warned = import(&certs, &leaf, None, now).expect("taken").warning.expect("a warning");
        assert!(warned.contains("without its issuer's certificate"), "{warned}");
    }
}
