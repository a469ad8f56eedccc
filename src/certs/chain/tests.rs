//! Files as they come from CAs and from people who joined them by hand.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::certs::manual;

/// A certificate of an intermediate's, with all above it, as PEM.
struct Pki {
    root: String,
    intermediate: String,
    leaf: String,
    key: String,
}

impl Pki {
    fn new() -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.use_authority_key_identifier_extension = true;
            params
        };
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(ca("root"), key()).expect("a root");
        let issuer: &Issuer<'_, KeyPair> = &root;
        let intermediate = CertifiedIssuer::signed_by(ca("intermediate"), key(), issuer).expect("signed");
        let mut leaf = CertificateParams::new(["a.test".to_owned()]).expect("parameters");
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.is_ca = IsCa::ExplicitNoCa;
        let own = key();
        let issuer: &Issuer<'_, KeyPair> = &intermediate;
        let leaf = leaf.signed_by(&own, issuer).expect("signed");
        // Only line feeds, and one at the end.
        let lines = |pem: String| format!("{}\n", pem.replace('\r', "").trim_end());
        Self {
            root: lines(root.pem()),
            intermediate: lines(intermediate.pem()),
            leaf: lines(leaf.pem()),
            key: lines(own.serialize_pem()),
        }
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

/// Whether whoever trusts the root alone accepts what is served of a folder.
fn is_accepted(folder: &Path, root: &str) -> bool {
    use rustls_pki_types::pem::PemObject;
    let found = manual::inspect_folder(folder);
    let certificate =
        found.good.values().next().unwrap_or_else(|| panic!("nothing to serve: {:?}", found.broken));
    let mut anchors = RootCertStore::empty();
    add_anchor(&mut anchors, &CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM")).expect("a root");
    let (leaf, rest) = certificate.certified_key.cert.split_first().expect("a leaf");
    verify_chain(leaf, rest, anchors, "a.test", Timestamp::from_second(1_790_000_000).expect("a moment"))
        .is_ok()
}

/// What is said of the one certificate that is served.
fn chain_problem(folder: &Path) -> Option<String> {
    let found = manual::inspect_folder(folder);
    assert_eq!(found.good.len(), 1, "{:?}", found.broken);
    found.good.values().next().and_then(|certificate| certificate.chain_problem())
}

#[test]
fn a_chain_is_served_in_its_order_whichever_way_it_was_put_together() {
    let Pki { root, intermediate, leaf, key } = &Pki::new();
    let glued = format!("{}{intermediate}", leaf.trim_end());
    let glued_key = format!("{}{leaf}{intermediate}", key.trim_end());
    let marked = format!("\u{feff}{leaf}{intermediate}");
    let carriage = format!("{leaf}{intermediate}").replace('\n', "\r\n");
    for (what, text) in [
        ("as it should be", &format!("{leaf}{intermediate}")),
        ("without a line break between them", &glued),
        ("upside down", &format!("{intermediate}{leaf}")),
        ("root first", &format!("{root}{intermediate}{leaf}")),
        ("root at the end", &format!("{leaf}{intermediate}{root}")),
        ("mixed", &format!("{leaf}{root}{intermediate}")),
        ("a byte order mark in front", &marked),
        ("Windows' line ends", &carriage),
    ] {
        let folder = folder(&[("a.crt", text), ("a.key", key)]);
        assert!(is_accepted(folder.path(), root), "{what}");
        assert_eq!(chain_problem(folder.path()), None, "{what}");
    }
    let one = folder(&[("a.pem", &glued_key)]);
    assert!(is_accepted(one.path(), root), "key and chain without a line break");
    let shouted = folder(&[("A.CRT", &format!("{leaf}{intermediate}")), ("A.KEY", key)]);
    assert!(is_accepted(shouted.path(), root), "capital letters");
}

#[test]
fn a_chain_in_a_file_of_its_own_is_served_behind_its_certificate() {
    let Pki { root, intermediate, leaf, key } = &Pki::new();
    let other = Pki::new().intermediate;
    for name in ["chain.crt", "a.ca-bundle", "z.pem"] {
        for bundle in
            [intermediate.clone(), format!("{root}{intermediate}"), format!("{other}{intermediate}")]
        {
            let folder = folder(&[("a.crt", leaf), ("a.key", key), (name, &bundle)]);
            assert!(is_accepted(folder.path(), root), "{name}");
            assert_eq!(chain_problem(folder.path()), None, "{name}");
        }
    }
    // One of the same name with another key is not taken for it.
    let folder = folder(&[("a.crt", leaf), ("a.key", key), ("chain.crt", &other)]);
    assert!(chain_problem(folder.path()).expect("it is said").contains("without its issuer's certificate"));
}

#[test]
fn unverifiable_chains_are_reported() {
    let Pki { root, leaf, key, .. } = &Pki::new();
    let alone = folder(&[("a.crt", leaf), ("a.key", key)]);
    assert!(!is_accepted(alone.path(), root));
    let describe = chain_problem(alone.path()).expect("it is said");
    assert!(describe.contains("CN=intermediate") && describe.contains("after it"), "{describe}");
    // The bytes of a name say nothing: the signature does.
    let forged = folder(&[("a.crt", &format!("{leaf}{}", Pki::new().intermediate)), ("a.key", key)]);
    assert!(chain_problem(forged.path()).is_some());
    // Whoever signs alone has nothing to hand in.
    let own = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("made");
    let own = folder(&[("a.crt", &own.cert.pem()), ("a.key", &own.signing_key.serialize_pem())]);
    assert_eq!(chain_problem(own.path()), None);
}

#[test]
fn unreadable_files_are_reported_with_their_reason() {
    let Pki { intermediate, leaf, key, .. } = &Pki::new();
    let refusal = |files: &[(&str, &str)]| {
        let found = manual::inspect_folder(folder(files).path());
        assert!(found.good.is_empty(), "{:?}", found.good);
        found.broken.iter().map(|(path, error)| format!("{}: {error}\n", path.display())).collect::<String>()
    };
    let encrypted = key.replace(
        "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
    );
    let encrypted = encrypted.replace("END PRIVATE KEY", "END RSA PRIVATE KEY");
    for key in [encrypted, key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")] {
        let describe = refusal(&[("a.crt", &format!("{leaf}{intermediate}")), ("a.key", &key)]);
        assert!(describe.contains("is encrypted") && describe.contains("openssl pkey"), "{describe}");
        assert!(
            describe.contains("a.crt: its private key") && !describe.contains("was not found"),
            "{describe}"
        );
    }
    let indented = format!("{leaf}text {intermediate}");
    let describe = refusal(&[("a.crt", &indented), ("a.key", key)]);
    assert!(describe.contains("2 certificates and keys, of which 1 can be read"), "{describe}");
    let wide: String = leaf.chars().flat_map(|letter| [letter, '\0']).collect();
    let wide = [b"\xff\xfe".as_slice(), wide.as_bytes()].concat();
    let folder = folder(&[("a.key", key)]);
    fs::write(folder.path().join("a.crt"), wide).expect("written");
    let found = manual::inspect_folder(folder.path());
    assert!(found.broken.values().any(|error| error.to_string().contains("UTF-16")), "{:?}", found.broken);
}
