//! Files that must be served, and the tenants that result.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::corpus::{SALES, TenantFixture, archive};
use crate::base::digest::Digest;
use crate::bundle::Presence;
use crate::spec::{
    AllowedBackend, BackendOnly, Family, HostName, Mount, Prefix, TemplateValues, TenantSpec, ToolKind,
};

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).expect("a prefix")
}

fn header(spec: &TenantSpec, name: &str) -> String {
    let call = &spec.tools[0].call;
    call.headers
        .iter()
        .find(|(header, _)| header == name)
        .map(|(_, value)| value.expose().to_owned())
        .unwrap_or_default()
}

#[test]
fn an_export_becomes_a_tenant() {
    let spec = TenantFixture::export("").spec();
    assert_eq!((spec.name.as_str(), &*spec.dataset, &*spec.title), ("acme", "sales", "Sales"));
    assert_eq!(spec.public_url.as_str(), "https://mcp.test/acme");
    assert_eq!(spec.mounts, [Mount { listener: None, host: None, prefix: prefix("/acme") }]);
    assert_eq!(
        (spec.backend.family, spec.call_timeout, spec.enabled),
        (Family::Nlp, Duration::from_secs(300), true)
    );
    assert!(spec.access.is_open() && !spec.access.public);
    let [search, context] = &*spec.tools else { panic!("two tools") };
    assert_eq!((&*search.name, search.kind), ("search", ToolKind::Search));
    assert_eq!((&*context.name, context.kind), ("get_context", ToolKind::Context));
    assert!(search.description.contains("sales") && context.description.contains("sales"));
}

#[test]
fn the_calls_are_the_vendors() {
    let spec = TenantFixture::export("").spec();
    let call = &spec.tools[0].call;
    assert_eq!((&call.method, header(&spec, "x-api-key").as_str()), (&Method::POST, "key-of-sales-0001"));
    let asked = [("query".to_owned(), json!("how many?"))];
    let values = call.constants.apply_to(&TemplateValues::from_iter(asked));
    let body = call.body.as_ref().expect("a body").render(&values);
    assert_eq!(body, json!({"query": "how many?", "connection_id": "conn-sales-01"}));
    let context = &spec.backend.context;
    assert_eq!((&context.method, context.body.is_none()), (&Method::GET, true));
    assert_eq!(
        context.url.render(&context.constants.apply_to(&TemplateValues::new())).expect("fits"),
        "https://portal.test/nlp-context?connection_id=conn-sales-01"
    );
}

#[test]
fn equal_schemas_are_shared_between_tenants() {
    let (a, b) = (TenantFixture::export("").spec(), TenantFixture::alone("").spec());
    assert!(std::sync::Arc::ptr_eq(&a.tools[0].input_schema, &b.tools[0].input_schema));
    assert!(std::sync::Arc::ptr_eq(&a.tools[0].output_schema, &a.tools[1].output_schema));
}

#[test]
fn careless_packing_is_forgiven() {
    let yaml = SALES.as_bytes();
    let junk: &[u8] = b"\x00\x05\x16\x07";
    let packings: [&[(&str, &[u8])]; 5] = [
        &[("mcp_export/mcp/server/configs/sales.yaml", yaml)],
        &[
            ("__MACOSX/mcp/server/configs/._sales.yaml", junk),
            ("mcp/.DS_Store", junk),
            ("mcp/server/configs/sales.yaml", yaml),
        ],
        &[("mcp/server/configs/sales.yml", yaml)],
        &[("mcp/server/configs/._sales.yaml", junk), ("mcp/server/configs/sales.yaml", yaml)],
        &[("mcp\\server\\configs\\sales.yaml", yaml)],
    ];
    for entries in packings {
        assert_eq!(
            &*TenantFixture::new().file("acme.zip", archive(entries)).spec().dataset,
            "sales",
            "{:?}",
            entries[0].0
        );
    }
    let with_bom = format!("\u{feff}{}", SALES.replace('\n', "\r\n"));
    assert_eq!(&*TenantFixture::new().zip("acme.zip", &with_bom).spec().title, "Sales");
    let in_front: Vec<u8> = b"#!/bin/sh\nexit\n"
        .iter()
        .copied()
        .chain(archive(&[("mcp/server/configs/sales.yaml", yaml)]))
        .collect();
    assert_eq!(&*TenantFixture::new().file("acme.zip", in_front).spec().dataset, "sales");
}

