//! Zips as other programs write them: they are read if possible, and otherwise rejected by name.

use super::corpus::{SALES, TenantFixture, archive, patched};

const CONFIG: &str = "mcp/server/configs/sales.yaml";

fn zipped(bytes: impl AsRef<[u8]>) -> TenantFixture {
    TenantFixture::new().file("acme.zip", bytes)
}

/// Rewrites the archive as a writer does that always uses ZIP64: the count and the offset of the
/// directory are in the ZIP64 record, and the classic record refers to it.
fn always_zip64(zip: &[u8]) -> Vec<u8> {
    let end = zip.len() - 22;
    assert!(zip[end..].starts_with(b"PK\x05\x06"), "no comment");
    let number = |at: usize, len: usize| {
        zip[end + at..end + at + len].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (count, size, start) = (number(10, 2), number(12, 4), number(16, 4));
    let mut out = zip[..end].to_vec();
    out.extend(b"PK\x06\x06");
    out.extend(44_u64.to_le_bytes());
    out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [count, count, size, start].iter().for_each(|number| out.extend(number.to_le_bytes()));
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend((end as u64).to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([0xff; 12]);
    out.extend([0, 0]);
    out
}

#[test]
fn a_small_zip64_archive_is_read() {
    let zip = always_zip64(&archive(&[(CONFIG, SALES.as_bytes())]));
    assert_eq!(&*zipped(&zip).spec().dataset, "sales");
    assert_eq!(&*zipped([b"#!/bin/sh\n", &zip[..]].concat()).spec().dataset, "sales");
}

/// Sets another compression method in all headers of the archive.
fn with_method(mut zip: Vec<u8>, method: u8) -> Vec<u8> {
    for (signature, field) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        let headers: Vec<usize> = (0..zip.len() - 4).filter(|&at| zip[at..].starts_with(signature)).collect();
        headers.into_iter().for_each(|at| zip[at + field] = method);
    }
    zip
}

#[test]
fn an_unusual_compression_is_named() {
    for (method, name) in
        [(9, "Deflate64"), (12, "bzip2"), (14, "LZMA"), (93, "Zstandard"), (7, "an unusual method")]
    {
        let drop = zipped(with_method(archive(&[(CONFIG, SALES.as_bytes())]), method));
        assert_eq!(drop.codes(), ["zip-method"], "{name}");
        let findings = drop.findings();
        assert!(
            findings.contains(&format!("compressed with {name},")) && findings.contains("Deflate"),
            "{findings}"
        );
    }
}

#[test]
fn a_folder_that_is_the_archive_itself_is_no_folder_above() {
    for name in [
        "./mcp/server/configs/sales.yaml",
        "././export/mcp/./server/configs/sales.yaml",
        ".\\mcp\\server\\configs\\sales.yaml",
    ] {
        assert_eq!(&*zipped(archive(&[(name, SALES.as_bytes())])).spec().dataset, "sales", "{name}");
    }
    let twice = archive(&[(CONFIG, SALES.as_bytes()), ("./mcp/server/configs/sales.yaml", b"x: 1\n")]);
    assert_eq!(zipped(twice).codes(), ["zip-duplicate"]);
}

#[test]
fn names_that_are_not_utf8_are_read_as_far_as_they_can_be() {
    let renamed = |name: &str, byte: u8| {
        let (before, after) = name.split_once('~').expect("a place for the byte");
        let raw = [before.as_bytes(), &[byte], after.as_bytes()].concat();
        patched(archive(&[(name, SALES.as_bytes())]), name.as_bytes(), &raw)
    };
    // The dataset's name is ASCII, so nothing is guessed whatever the name of the folder above.
    let drop = zipped(renamed("Vertr~ge/mcp/server/configs/sales.yaml", 0x84));
    assert_eq!((drop.codes(), &*drop.spec().dataset), (Vec::new(), "sales"));
    // CP437, as Windows packs in Western Europe.
    let drop = zipped(renamed("mcp/server/configs/Verk~ufe.yaml", 0x84));
    assert_eq!((drop.codes(), &*drop.spec().dataset), (vec!["zip-names"], "Verkäufe"));
    // A byte whose encoding is unknown is read as CP437 too, with a warning.
    let drop = zipped(renamed("mcp/server/configs/Verk~ufe.yaml", 0xe4));
    assert_eq!(drop.codes(), ["zip-names"]);
    assert!(drop.findings().contains("dataset:"), "{}", drop.findings());
}
