//! The text of each finding. One snapshot per subject, each case under its own heading.

use super::corpus::{SALES, TenantFixture, archive};

fn snapshot(name: &str, cases: Vec<(&str, TenantFixture)>) {
    let text: String = cases
        .iter()
        .map(|(case, drop)| format!("## {case}\n{}\n", drop.findings()))
        .collect::<Vec<_>>()
        .join("");
    insta::assert_snapshot!(name, text);
}

#[test]
fn placeholders_and_missing_fields_say_what_the_vendor_says() {
    snapshot(
        "missing",
        vec![
            (
                "placeholder in the export",
                TenantFixture::new()
                    .zip("sales.zip", &SALES.replace("key-of-sales-0001", "paste-your-api-key-here")),
            ),
            ("placeholder in the .env", TenantFixture::export("").file("acme.env", "API_KEY=your-api-key\n")),
            (
                "host not filled in",
                TenantFixture::with("search_url: https://<your-tursio-hostname>/nlp-search\n"),
            ),
            (
                "exported before MCP",
                TenantFixture::new().zip(
                    "old.zip",
                    "search_url: https://portal.test/nlp-search\napi_key: key-of-sales-0001\n",
                ),
            ),
            ("an empty tenant", TenantFixture::new().file("acme.yaml", "")),
            (
                "only an .env",
                TenantFixture::new().file("acme.env", "SEARCH_URL=https://portal.test/nlp-search\nFOO=1\n"),
            ),
            ("an empty folder", TenantFixture::new().file("acme/README.md", "")),
            (
                "no connection id, port given",
                TenantFixture::new()
                    .zip("acme.zip", &SALES.replace("connection_id: conn-sales-01\n", "port: 8000\n")),
            ),
            ("a variable in a URL", TenantFixture::with("context_url: ${TENANT_HOST}/nlp-context\n")),
        ],
    );
}

#[test]
fn a_base_that_ends_in_mcp_is_a_warning() {
    for lines in [
        "public_url: https://mcp.test/pm1/mcp\n",
        "public_url: https://own.example.net/mcp\n",
        "path_prefix: /pm2/mcp\n",
        "path_prefix: /mcp/\n",
    ] {
        let found = TenantFixture::alone(lines).findings();
        assert!(found.contains("warning[mcp-twice]") && !found.contains("error["), "{lines}: {found}");
    }
    assert!(!TenantFixture::alone("path_prefix: /mcpx\n").findings().contains("mcp-twice"));
}

#[test]
fn a_tool_name_that_clients_refuse_is_a_warning() {
    let found =
        |name: &str| TenantFixture::alone(&format!("tools: {{search: {{name: {name}}}}}\n")).findings();
    for name in ["search.sales", &"x".repeat(65)] {
        let found = found(name);
        assert!(found.contains("warning[tool-name-refused]") && !found.contains("error["), "{name}: {found}");
    }
    assert!(!found(&"x".repeat(64)).contains("tool-name"));
}

