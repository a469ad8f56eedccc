//! The inventory of a whole installation, as people read it.

use std::fs;
use std::path::Path;

use super::write::{WriteMode, write};
use super::{plan, read, report};
use crate::bundle::{notation, sample};

/// Two Compose stacks and a unit behind NGINX, with a few things that a person must decide on.
fn installation(folder: &Path) {
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    };
    let config =
        "search_url: https://<your-tursio-hostname>/nlp-search\napi_key: your-api-key\nconnection_id: c\n";
    let compose = "services:\n  tursio-mcp:\n    image: tursio-mcp:1\n    ports: \
                   [\"${MCP_PORT:-8000}:8000\"]\n    \
                   volumes: [\"${ZIP_PATH}:/app/server.zip:ro\"]\n    environment:\n      API_KEY: \
                   ${API_KEY}\n      \
                   SEARCH_URL: ${SEARCH_URL}\n      PATH_PREFIX: ${PATH_PREFIX:-}\n      LOG_LEVEL: \
                   debug\n  db:\n    \
                   image: postgres\n";
    for (name, port) in [("tenant-a", 8001), ("tenant-b", 8002)] {
        file(&format!("{name}/mcp_export.zip"), &sample::build_export("sales", config));
        file(&format!("{name}/compose.yaml"), compose.as_bytes());
        let env = format!(
            "MCP_PORT={port}\nZIP_PATH=./mcp_export.zip\nAPI_KEY=canary-{name}\nSEARCH_URL=https://p.test/nlp-search\n\
             PATH_PREFIX=/{name}\nOAUTH_ENABLED=true\n"
        );
        file(&format!("{name}/.env"), env.as_bytes());
    }
    file(
        "nginx.conf",
        b"http {\n  server {\n    listen 443 ssl;\n    server_name mcp.test;\n    location /tenant-a \
          {\n      auth_basic x;\n      \
          proxy_pass http://127.0.0.1:8001;\n      proxy_buffering off;\n    }\n    location /tenant-b { \
          proxy_pass \
          http://127.0.0.1:8002; }\n    location /wiki { proxy_pass http://127.0.0.1:3000; }\n    location \
          / { root \
          /var/www; }\n  }\n}\n",
    );
    let config =
        "search_url: https://p.test/nlp-search\ncontext_url: https://p.test/nlp-context\napi_key: canary-c\n";
    file("opt/tursio-mcp/mcp/server/configs/support.yaml", config.as_bytes());
    let tree = folder.join("opt/tursio-mcp");
    let unit = format!(
        "[Service]\nUser=tursio\nExecStart={}/mcp/run.sh --oauth --url https://c.test --client-secret \
         canary-s\n\
         Restart=on-failure\n",
        tree.display()
    );
    file("tursio-mcp.service", unit.as_bytes());
}

#[test]
fn everything_found_is_accounted_for_and_no_secret_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    installation(folder.path());
    let to = folder.path().join("tenants.d");
    let plan = plan::plan(read(&[folder.path().to_owned()], &to).expect("read"));
    let mode = WriteMode { is_dry_run: true, overwrites: false };
    let outcomes = write(&plan.tenants, &to, mode).expect("told");
    let redirect_uris = ["https://c.test/auth/ms-callback".to_owned()];
    let told = [
        report::tenants(&plan, &outcomes, &to),
        report::inventory(&plan),
        "\n".to_owned(),
        report::next_steps(&plan, &to, &redirect_uris, None),
    ]
    .concat();
    assert!(!told.contains("canary"), "{told}");
    let told = told.replace(&folder.path().display().to_string(), "OLD");
    // The columns are as wide as the temporary folder's name makes them.
    let squeezed: Vec<String> = told
        .lines()
        .map(|line| {
            let indent = line.len() - line.trim_start().len();
            let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            format!("{}{}", " ".repeat(indent), cells.collect::<Vec<_>>().join("  "))
        })
        .collect();
    insta::assert_snapshot!(squeezed.join("\n"));
}

#[test]
fn several_roots_keep_their_ports_or_get_prefixes_and_a_person_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, port) in [("a", 8001), ("b", 8002)] {
        let env = format!("MCP_PORT={port}\nAPI_KEY=k\nSEARCH_URL=x\n");
        fs::create_dir(folder.path().join(name)).expect("made");
        fs::write(folder.path().join(name).join(".env"), env).expect("written");
    }
    let plan = plan::plan(read(&[folder.path().to_owned()], Path::new("/nowhere")).expect("read"));
    let names: Vec<_> = plan.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let has_listeners = notation::is_field("listen");
    for tenant in &plan.tenants {
        let overlay = tenant.files.iter().find(|file| file.name.ends_with(".env")).expect("an overlay");
        let overlay = String::from_utf8_lossy(&overlay.bytes);
        assert_eq!(overlay.contains("PATH_PREFIX=/\n"), has_listeners, "{overlay}");
        assert_eq!(overlay.contains("LISTEN=800"), has_listeners, "{overlay}");
    }
    let told = report::inventory(&plan);
    let is_told = match has_listeners {
        true => told.contains("tenant_listeners: [\"0.0.0.0:8001\"]"),
        false => told.contains("this one is now at /a/mcp") && told.contains("port 8001 is not kept"),
    };
    assert!(is_told, "{told}");
}
