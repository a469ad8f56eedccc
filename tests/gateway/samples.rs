//! Exports in every shape that the vendor, its portal and careless tools produce, dropped into a
//! running gateway.

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::harness::secret::secret;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant};

/// Makes a zip of these files.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in files {
        zip.start_file(*name, options).expect("started");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("finished").into_inner()
}

async fn serves(gateway: &Gateway, stem: &str, prefix: &str) {
    gateway.until_state(stem, "serving").await;
    let answer = gateway.client().search(Era::Modern, prefix, stem).await;
    assert_eq!(answer.data()["row_count"], 2, "{stem}: {answer:?}");
}

#[tokio::test]
async fn every_good_shape_is_served() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let tenant = |name: &str| Tenant::new(name, &backend);
    let config = "mcp/server/configs/x.yaml";
    gateway.put("plain.zip", tenant("plain").zip());
    gateway.put("wrapped.zip", zip(&[("mcp_export/mcp/server/configs/x.yaml", &tenant("wrapped").yaml())]));
    let junk: [(&str, &[u8]); 3] = [
        ("__MACOSX/mcp/server/configs/._x.yaml", b"\x00\x05\x16\x07"),
        ("mcp/.DS_Store", b"\x00"),
        (config, &tenant("mac").yaml()),
    ];
    gateway.put("mac.zip", zip(&junk));
    gateway.put("windows.zip", zip(&[("mcp\\server\\configs\\x.yaml", &tenant("windows").yaml())]));
    gateway.put("prefixed.zip", tenant("prefixed").with("path_prefix: /tenant-a\nport: 8001").zip());
    gateway.put("alone.yaml", tenant("alone").yaml());
    for (stem, prefix) in [
        ("plain", "/plain"),
        ("wrapped", "/wrapped"),
        ("mac", "/mac"),
        ("windows", "/windows"),
        ("prefixed", "/tenant-a"),
        ("alone", "/alone"),
    ] {
        serves(&gateway, stem, prefix).await;
    }
}

#[tokio::test]
async fn what_lies_beside_an_export_completes_it() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let keyless = |name: &str| {
        let yaml = String::from_utf8(Tenant::new(name, &backend).yaml()).expect("text");
        yaml.replace(&secret(name), "paste-your-api-key-here").into_bytes()
    };
    let config = "mcp/server/configs/x.yaml";
    gateway.put("keyless.zip", zip(&[(config, &keyless("keyless"))]));
    let status = gateway.until_state("keyless", "rejected").await;
    assert!(status["findings"].to_string().contains("api_key"), "{status}");
    gateway.put("keyless.yaml", format!("api_key: {}\n", secret("mended")));
    serves(&gateway, "keyless", "/keyless").await;
    gateway.put("composed.zip", zip(&[(config, &keyless("composed"))]));
    let variables =
        format!("MCP_PORT=8002\nAPI_KEY=\"{}\"\nPATH_PREFIX=/tenant-b\nOAUTH_ENABLED=false\n", secret("env"));
    gateway.put("composed.env", variables);
    serves(&gateway, "composed", "/tenant-b").await;
    let two: [(&str, &[u8]); 2] = [
        ("mcp/server/configs/east.yaml", &Tenant::new("east", &backend).yaml()),
        ("mcp/server/configs/west.yaml", &Tenant::new("west", &backend).yaml()),
    ];
    gateway.put("two.zip", zip(&two));
    gateway.until_state("two", "rejected").await;
    gateway.put("two.yaml", "config: west\n");
    serves(&gateway, "two", "/two").await;
    let key = |query: &str| {
        let asked = backend
            .requests()
            .into_iter()
            .find(|request| request.target == "/nlp-search" && request.json()["query"] == query);
        asked.and_then(|request| request.header("x-api-key"))
    };
    assert_eq!(key("keyless"), Some(secret("mended")));
    assert_eq!(key("composed"), Some(secret("env")));
    assert_eq!(key("two"), Some(secret("west")));
}

#[tokio::test]
async fn an_unpacked_export_is_a_tenant_too() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().start().await;
    let configs = gateway.path().join("unpacked/mcp/server/configs");
    std::fs::create_dir_all(&configs).expect("made");
    std::fs::write(configs.join("x.yaml"), Tenant::new("unpacked", &backend).yaml()).expect("written");
    std::fs::rename(gateway.path().join("unpacked"), gateway.tenant_file("unpacked")).expect("moved");
    serves(&gateway, "unpacked", "/unpacked").await;
}

#[tokio::test]
async fn hostile_archives_are_refused_and_nobody_notices() {
    let backend = FakeBackend::start().await;
    let gateway = Setup::new().file("good.zip", Tenant::new("good", &backend).zip()).start().await;
    let config = "mcp/server/configs/x.yaml";
    let many: Vec<_> = (0..20_000).map(|number| format!("mcp/junk/{number}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let laughs = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            text += &format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(9));
        }
        text.into_bytes()
    };
    for (name, bytes) in [
        ("bomb.zip", zip(&[(config, &vec![b'a'; 200 << 20])])),
        ("many.zip", zip(&many)),
        ("laughs.zip", zip(&[(config, &laughs)])),
        ("deep.zip", zip(&[(config, "[".repeat(100_000).as_bytes())])),
        ("slip.zip", zip(&[("../../../../tmp/x.yaml", &Tenant::new("slip", &backend).yaml())])),
        ("twins.zip", zip(&[(config, b"api_key: a\napi_key: b\n")])),
    ] {
        gateway.put(name, bytes);
        let stem = name.trim_end_matches(".zip");
        let status = gateway.until_state(stem, "rejected").await;
        let findings = status["findings"].as_array().expect("findings");
        assert!(findings.iter().any(|finding| finding["help"].is_string()), "{name}: {status}");
    }
    serves(&gateway, "good", "/good").await;
    // `VmHWM` is in kB. The bomb alone inflates to 200 MB.
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 150_000, "the gateway needed {peak} kB");
}