#[test]
fn what_is_wrong_with_a_yaml_is_shown_with_its_place() {
    snapshot(
        "yaml",
        vec![
            (
                "syntax",
                TenantFixture::new().zip("acme.zip", "search_url: [unclosed\napi_key: secret-canary\n"),
            ),
            (
                "keys twice",
                TenantFixture::export("api_key: another-canary\nsearch_url: https://u:canary@h/\n"),
            ),
            ("two documents", TenantFixture::export("---\na: 1\n")),
            ("a list", TenantFixture::new().file("acme.yaml", "- api_key: secret-canary\n")),
            ("a sentence", TenantFixture::new().file("acme.yaml", "api_key=secret-canary\n")),
            ("a tab", TenantFixture::new().file("acme.yaml", "limits:\n\tconcurrent_calls: 3\n")),
            (
                "unknown names in an overlay",
                TenantFixture::export("")
                    .file("acme.yaml", "serach_url: x\nzzz: 1\nlimits: {concurent_calls: 3}\n"),
            ),
            ("unknown names alone", TenantFixture::alone("zzz: 1\noauth_enable: true\n")),
            (
                "wrong types",
                TenantFixture::alone(
                    "deadline: 2h\nenabled: perhaps\nhosts: {a: b}\nlimits: {concurrent_calls: 0, max_result: 3}\ntools: [search]\ncache: {list_ttl: soon}\n",
                ),
            ),
            ("not text", TenantFixture::new().file("acme.yaml", b"api_key: \xff\xfe")),
            ("too large", TenantFixture::new().file("acme.yaml", "#".repeat(300 << 10))),
            (
                "env that cannot be read",
                TenantFixture::export("").file("acme.env", "OAUTH_ENABL\nA='x\nB=1\nB=2\n"),
            ),
            (
                "ours in an export",
                TenantFixture::export(
                    "api_keys: []\npublic: true\nhosts: [a.test]\naccess: x\nwhatever: 1\n",
                ),
            ),
        ],
    );
}

fn many_hosts(number: usize) -> String {
    (0..number).map(|n| format!("h{n}.test")).collect::<Vec<_>>().join(",")
}

#[test]
fn prefixes_and_public_urls_are_judged() {
    snapshot(
        "places",
        vec![
            ("dot segments", TenantFixture::export("path_prefix: /a/../b\n")),
            ("no slash", TenantFixture::alone("path_prefix: tenant-a\n")),
            ("reserved", TenantFixture::alone("path_prefix: /.well-known/x\n")),
            ("trailing slash", TenantFixture::alone("path_prefix: /tenant-a/\n")),
            ("two opinions", TenantFixture::alone("path_prefix: /a\npublic_url: https://mcp.test/b/\n")),
            ("dots in the URL", TenantFixture::alone("public_url: https://mcp.test/a/../b\n")),
            ("a query", TenantFixture::alone("public_url: https://mcp.test/a?x=1\n")),
            ("a password", TenantFixture::alone("public_url: https://u:pass-canary@mcp.test/a\n")),
            ("no scheme", TenantFixture::alone("public_url: mcp.test/a\n")),
            ("no host", TenantFixture::alone("public_url: https:///a\n")),
            (
                "hosts",
                TenantFixture::alone(
                    "hosts: [mcp.test, 'https://x.test', ok.test, 127.0.0.1, a.localhost]\n",
                ),
            ),
            ("more hosts than are taken", TenantFixture::alone(&format!("hosts: {}\n", many_hosts(33)))),
            ("an export's host", TenantFixture::export("public_url: https://own.test:8443/x\n")),
            (
                "an export's host beside an overlay",
                TenantFixture::export("public_url: https://own.test\n")
                    .file("acme.yml", "description: Ours\n"),
            ),
            (
                "http with login",
                TenantFixture::alone(
                    "public_url: http://mcp.test/a\noauth_enabled: true\nmicrosoft_client_id: a\nmicrosoft_client_secret: secret-canary\nmicrosoft_tenant_id: c\n",
                ),
            ),
        ],
    );
}

