//! Hostile archives and texts are refused quickly, in bounded memory, without a panic or a leaked
//! secret.

use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::write::ZipWriter;

use super::corpus::{SALES, TenantFixture, archive, options, patched};

const CONFIG: &str = "mcp/server/configs/sales.yaml";

fn zipped(bytes: impl AsRef<[u8]>) -> TenantFixture {
    TenantFixture::new().file("acme.zip", bytes)
}

fn good() -> Vec<u8> {
    archive(&[(CONFIG, SALES.as_bytes())])
}

#[test]
fn archives_made_to_hurt_are_refused_with_their_reason() {
    let good = good();
    let lying: Vec<u8> = [b"PK\x05\x06\0\0\0\0".as_slice(), &[0xff; 12], &[0, 0]].concat();
    let big = archive(&[(CONFIG, format!("# {}\n", "x".repeat(20_000_000)).as_bytes())]);
    let twice = patched(
        archive(&[(CONFIG, SALES.as_bytes()), ("mcp/server/configs/saleS.yaml", b"x: 1\n")]),
        b"saleS",
        b"sales",
    );
    let both_slashes =
        archive(&[(CONFIG, SALES.as_bytes()), ("mcp\\server\\configs\\sales.yaml", b"x: 1\n")]);
    let outside =
        patched(archive(&[("xx/xx/xx/tmp/tenantd-slip.yaml", SALES.as_bytes())]), b"xx/xx/xx", b"../../..");
    let nested = archive(&[("mcp_export.zip", &good)]);
    // Changes the checksum of the stored text in both headers.
    let crc = crc(&good);
    let damaged = patched(good.clone(), &crc, &[crc[0] ^ 1, crc[1], crc[2], crc[3]]);
    let not_text = archive(&[(CONFIG, b"api_key: \xff\xfe")]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "zip-incomplete"),
        ("text", b"this is not a zip\n".to_vec(), "zip-incomplete"),
        ("page", b"<!doctype html><title>Log in</title>".to_vec(), "zip-other-format"),
        ("cut off", good[..good.len() / 2].to_vec(), "zip-incomplete"),
        ("lying", lying, "zip-too-many-entries"),
        ("inflating", big, "config-too-large"),
        ("two of one name", twice, "zip-duplicate"),
        ("two of one name to people", both_slashes, "zip-duplicate"),
        ("outside", outside, "zip-outside"),
        ("nested", nested, "config-missing"),
        ("link", link(), "zip-link"),
        ("damaged", damaged, "zip-damaged"),
        ("not text", not_text, "not-text"),
    ];
    let mut text = String::new();
    for (name, bytes, code) in cases {
        let drop = zipped(bytes);
        assert!(drop.codes().contains(&code), "{name}: {:?}", drop.codes());
        assert!(drop.load().spec.is_none(), "{name}");
        text.push_str(&format!("## {name}\n{}\n", drop.findings()));
    }
    insta::assert_snapshot!("archives", text);
}

fn link() -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink(CONFIG, "/etc/passwd", options()).expect("added");
    zip.finish().expect("finished").into_inner()
}

/// Returns the checksum field of the configuration, from the central directory.
fn crc(zip: &[u8]) -> [u8; 4] {
    let at = zip.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    zip[at + 16..at + 20].try_into().expect("four bytes")
}

#[test]
fn an_encrypted_archive_is_refused() {
    let mut bytes = good();
    for (signature, flags) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        let places: Vec<usize> =
            bytes.windows(4).enumerate().filter(|(_, w)| w == signature).map(|(at, _)| at).collect();
        places.iter().for_each(|at| bytes[at + flags] |= 1);
    }
    assert_eq!(zipped(bytes).codes(), ["zip-encrypted"]);
}

#[test]
fn too_many_entries_are_refused_before_they_are_read() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..10_001 {
        zip.add_directory(format!("d{index}"), options()).expect("added");
    }
    zip.start_file(CONFIG, options()).expect("started");
    zip.write_all(SALES.as_bytes()).expect("written");
    assert_eq!(zipped(zip.finish().expect("finished").into_inner()).codes(), ["zip-too-many-entries"]);
}

#[test]
fn an_archive_beyond_the_cap_is_not_read() {
    let drop = zipped(good());
    let file = std::fs::OpenOptions::new().write(true).open(drop.path().join("acme.zip")).expect("opened");
    file.set_len((32 << 20) + 1).expect("stretched");
    assert_eq!(drop.codes(), ["file-too-large"]);
}

#[test]
fn alias_bombs_are_refused() {
    let mut laughs = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for i in b'b'..=b'j' {
        let before = format!("*{}", char::from(i - 1));
        laughs.push_str(&format!("{0}: &{0} [{1}]\n", char::from(i), vec![before; 9].join(",")));
    }
    assert_eq!(TenantFixture::export(&laughs).codes(), ["yaml-budget"]);
}