#[test]
fn the_env_wins_over_the_yaml_over_the_zip_and_blanks_are_unset() {
    let drop = TenantFixture::export("path_prefix: /from-zip\n")
        .file("acme.yaml", "display_name: From yaml\ndeadline: 60s\napi_key: from-yaml-0001\n")
        .file(
            "acme.env",
            "API_KEY=\"from-env-0001\"\nDISPLAY_NAME=\nMCP_PORT=8002\nPATH_PREFIX=\nOAUTH_ENABLED=false\n",
        );
    let spec = drop.spec();
    assert_eq!((&*spec.title, header(&spec, "x-api-key").as_str()), ("From yaml", "from-env-0001"));
    assert_eq!((&spec.mounts[0].prefix, spec.call_timeout), (&prefix("/from-zip"), Duration::from_secs(60)));
    assert_eq!(drop.codes(), ["port-ignored"]);
}

#[test]
fn an_overlay_mends_a_placeholder_and_chooses_a_configuration() {
    let yaml = SALES.replace("key-of-sales-0001", "paste-your-api-key-here");
    assert_eq!(
        TenantFixture::new().zip("acme.zip", &yaml).file("acme.yaml", "api_key: key-mended-0001\n").codes(),
        [""; 0]
    );
    let two = archive(&[
        ("mcp/server/configs/east.yaml", b"[".as_slice()),
        ("mcp/server/configs/west.yaml", SALES.as_bytes()),
    ]);
    assert_eq!(
        &*TenantFixture::new().file("acme.zip", two).file("acme.yaml", "config: west\n").spec().dataset,
        "west"
    );
}

#[test]
fn an_unrenamed_zip_is_called_like_its_dataset() {
    for name in ["mcp_export.zip", "mcp_export (1).zip", "server.zip"] {
        assert_eq!(TenantFixture::new().zip(name, SALES).spec().name.as_str(), "sales", "{name}");
    }
    assert_eq!(TenantFixture::new().zip("Acme Corp.zip", SALES).spec().name.as_str(), "acme-corp");
    assert_eq!(
        TenantFixture::export("").file("acme.yaml", "name: other\n").spec().public_url.as_str(),
        "https://mcp.test/other"
    );
}

#[test]
fn folders_and_unpacked_exports_are_tenants() {
    let zip = archive(&[("mcp/server/configs/sales.yaml", SALES.as_bytes())]);
    let mounted = TenantFixture::new()
        .file("acme/server.zip", zip)
        .file("acme/own.yaml", "api_key_file: key\n")
        .file("acme/key", "from-file-0001\n");
    assert_eq!(header(&mounted.spec(), "x-api-key"), "from-file-0001");
    let unpacked =
        TenantFixture::new().file("acme/mcp/server/configs/sales.yaml", format!("{SALES}the_vendors: own\n"));
    assert_eq!((&*unpacked.spec().dataset, unpacked.codes()), ("sales", vec![]));
}