#[test]
fn logins_and_keys_never_open_a_tenant_by_accident() {
    snapshot(
        "access",
        vec![
            (
                "keys without end",
                TenantFixture::alone(&format!("api_keys: [{}]\n", "{sha256: x},".repeat(17))),
            ),
            (
                "half a login",
                TenantFixture::export(
                    "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n",
                ),
            ),
            ("login as a word", TenantFixture::alone("oauth_enabled: 'ON'\n")),
            ("no switch", TenantFixture::alone("microsoft_client_secret: secret-canary\n")),
            ("blank switch", TenantFixture::export("oauth_enabled:\nmicrosoft_tenant_id: x\n")),
            ("no keys", TenantFixture::alone("api_keys: []\n")),
            ("blank keys", TenantFixture::alone("api_keys:\n")),
            ("blank access", TenantFixture::alone("access:\nmachine_clients: []\n")),
            (
                "bad keys",
                TenantFixture::alone(
                    "api_keys:\n  - {label: a, sha256: 12}\n  - {label: b, key: short-canary}\n  - {label: c}\n  - {label: d, key: your-api-key}\n  - {label: e, key: canary-canary-canary-canary, sha256: 12}\n  - {label: f, key: canary-canary-canary-canary, expires: tomorrow}\n  - label\n  -\n",
                ),
            ),
            (
                "keys twice",
                TenantFixture::alone(&format!(
                    "api_keys:\n  - {{label: a, sha256: {0}}}\n  - {{label: a, sha256: {0}}}\n",
                    "0f".repeat(32)
                )),
            ),
            (
                "keys given plainly, public",
                TenantFixture::alone(
                    "public: yes\napi_keys: [{label: a, key: canary-canary-canary-canary}]\n",
                ),
            ),
            ("keys as text", TenantFixture::export("").file("acme.env", "API_KEYS=secret-canary\n")),
            (
                "open where that is refused",
                TenantFixture::alone("").context(|context| context.require_auth = true),
            ),
        ],
    );
}

#[test]
fn backends_are_judged() {
    let overlay = |lines: &str| TenantFixture::export("").file("acme.yaml", lines);
    snapshot(
        "backends",
        vec![
            (
                "texts too long",
                overlay(&format!("tools: {{search: {{description: '{}'}}}}\n", "x".repeat(5_000))),
            ),
            (
                "schemas too deep",
                overlay(&format!(
                    "tools: {{search: {{parameters: {{r: {}x{}}}}}}}\n",
                    "{a: ".repeat(10),
                    "}".repeat(10)
                )),
            ),
            (
                "loopback",
                TenantFixture::with(
                    "search_url: http://127.0.0.1:9000/nlp-search\ncontext_url: http://localhost:9000/nlp-context\n",
                ),
            ),
            ("metadata", TenantFixture::with("search_url: http://169.254.169.254/nlp-search\n")),
            ("ourselves", TenantFixture::with("search_url: https://mcp.test/sales/nlp-search\n")),
            ("nowhere", TenantFixture::with("search_url: http://0.0.0.0/nlp-search\n")),
            ("a password", TenantFixture::with("search_url: https://u:canary@portal.test/nlp-search\n")),
            ("the key in a URL", TenantFixture::with("search_url: ftp://portal.test/key-of-sales-0001\n")),
            ("a mark in the host", TenantFixture::with("search_url: https://{{query}}.test/nlp-search\n")),
            (
                "an unknown mark",
                TenantFixture::with("search_url: https://portal.test/nlp-search?x={{secret}}\n"),
            ),
            ("two families", TenantFixture::with("context_url: https://portal.test/dynamodb-context\n")),
            ("a key no header carries", TenantFixture::with("api_key: \"key-\\u00fc-canary\"\n")),
            (
                "methods and bodies",
                overlay("backend:\n  search: {method: DELETE}\n  context: {method: GET, body: '{}'}\n"),
            ),
            (
                "bad templates",
                overlay(
                    "backend:\n  search: {body: '{\"q\": \"x {{query}}\"}'}\n  context: {method: POST, body: '{\"q\": {{nothing}}}'}\n",
                ),
            ),
            (
                "headers",
                overlay(
                    "backend:\n  auth_header: Host\n  user_header: a b\n  headers: {Content-Length: 3, X-Ok: canary-value}\n",
                ),
            ),
            (
                "http2 without TLS",
                TenantFixture::with(
                    "search_url: http://portal.test/nlp-search\ncontext_url: http://portal.test/nlp-context\nbackend: {http2: true}\n",
                ),
            ),
            (
                "a URL that no server reads",
                TenantFixture::with(&format!("search_url: https://portal.test/{}\n", "a".repeat(4_100))),
            ),
            (
                "heads that no server reads",
                overlay(&format!(
                    "backend: {{headers: {{X-A: '{0}', X-B: '{0}', X-C: '{0}'}}}}\n",
                    "a".repeat(8_000)
                )),
            ),
            (
                "parameters",
                overlay(
                    "tools:\n  search:\n    parameters:\n      region: text\n      query: {type: string}\n      a-b: {type: string}\n      r: {$ref: 'https://x.test/s'}\n",
                ),
            ),
            (
                "tools",
                overlay(
                    "tools:\n  search: {name: 'a b'}\n  get_context: {name: x, parameters: {}}\n  serch: {}\n",
                ),
            ),
            ("tools of one name", overlay("tools:\n  search: {name: x}\n  get_context: {name: x}\n")),
        ],
    );
}