#[cfg(unix)]
#[test]
fn devices_and_folders_are_not_read() {
    let drop = TenantFixture::new();
    std::os::unix::fs::symlink("/dev/zero", drop.path().join("acme.zip")).expect("linked");
    assert_eq!(drop.codes(), ["not-a-file"]);
    let drop = TenantFixture::new().file("acme.yaml/x", "");
    assert_eq!(drop.codes(), ["not-a-file"]);
}

#[test]
fn findings_have_an_end() {
    let many = |line: &str| (0..3_000).map(|i| line.replace("N", &i.to_string())).collect::<String>();
    let headers = format!("backend:\n  headers:\n{}", many("    x-N: 1\n"));
    let parameters = format!("tools:\n  search:\n    parameters:\n{}", many("      pN: 1\n"));
    let keys = format!("api_keys:\n{}", many("  - {label: N}\n"));
    for overlay in [many("unknown_N: 1\n"), headers, parameters, keys] {
        let drop = TenantFixture::export("").file("acme.yaml", &overlay);
        let codes = drop.codes();
        assert!((1..=50).contains(&codes.len()), "{}: {codes:?}", &overlay[..40]);
        assert!(drop.load().spec.is_none());
    }
    let env = TenantFixture::export("").file("acme.env", many("A=N\n"));
    assert!(env.codes().len() <= 21, "{:?}", env.codes());
}

const CANARY: &str = "cAnArY-5f3e9b";

/// Returns everything that the findings say, in every form in which they are shown.
fn everything(drop: &TenantFixture) -> String {
    let loaded = drop.load();
    let lines: String = loaded.report.iter().map(|diagnostic| diagnostic.to_string()).collect();
    format!("{loaded:?} {lines} {}", serde_json::to_string(&loaded.report).expect("JSON"))
}

#[test]
fn a_secret_that_turns_up_elsewhere_does_not_leak() {
    for lines in [
        format!("api_key: {CANARY}\npath_prefix: /{CANARY}/..\n"),
        format!("api_key: {CANARY}\nsearch_url: https://{CANARY}@portal.test/nlp-search?{CANARY}\n"),
        format!(
            "api_key: {CANARY}\nsearch_url: ftp://{CANARY}/\nname: {CANARY}!\ndeadline: {CANARY}\nmethod: {CANARY}\n"
        ),
        format!("search_url: https://u:{CANARY}@portal.test/nlp-search\n"),
        format!("search_url: https://portal.test:{CANARY}/nlp-search\n"),
        format!("context_url: https://portal.test/#{CANARY}\n"),
        format!("api_key: |\n  {CANARY}\n{CANARY}\n"),
        format!("api_key: {{a: {CANARY}}}\n"),
        format!("api_key: [{CANARY}, {CANARY}]\n"),
        format!("api_key: \"{CANARY}\\u00fc\"\n"),
        format!("api_keys: [{{key: {CANARY}, sha256: {CANARY}, expires: {CANARY}}}]\n"),
        format!("api_key:{CANARY}\n"),
        format!("api_key: '{CANARY}\n"),
        format!("microsoft_client_secret: {CANARY}\noauth_enabled: true\n"),
        format!("backend: {{headers: {{x-a: \"{CANARY}\\n\"}}, search: {{body: '{CANARY}'}}}}\n"),
    ] {
        for drop in [
            TenantFixture::with(&lines),
            TenantFixture::export(&lines),
            TenantFixture::export("").file("acme.yaml", &lines),
        ] {
            let shown = everything(&drop);
            assert!(!shown.contains(CANARY), "{lines}\n{shown}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_no_trouble(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        for name in ["a.zip", "a.yaml", "a.env"] {
            TenantFixture::new().file(name, &bytes).load();
        }
    }

    #[test]
    fn damaged_archives_are_no_trouble(at in 0usize..700, byte: u8, cut in 0usize..700) {
        let mut bytes = good();
        let at = at % bytes.len();
        bytes[at] = byte;
        zipped(&bytes).load();
        bytes.truncate(bytes.len().saturating_sub(cut));
        zipped(&bytes).load();
    }

    #[test]
    fn arbitrary_yaml_is_no_trouble(text in "[a-c:\\-\\[\\]{}&*<>|!'\"#,? \n\t]{0,200}") {
        TenantFixture::new().file("a.yaml", &text).load();
        TenantFixture::new().file("a.env", &text).load();
    }

    #[test]
    fn no_key_leaks_its_value(key in "[a-zA-Z_\\-\\.:\"' {}\\[\\]=#]{1,24}", quote in "['\"|]{0,1}", nested: bool) {
        let value = format!("{quote}{CANARY}");
        let lines = if nested { format!("backend:\n  {key}: {value}\n") } else { format!("{key}: {value}\n{key}={value}\n") };
        for drop in [TenantFixture::export(&lines), TenantFixture::export("").file("acme.yaml", &lines), TenantFixture::export("").file("acme.env", &lines)] {
            let shown = everything(&drop);
            prop_assert!(!shown.contains(CANARY), "{lines}\n{shown}");
        }
    }
}