#[test]
fn secrets_come_from_variables_and_allowed_folders() {
    let overlay = |lines: &str| TenantFixture::export("").file("acme.yaml", lines);
    assert_eq!(header(&overlay("api_key: ${TENANT_ACME_KEY}\n").spec(), "x-api-key"), "variable-key-0001");
    let secrets = tempfile::tempdir().expect("a folder");
    let path = secrets.path().join("acme");
    std::fs::write(&path, "from-root-0001").expect("written");
    let drop = overlay(&format!("api_key_file: {}\n", path.display()));
    assert_eq!(drop.codes(), ["secret-file-outside"]);
    let drop = drop.context(|context| context.secret_roots.push(secrets.path().to_owned()));
    assert_eq!(header(&drop.spec(), "x-api-key"), "from-root-0001");
    let before = drop.load().digest;
    std::fs::write(&path, "rotated-root-0002").expect("written");
    assert_ne!(drop.load().digest, before);
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_tenants_folder_is_no_way_out() {
    let drop = TenantFixture::new()
        .file("acme/own.yaml", SALES.replace("api_key: key-of-sales-0001", "api_key_file: key"));
    std::os::unix::fs::symlink("/etc/hostname", drop.path().join("acme/key")).expect("linked");
    assert_eq!(drop.codes(), ["secret-file-outside"]);
}

#[test]
fn a_link_in_a_tenants_folder_leads_to_nobody_elses_files() {
    use std::os::unix::fs::symlink;
    let others = tempfile::tempdir().expect("a folder");
    let zip = archive(&[("mcp/server/configs/sales.yaml", SALES.as_bytes())]);
    std::fs::write(others.path().join("server.zip"), &zip).expect("written");
    let unpacked = others.path().join("mcp/server/configs");
    std::fs::create_dir_all(&unpacked).expect("made");
    std::fs::write(unpacked.join("sales.yaml"), SALES).expect("written");
    for name in ["server.zip", "mcp"] {
        let drop = TenantFixture::new().file("acme/own.yaml", "search_url: https://mine.test/nlp-search\n");
        symlink(others.path().join(name), drop.path().join("acme").join(name)).expect("linked");
        assert!(drop.codes().contains(&"file-outside"), "{name}: {:?}", drop.codes());
        let drop = drop.context(|context| context.secret_roots.push(others.path().to_owned()));
        assert_eq!(drop.spec().name.as_str(), "acme", "{name}: that folder is allowed");
    }
    // The layout of mounted Secrets and ConfigMaps, and a folder that is itself a link.
    let drop = TenantFixture::new().file("acme/..2026/server.zip", &zip);
    symlink("..2026", drop.path().join("acme/..data")).expect("linked");
    symlink("..data/server.zip", drop.path().join("acme/server.zip")).expect("linked");
    assert_eq!(drop.spec().name.as_str(), "acme");
    let elsewhere = TenantFixture::new().file("other.txt", "");
    symlink(others.path(), elsewhere.path().join("acme")).expect("linked");
    std::fs::remove_file(others.path().join("server.zip")).expect("removed");
    assert_eq!(elsewhere.spec().name.as_str(), "acme");
    // Anyone who writes into the tenants folder itself controls all tenants, so links are followed.
    let flat = TenantFixture::new().file("other.txt", "");
    symlink(unpacked.join("sales.yaml"), flat.path().join("acme.yaml")).expect("linked");
    assert_eq!(flat.spec().name.as_str(), "acme");
}

#[test]
fn a_confined_tenant_uses_no_secret_of_others() {
    let overlay = |line: &str| {
        let drop = TenantFixture::export("").file("acme.yaml", format!("{line}\n"));
        drop.context(|context| {
            context.confine_tenants = true;
            let key = crate::base::secret::Secret::new("own-variable-0001");
            context.env.insert("TENANT_ACME__KEY".into(), key);
        })
    };
    assert_eq!(overlay("api_key: ${TENANT_ACME_KEY}").codes(), ["variable-of-others"]);
    assert_eq!(overlay("name: b\napi_key: ${TENANT_B__KEY}").codes(), ["variable-of-others"]);
    assert_eq!(header(&overlay("api_key: ${TENANT_ACME__KEY}").spec(), "x-api-key"), "own-variable-0001");
    let secrets = tempfile::tempdir().expect("a folder");
    for name in ["acme", "b"] {
        std::fs::create_dir(secrets.path().join(name)).expect("made");
        std::fs::write(secrets.path().join(name).join("key"), format!("from-root-of-{name}"))
            .expect("written");
    }
    let file = |name: &str| {
        let drop = overlay(&format!("api_key_file: {}", secrets.path().join(name).join("key").display()));
        drop.context(|context| context.secret_roots.push(secrets.path().to_owned()))
    };
    assert_eq!(header(&file("acme").spec(), "x-api-key"), "from-root-of-acme");
    assert_eq!(file("b").codes(), ["secret-file-outside"]);
    assert_eq!(file("acme/../b").codes(), ["secret-file-outside"]);
}

#[test]
fn the_digest_is_that_of_the_contents() {
    let drop = TenantFixture::export("").file("acme.env", "A=1\n");
    let digest = drop.load().digest;
    assert_eq!(drop.load().digest, digest);
    assert_eq!(TenantFixture::export("").file("acme.env", "A=1\n").load().digest, digest);
    assert_ne!(TenantFixture::export("").file("acme.env", "A=2\n").load().digest, digest);
    assert_ne!(TenantFixture::export("").load().digest, digest);
    let variable = TenantFixture::export("").file("acme.yaml", "api_key: ${TENANT_ACME_KEY}\n");
    let before = variable.load().digest;
    let changed = variable.context(|context| {
        context.env.insert("TENANT_ACME_KEY".into(), crate::base::secret::Secret::new("another-key-0002"));
    });
    assert_ne!(changed.load().digest, before);
}

#[test]
fn public_urls_and_hosts_say_where_a_tenant_answers() {
    let place = |lines: &str| {
        let spec = TenantFixture::alone(lines).spec();
        let mounts: Vec<String> = spec
            .mounts
            .iter()
            .map(|mount| format!("{}{}", mount.host.as_ref().map_or("*", HostName::as_str), mount.prefix))
            .collect();
        (spec.public_url.to_string(), mounts.join(" "))
    };
    let is = |url: &str, mounts: &str| (url.to_owned(), mounts.to_owned());
    assert_eq!(place("path_prefix: /\n"), is("https://mcp.test", "*/"));
    assert_eq!(place("public_url: https://mcp.test/a/b\n"), is("https://mcp.test/a/b", "*/a/b"));
    assert_eq!(place("public_url: https://own.test\n"), is("https://own.test", "own.test/"));
    assert_eq!(place("public_url: https://own.test:443/x/\n"), is("https://own.test/x", "own.test/x"));
    assert_eq!(
        place("public_url: https://own.test.:443/x\nhosts: [b.test.]\n"),
        is("https://own.test/x", "own.test/x b.test/x")
    );
    assert_eq!(place("hosts: [own.test, MCP.test]\n"), is("https://mcp.test/acme", "*/acme own.test/acme"));
    assert_eq!(
        place("hosts: own.test, b.test\n"),
        is("https://mcp.test/acme", "*/acme own.test/acme b.test/acme")
    );
}

#[test]
fn a_host_of_its_own_comes_from_the_operators_files_or_is_allowed_to_exports() {
    let said = "public_url: https://own.test/x\n";
    let hosts = |spec: TenantSpec| {
        spec.mounts.iter().map(|mount| mount.host.as_ref().map(ToString::to_string)).collect::<Vec<_>>()
    };
    let own = [Some("own.test".to_owned())];
    assert_eq!(hosts(TenantFixture::alone(said).spec()), own);
    assert_eq!(hosts(TenantFixture::export("").file("acme.yaml", said).spec()), own);
    assert_eq!(
        hosts(TenantFixture::export("").file("acme.env", "PUBLIC_URL=https://own.test/x\n").spec()),
        own
    );
    assert_eq!(TenantFixture::export(said).codes(), ["export-host"]);
    assert_eq!(
        hosts(TenantFixture::export(said).file("acme.yaml", said).spec()),
        own,
        "the operator says it, too"
    );
    let allowed = TenantFixture::export(said).context(|context| context.zip_hosts_allowed = true);
    assert_eq!(hosts(allowed.spec()), own);
    // The gateway's own hosts never become a tenant's, whichever file names them.
    for ours in ["mcp.test", "localhost:8443", "127.0.0.1", "[::1]:8000", "a.localhost"] {
        let said = format!("public_url: https://{ours}/x\n");
        assert_eq!(hosts(TenantFixture::export(&said).spec()), [None], "{ours}");
        assert_eq!(hosts(TenantFixture::alone(&said).spec()), [None], "{ours}");
    }
    assert!(!TenantFixture::alone(said).spec().shares_hosts);
    assert!(TenantFixture::alone("share_host: true\n").spec().shares_hosts);
    assert!(!TenantFixture::export("share_host: true\n").spec().shares_hosts, "an export cannot consent");
}

#[test]
fn keys_are_kept_as_digests() {
    let key = "a-long-enough-key-for-a-caller";
    let sha = Digest::of(key.as_bytes());
    let spec = TenantFixture::alone(&format!(
        "api_keys:\n  - {{label: ci, sha256: {sha}, expires: 2027-01-31}}\n  - {{key: {key}-2}}\n"
    ))
    .spec();
    let keys = &spec.access.api_keys;
    assert_eq!((keys[0].label.as_str(), keys[0].digest), ("ci", sha));
    assert_eq!(keys[0].expires.map(|moment| moment.to_string()).as_deref(), Some("2027-02-01T00:00:00Z"));
    assert_eq!(
        (keys[1].label.as_str(), keys[1].digest),
        ("key-2", Digest::of(format!("{key}-2").as_bytes()))
    );
}

#[test]
fn an_operator_changes_calls_and_tools() {
    let overlay = "\
backend:
  auth_header: Authorization
  auth_scheme: Bearer
  user_header: X-User
  http2: yes
  headers: {X-Region: eu}
  search:
    body: '{\"q\": {{query}}, \"opts\": {\"region\": {{region}}}}'
    headers: {X-Kind: s}
  context: {url: 'https://portal.test/c/{{dataset}}'}
tools:
  search:
    name: ask_sales
    description: Ask.
    parameters:
      region: {type: string, enum: [eu, us]}
  get_context: {hidden: true}
limits: {concurrent_calls: 8, requests_per_minute: '60', max_result: 64KiB}
cache: {context_ttl: 10m}
enabled: no
public: 1
";
    let spec = TenantFixture::export("").file("acme.yaml", overlay).spec();
    assert_eq!(spec.tools.len(), 1);
    let tool = &spec.tools[0];
    assert_eq!((&*tool.name, &*tool.description), ("ask_sales", "Ask."));
    assert_eq!(tool.input_schema["properties"]["region"]["enum"], json!(["eu", "us"]));
    assert_eq!(header(&spec, "authorization"), "Bearer key-of-sales-0001");
    assert_eq!((header(&spec, "x-region"), header(&spec, "x-kind")), ("eu".into(), "s".into()));
    assert_eq!(
        spec.backend
            .context
            .url
            .render(&spec.backend.context.constants.apply_to(&TemplateValues::new()))
            .expect("fits"),
        "https://portal.test/c/sales"
    );
    assert_eq!(spec.backend.user_header.as_ref().map(|name| name.as_str()), Some("x-user"));
    assert!(spec.backend.http2);
    assert_eq!(
        (spec.limits.concurrent_calls, spec.limits.requests_per_minute, spec.limits.max_result_bytes),
        (8, Some(60), 65536)
    );
    assert_eq!(
        (spec.cache.context_ttl, spec.enabled, spec.access.public),
        (Duration::from_secs(600), false, true)
    );
}

#[test]
fn new_parameters_are_sent_by_default() {
    let overlay = "tools: {search: {parameters: {region: {type: string}}}}\n";
    let spec = TenantFixture::export("").file("acme.yaml", overlay).spec();
    let values = json!({"query": "q", "region": "eu"});
    let body =
        spec.tools[0].call.body.as_ref().expect("a body").render(values.as_object().expect("an object"));
    assert_eq!(body, values);
}

#[test]
fn allowed_loopback_backends_are_served() {
    let drop = TenantFixture::with(
        "search_url: http://127.0.0.1:9000/nlp-search\ncontext_url: http://localhost:9000/nlp-context\n",
    );
    let drop = drop.context(|context| context.backend_allow.push("127.0.0.0/8".parse().expect("a network")));
    assert_eq!(drop.codes(), [""; 0]);
}

#[test]
fn backends_are_only_where_the_settings_list_them() {
    let drop = |items: &[&str], urls: &str| {
        let items = items.iter().map(|item| AllowedBackend::parse(item).expect("an item"));
        let only = BackendOnly::new(items.collect());
        TenantFixture::with(urls).context(|context| context.backend_only = only).codes()
    };
    let urls =
        "search_url: https://portal.test/nlp-search\ncontext_url: https://api.portal.test/nlp-context\n";
    assert_eq!(drop(&["portal.test", "*.portal.test"], urls), [""; 0]);
    assert_eq!(drop(&["portal.test"], urls), ["backend-unlisted"], "each URL is judged");
    assert_eq!(drop(&["*.other.test"], urls), ["backend-unlisted"; 2]);
    assert_eq!(drop(&["10.0.0.0/8"], urls), [""; 0], "where a name leads is judged when it is connected to");
    let urls = urls.replace("portal.test", "10.1.2.3").replace("api.", "");
    assert_eq!(drop(&["10.0.0.0/8"], &urls), [""; 0]);
    assert_eq!(drop(&["10.2.0.0/16"], &urls), ["backend-unlisted"; 2]);
}

#[test]
fn what_decides_who_may_call_is_told_apart_from_the_rest() {
    let key = |c: &str| format!("api_keys: [{{label: a, sha256: {}}}]\n", c.repeat(64));
    let access = |lines: &str| TenantFixture::export("").file("acme.yaml", lines).load().access_fingerprint;
    let (open, keyed) = (access(""), access(&key("a")));
    assert!(open.is_some() && keyed.is_some() && open != keyed);
    assert_ne!(access(&key("b")), keyed);
    assert_ne!(access("oauth_enabled: true\n"), open);
    // Errors in other fields leave no doubt about who may call.
    for elsewhere in ["deadline: never\n", "path_prefix: /a/../b\n", "search_url: x\n", "zzz: 1\n"] {
        assert_eq!(access(&format!("{}{elsewhere}", key("a"))), keyed, "{elsewhere}");
    }
    for doubt in [
        "api_keys: [{sha256: 1}]\n",
        "api_keys: x\n",
        "api_keys:\n",
        "acess: x\n",
        "access:\n",
        "oauth_enabled: perhaps\n",
        "a: [",
        "- a\n",
    ] {
        assert_eq!(access(doubt), None, "{doubt}");
    }
    assert_eq!(TenantFixture::export("access: x\n").load().access_fingerprint, None);
    assert_eq!(TenantFixture::alone("").file("acme.yml", SALES).load().access_fingerprint, None);
    assert_eq!(
        TenantFixture::new()
            .file("acme.zip", "cut off")
            .file("acme.yaml", key("a"))
            .load()
            .access_fingerprint,
        None
    );
}

#[test]
fn every_file_that_is_named_is_told_whether_or_not_it_can_be_read() {
    let lines = "\
api_key_file: portal.key
oauth_enabled: true
microsoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e
microsoft_tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47
microsoft_client_secret_file: now.key
microsoft_client_secret_next_file: next.key
machine_clients: [{id: bot, secret_file: bot.key}]
api_keys: [{label: a, key_file: caller.key}]
";
    let drop = TenantFixture::new()
        .file("acme/acme.yaml", format!("{SALES}{lines}").replace("api_key: key-of-sales-0001\n", ""));
    let drop = drop.file("acme/now.key", "a~secret.of-Entra_0123456789");
    let named = drop.load().secret_files;
    let mut told: Vec<_> = named
        .iter()
        .map(|named| {
            let name = named.path.strip_prefix(drop.path().join("acme")).expect("in its folder");
            (name.display().to_string(), named.presence != Presence::Absent)
        })
        .collect();
    told.sort();
    let expected = ["bot.key", "caller.key", "next.key", "now.key", "portal.key"];
    assert_eq!(told, expected.map(|name| (name.to_owned(), name == "now.key")));
}

#[test]
fn a_flat_tenants_secrets_may_lie_beside_it_under_its_name() {
    let key = |file: &str| {
        let yaml = SALES.replace("api_key: key-of-sales-0001", &format!("api_key_file: {file}"));
        let names = ["acme.key", "acme.secret", "acme.prod.key", "other.key", "acme.txt"];
        let drop = TenantFixture::new().file("acme.yaml", yaml);
        names.iter().fold(drop, |drop, name| drop.file(name, "key-of-a-file-0001\n"))
    };
    for own in ["acme.key", "./acme.key", "acme.secret"] {
        assert_eq!(header(&key(own).spec(), "x-api-key"), "key-of-a-file-0001", "{own}");
    }
    for others in ["acme.prod.key", "other.key", "acme.txt", "../acme.key", "sub/acme.key"] {
        let codes = key(others).codes();
        assert!(codes == ["secret-file-outside"] || codes == ["secret-file"], "{others}: {codes:?}");
    }
    let drop = key("other.key");
    assert!(drop.findings().contains("name it acme.key or acme.secret"), "{}", drop.findings());
    // Like any file in the tenants folder it may be a link to anywhere.
    let elsewhere = TenantFixture::new().file("key", "key-of-a-file-0002");
    let drop = key("acme.key");
    std::fs::remove_file(drop.path().join("acme.key")).expect("removed");
    std::os::unix::fs::symlink(elsewhere.path().join("key"), drop.path().join("acme.key")).expect("linked");
    assert_eq!(header(&drop.spec(), "x-api-key"), "key-of-a-file-0002");
}

#[test]
fn a_tenant_says_how_it_presents_itself() {
    let spec = TenantFixture::alone("answers: json\nicon: https://cdn.example.com/a.png\n").spec();
    assert_eq!(spec.slow_answers, crate::spec::SlowAnswers::Json);
    assert_eq!(spec.icon_url.as_deref(), Some("https://cdn.example.com/a.png"));
    let long = "x".repeat(201);
    let questions = format!("sample_questions: [' How many? ', {{a: b}}, '', '{long}', 1, 2, 3, 4, 5]\n");
    let spec = TenantFixture::with(&questions).spec();
    assert_eq!(*spec.sample_questions, ["How many?", "1", "2", "3", "4"].map(str::to_owned));
    assert_eq!((spec.slow_answers, spec.icon_url), Default::default());
    for (line, code) in [
        ("answers: sse\n", "bad-answers"),
        ("icon: http://cdn.example.com/a.png\n", "bad-icon"),
        ("icon: https://user@cdn.example.com/a.png\n", "bad-icon"),
    ] {
        assert!(TenantFixture::alone(line).codes().contains(&code), "{line}");
    }
}

#[test]
fn urls_that_look_wrong_are_named() {
    let urls = |search: &str, context: &str| {
        let host = "https://portal.example.com";
        let lines = format!("search_url: {host}{search}\ncontext_url: {host}{context}\n");
        TenantFixture::with(&lines).codes()
    };
    assert_eq!(urls("/nlp-search", "/nlp-context"), [""; 0]);
    assert_eq!(urls("/nlp-context", "/nlp-search"), ["urls-swapped"]);
    assert_eq!(urls("/nlp-search", "/nlp-search"), ["urls-swapped"]);
    assert_eq!(urls("", "/nlp-context"), ["url-without-path"]);
    assert_eq!(urls("/nlp-search", "/"), ["url-without-path"]);
    assert_eq!(urls("/nlp-search", "/cassandra-context"), ["family-differs"]);
    assert_eq!(urls("/ask", "/about"), [""; 0], "another API than the vendor's");
}