#[test]
fn secrets_may_come_from_allowed_places_only() {
    let overlay = |lines: &str| TenantFixture::export("").file("acme.yaml", lines);
    snapshot(
        "references",
        vec![
            (
                "a file in an export",
                TenantFixture::new().zip(
                    "acme.zip",
                    &SALES.replace("api_key: key-of-sales-0001", "api_key_file: /etc/hostname"),
                ),
            ),
            (
                "a variable in an export",
                TenantFixture::new()
                    .zip("acme.zip", &SALES.replace("key-of-sales-0001", "${TENANT_ACME_KEY}")),
            ),
            ("another variable", overlay("api_key: ${PATH}\n")),
            ("part of a value", overlay("api_key: x-${TENANT_ACME_KEY}\n")),
            ("not set", overlay("api_key: ${TENANT_OTHER}\n")),
            ("a file outside", overlay("api_key_file: /etc/hostname\n")),
            ("a file that is not there", overlay("api_key_file: nothing.txt\n")),
            ("both", overlay("api_key_file: x\napi_key: other-canary\n")),
            (
                "an empty file",
                TenantFixture::new()
                    .file("acme/server.zip", archive(&[("mcp/server/configs/sales.yaml", SALES.as_bytes())]))
                    .file("acme/own.yaml", "api_key_file: key\n")
                    .file("acme/key", "\n"),
            ),
            ("not a secret", overlay("search_url_file: x\n")),
        ],
    );
}

#[test]
fn names_and_files_are_judged() {
    snapshot(
        "names",
        vec![
            (
                "two exports",
                TenantFixture::new().file("acme/server.zip", "").file("acme/mcp/server/configs/a.yaml", ""),
            ),
            ("folder for a file", TenantFixture::new().file("acme.zip/x", "")),
            ("a folder that ends like a file", TenantFixture::new().file("acme.yaml/x.yaml", "")),
            ("a bad name", TenantFixture::alone("name: Acme Corp\n")),
            ("no name", TenantFixture::new().file("---.yaml", SALES)),
            ("two YAMLs", TenantFixture::alone("").file("acme.yml", SALES)),
            ("folder and file", TenantFixture::alone("").file("acme/server.zip", "")),
            (
                "which configuration",
                TenantFixture::new().file(
                    "acme.zip",
                    archive(&[("mcp/server/configs/a.yaml", b""), ("mcp/server/configs/b.yml", b"")]),
                ),
            ),
            ("no such configuration", TenantFixture::export("").file("acme.yaml", "config: west\n")),
        ],
    );
}

