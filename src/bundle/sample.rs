//! A sample of the vendor's export, as the portal would produce it for a dataset. For the demo and
//! for tests, together with the context of a gateway that reads it.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::LoadContext;
use crate::routing::GatewayHosts;
use crate::spec::{BackendOnly, TenantListeners};

const RUN_SH: &str = "#!/usr/bin/env bash\nexec python3 \"$(dirname \"$0\")/server/main.py\" \"$@\"\n";
const MAIN_PY: &str = "raise SystemExit('a sample: a gateway serves this export without running it')\n";

/// Returns the bytes of `mcp_export.zip` for a dataset with the configuration `yaml`.
pub fn build_export(dataset: &str, yaml: &str) -> Vec<u8> {
    let files = [
        ("mcp/run.sh".to_owned(), RUN_SH),
        ("mcp/requirements.txt".to_owned(), "fastmcp\nhttpx\npyyaml\n"),
        ("mcp/server/main.py".to_owned(), MAIN_PY),
        (format!("mcp/server/configs/{dataset}.yaml"), yaml),
    ];
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, text) in files {
        archive.start_file(name, options).expect("a new name in an archive in memory");
        archive.write_all(text.as_bytes()).expect("writing to memory cannot fail");
    }
    archive.finish().expect("writing to memory cannot fail").into_inner()
}

/// Returns the context of a gateway at `https://mcp.test` with default settings.
pub fn sample_context() -> LoadContext {
    LoadContext {
        public_base: "https://mcp.test".into(),
        hosts: GatewayHosts::from_names([]),
        tenant_listeners: TenantListeners::default(),
        hold_changes: crate::spec::HoldChanges::default(),
        zip_hosts_allowed: false,
        backend_allow: Vec::new(),
        backend_only: BackendOnly::default(),
        own_addresses: Vec::new(),
        require_auth: false,
        secret_roots: Vec::new(),
        confine_tenants: false,
        largest_request: 8 << 20,
        env: BTreeMap::new(),
        given: None,
    }
}