#[test]
fn what_clients_are_sent_has_an_end() {
    let text = |bytes: usize| "x".repeat(bytes);
    let schema = format!("{{type: string, description: {}}}", text(15 << 10));
    let parameters: String = (0..16).map(|n| format!("      p{n}: {schema}\n")).collect();
    let tools = format!("tools:\n  search:\n    parameters:\n{parameters}");
    let name = text(250 << 2);
    for (lines, code) in [
        (format!("description: {}\n", text(4097)), "text-too-long"),
        (format!("instructions: {}\n", text((16 << 10) + 1)), "text-too-long"),
        (format!("dataset: {name}\n"), "text-too-long"),
        (format!("{tools}limits: {{max_result: 200KiB}}\n"), "list-too-large"),
        (
            format!("description: {}\ntools:\n  search: {{description: {}}}\n", text(4096), text(4097)),
            "text-too-long",
        ),
    ] {
        let drop = TenantFixture::with(&lines);
        let shown: String = lines.chars().take(40).collect();
        assert!(drop.codes().contains(&code), "{shown}: {:?}", drop.codes());
        assert!(drop.load().spec.is_none(), "{shown}");
    }
    for lines in [
        format!("description: {}\n", text(4096)),
        format!("instructions: {}\n", text(16 << 10)),
        format!("dataset: {}\n", text(256)),
        format!("{tools}limits: {{max_result: 1MiB}}\n"),
        "limits: {max_result: 1KiB}\n".to_owned(),
    ] {
        let drop = TenantFixture::with(&lines);
        assert!(drop.load().spec.is_some(), "{}", drop.findings());
    }
    let title = TenantFixture::with(&format!("display_name: {}\n", text(201)));
    assert_eq!((title.codes(), title.spec().title.len()), (vec!["text-too-long"], 200));
}

#[test]
fn a_path_that_nothing_good_can_fill_is_refused_when_the_tenant_is_read() {
    let search = "backend:\n  search:\n    url: https://portal.test/{{connection_id}}/nlp-search\n";
    let context = "backend:\n  context:\n    url: https://portal.test/c/{{topic}}/x\n";
    for (lines, refused) in [
        (format!("connection_id: ..\n{search}"), true),
        (format!("connection_id: a/b\n{search}"), true),
        (format!("connection_id: conn-1\n{search}"), false),
        (context.to_owned(), true),
        ("backend:\n  context:\n    url: https://portal.test/c?topic={{topic}}\n".to_owned(), false),
        ("dataset: ..\nbackend:\n  context:\n    url: https://portal.test/c/{{dataset}}\n".to_owned(), true),
    ] {
        let drop = TenantFixture::with(&lines);
        assert_eq!(drop.codes().contains(&"bad-path-value"), refused, "{lines}{}", drop.findings());
        assert_eq!(drop.load().spec.is_none(), refused, "{lines}");
    }
}

#[test]
fn a_field_that_is_missing_is_told_with_the_name_that_was_perhaps_meant_for_it() {
    let yaml = SALES.replace("search_url:", "search_ulr:").replace("display_name:", "colour:");
    let findings = TenantFixture::new().file("acme.yaml", yaml).findings();
    assert!(findings.contains("; search_ulr may be a misspelling of search_url"), "{findings}");
    assert!(!findings.contains("colour may"), "{findings}");
}

#[test]
fn a_schema_that_some_clients_cannot_take_is_a_warning() {
    let parameters = |schema: &str| {
        TenantFixture::new()
            .zip("acme.zip", SALES)
            .file("acme.yaml", format!("tools: {{search: {{parameters: {{p: {schema}}}}}}}\n"))
    };
    for (schema, words) in [
        ("{type: [string, 'null']}", "list of types"),
        ("{type: array, items: {type: [integer, 'null']}}", "list of types"),
        ("{type: integer, exclusiveMinimum: 0}", "exclusiveMinimum"),
        (
            "{anyOf: [{type: number, exclusiveMaximum: 3}, {type: string}]}",
            "exclusiveMinimum or exclusiveMaximum",
        ),
    ] {
        let drop = parameters(schema);
        assert_eq!(drop.codes(), ["schema-refused"], "{schema}");
        assert!(drop.findings().contains(words), "{}", drop.findings());
        drop.spec();
    }
    for fine in [
        "{type: string, minimum: 1}",
        "{enum: [[string]], type: array}",
        "{type: object, properties: {type: {type: string}, exclusiveMinimum: {type: number}}}",
    ] {
        assert_eq!(parameters(fine).codes(), [""; 0], "{fine}");
    }
}
