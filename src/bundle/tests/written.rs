//! Notations that mean nothing here, or not what their author thinks, never count as "not written".

use super::corpus::{SALES, TenantFixture};
use crate::base::secret::Secret;

const ZIPS_KEY: &str = "key-of-sales-0001";

fn overlay(lines: &str) -> TenantFixture {
    TenantFixture::new().zip("acme.zip", SALES).file("acme.yaml", lines)
}

fn env(lines: &str) -> TenantFixture {
    TenantFixture::new().zip("acme.zip", SALES).file("acme.env", lines)
}

/// Returns the key that the backend receives.
fn key(drop: &TenantFixture) -> String {
    let spec = drop.spec();
    let sent = spec.backend.context.headers.iter().find(|(name, _)| name.as_str() == "x-api-key");
    sent.or(spec.backend.context.headers.first()).expect("a header").1.expose().to_owned()
}

#[test]
fn a_value_that_only_seems_to_be_one_is_refused_and_the_zips_is_not_used_in_its_place() {
    for line in [
        "api_key: &abc123",
        "api_key: !abc123",
        "api_key: #abc123",
        "public_url: &x",
        "connection_id: #c9",
        "oauth_enabled: &true",
        "backend: {headers: {x-a: &k }}",
        "api_key_file: #acme.key",
    ] {
        let codes = overlay(&format!("{line}\n")).codes();
        assert!(codes.contains(&"yaml-empty") || codes.contains(&"yaml-tag"), "{line}: {codes:?}");
    }
    let findings = overlay("description: x\napi_key: #abc123\n").findings();
    assert!(findings.contains("acme.yaml:2:") && !findings.contains("abc123"), "{findings}");
    for line in ["api_key:", "api_key: # from the zip", "api_key: ~"] {
        assert!(key(&overlay(&format!("{line}\n"))).contains(ZIPS_KEY), "{line}");
    }
    let guard = overlay("oauth_enabled: #true\n").load();
    assert!(guard.access_fingerprint.is_none(), "nobody knows who may call");
}

#[test]
fn the_tag_of_another_tool_is_refused_wherever_an_operator_writes_one() {
    for lines in [
        "api_key: !secret acme_key",
        "api_key: !vault |\n  abc",
        "api_key: !!binary aGVsbG8=",
        "description: !Ref x",
        "limits: !include limits.yaml",
        "api_keys: [!secret a]",
        "access: {users: [!secret a]}",
        "tools: {search: {parameters: {a: {enum: [!ENV x]}}}}",
        "sample_questions: [!x a]",
        "!include acme.base.yaml",
    ] {
        let codes = overlay(&format!("{lines}\n")).codes();
        assert!(codes.contains(&"yaml-tag"), "{lines}: {codes:?}");
    }
    assert!(TenantFixture::with("api_key: !secret acme_key\n").codes().contains(&"yaml-tag"));
    let export = |lines: &str| TenantFixture::new().zip("acme.zip", &format!("{SALES}{lines}"));
    assert_eq!(export("of_the_vendor: !python/object x\nport: !x 1\n").codes(), ["port-ignored"]);
    let drop = TenantFixture::new().zip("acme.zip", &SALES.replace("key-of-sales-0001", "!secret acme_key"));
    assert!(drop.codes().contains(&"yaml-tag"));
    overlay("api_key: !!str 0123456789\n").spec();
}

#[test]
fn a_comment_hides_no_line_behind_a_character_that_some_take_for_a_line_end() {
    for odd in ["\u{85}", "\u{2028}", "\u{2029}"] {
        assert_eq!(overlay(&format!("# keys{odd}api_keys: [a]\n")).codes(), ["yaml-line-end"]);
        overlay(&format!("description: \"a{odd}b\"\n")).spec();
    }
}

#[test]
fn an_env_of_any_line_ends_turns_the_login_on() {
    let lines = [
        "# login for acme",
        "OAUTH_ENABLED=true",
        "MICROSOFT_CLIENT_ID=6731de76-14a6-49ae-97bc-6eba6914391e",
        "MICROSOFT_CLIENT_SECRET=canary~secret",
        "MICROSOFT_TENANT_ID=72f988bf-86f1-41af-91ab-2d7cd011db47",
        "",
    ];
    for end in ["\n", "\r\n", "\r"] {
        assert!(env(&lines.join(end)).spec().access.login.is_some(), "{end:?}");
    }
    for end in ["\u{b}", "\u{c}", "\u{85}", "\u{2028}"] {
        assert_eq!(env(&lines.join(end)).codes(), ["env-syntax"], "{end:?}");
    }
    // The line of a finding is the one that editors show.
    let findings = env("A=1\rPATH_PREFIX=../x\r").findings();
    assert!(findings.contains("acme.env:2:"), "{findings}");
}

#[test]
fn the_keys_of_an_env_are_those_that_compose_would_have_passed_on() {
    for (lines, expected) in [
        ("API_KEY=ab$$cd-0123456789", "ab$cd-0123456789"),
        ("PART=xyz\nAPI_KEY=ab-$PART-0123456789", "ab-xyz-0123456789"),
        ("API_KEY='ab${cd}ef-0123456789'", "ab${cd}ef-0123456789"),
        ("API_KEY=$${cd}ef-0123456789", "${cd}ef-0123456789"),
        ("API_KEY: abc-0123456789", "abc-0123456789"),
        ("API_KEY=${TENANT_ACME_KEY}", "variable-key-0001"),
    ] {
        assert!(key(&env(&format!("{lines}\n"))).ends_with(expected), "{lines}");
    }
    let spec =
        env("HOST=other.test\nSEARCH_URL=http://${HOST}/nlp-search\nCONTEXT_URL=http://$HOST/nlp-context\n")
            .spec();
    assert!(format!("{:?}", spec.backend.context).contains("other.test"));
    // The gateway's other variables are never substituted.
    assert_eq!(env("API_KEY=$HOME\n").codes(), ["env-syntax"]);
}

#[test]
fn what_came_along_when_copying_is_refused_with_its_place() {
    let login = "oauth_enabled: true\nmicrosoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e\n\
                 microsoft_tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47\n";
    for secret in [
        "abc~def.ghi_jkl-mno\u{200b}",
        "\u{feff}abc~def.ghi_jkl-mno",
        "abc~def\u{a0}ghi_jkl-mno",
        "\u{201c}abc~def.ghi_jkl-mno\u{201d}",
        "gTx******************",
        "gTx\u{2026} 8Q~",
    ] {
        for name in ["microsoft_client_secret", "microsoft_client_secret_next"] {
            let current =
                if name.ends_with("next") { "microsoft_client_secret: abc~def.ghi_jkl-0\n" } else { "" };
            let drop = overlay(&format!("{login}{current}{name}: '{secret}'\n"));
            let codes = drop.codes();
            assert!(codes.contains(&"login-invalid"), "{name} {secret:?}: {codes:?}");
            // The same value in a file is validated alike.
            let drop = TenantFixture::new().zip("acme/server.zip", SALES).file("acme/s.key", secret);
            let drop = drop.file("acme/a.yaml", format!("{login}{current}{name}_file: s.key\n"));
            assert!(drop.codes().contains(&"login-invalid"), "{name}_file {secret:?}");
        }
        let keys = overlay(&format!("api_keys: [{{label: a, key: '{secret}-0123456789-0123456789'}}]\n"));
        assert!(keys.codes().contains(&"api-key-invalid"), "{secret:?}");
        let key = overlay(&format!("api_key: '{secret}'\n")).codes();
        assert!(
            key.contains(&"bad-header-value") || key.contains(&"api-key-placeholder"),
            "{secret:?}: {key:?}"
        );
    }
    for odd in ['\u{200b}', '\u{ad}', '\u{2011}', '\u{feff}', '\u{201d}'] {
        assert_eq!(
            overlay(&format!("search_url: https://portal.test/nlp-search{odd}\n")).codes(),
            ["bad-url"]
        );
        assert_eq!(overlay(&format!("connection_id: c1{odd}\n")).codes(), ["bad-connection-id"]);
    }
    overlay("search_url: https://m\u{fc}nchen.test/nlp-search\nconnection_id: Verk\u{e4}ufe\n").spec();
}

#[test]
fn what_goes_to_the_backend_or_to_clients_is_judged_like_the_key() {
    for odd in [
        "v1\u{200b}",
        "\u{feff}v1",
        "v\u{a0}1",
        "\u{201c}v1\u{201d}",
        "v1****",
        "v1\u{2026}",
        "<your-value>",
        "paste-your-value-here",
    ] {
        let codes = overlay(&format!("backend: {{headers: {{x-a: '{odd}'}}}}\n")).codes();
        assert_eq!(codes, ["bad-header-value"], "{odd:?}");
        let codes = overlay(&format!("connection_id: '{odd}'\n")).codes();
        assert_eq!(codes, ["bad-connection-id"], "{odd:?}");
        if odd.starts_with("paste-") {
            continue; // A path may be called so.
        }
        let codes = overlay(&format!("public_url: 'https://mcp.test/{odd}'\n")).codes();
        assert!(!codes.is_empty(), "{odd:?}");
        assert!(
            codes.iter().all(|code| ["bad-public-url", "bad-prefix"].contains(code)),
            "{odd:?}: {codes:?}"
        );
    }
    // Placeholder words are valid values of headers.
    for good in ["none", "null", "-", "*", "*/*", "x", "todo", "a<b>c"] {
        assert_eq!(overlay(&format!("backend: {{headers: {{x-a: '{good}'}}}}\n")).codes(), [""; 0], "{good}");
    }
    assert_eq!(overlay("backend: {auth_scheme: 'Bearer\u{200b}'}\n").codes(), ["bad-header-value"]);
}

#[test]
fn quotes_that_a_shell_left_are_refused_and_said_of_headers() {
    for (line, code) in [
        ("api_key: '\"portal-0001\"'", "bad-header-value"),
        ("public_url: '\"https://mcp.test/acme\"'", "bad-public-url"),
        ("search_url: '\"https://portal.test/nlp-search\"'", "bad-url"),
        ("connection_id: '\"c1\"'", "bad-connection-id"),
        ("api_keys: [{label: a, key: '\"0123456789-0123456789-0123456789\"'}]", "api-key-invalid"),
        ("backend: {headers: {x-a: '\"v1\"'}}", "header-quoted"),
    ] {
        let drop = overlay(&format!("{line}\n"));
        assert_eq!(drop.codes(), [code], "{line}");
        assert!(drop.findings().contains("quotes around it"), "{line}");
    }
    // Docker keeps the quotes of a variable in an env file.
    let drop = overlay("api_key: ${TENANT_ACME_KEY}\n")
        .context(|context| _ = context.env.insert("TENANT_ACME_KEY".into(), Secret::new("'portal-0001'")));
    assert_eq!(drop.codes(), ["bad-header-value"]);
}

#[test]
fn a_key_that_no_caller_could_show_is_refused() {
    for key in [
        "0123456789 0123456789 0123456789",
        "0123456789:0123456789:0123456789",
        "=0123456789-0123456789-01234",
    ] {
        let codes = overlay(&format!("api_keys: [{{label: a, key: '{key}'}}]\n")).codes();
        assert_eq!(codes, ["api-key-invalid"], "{key}");
    }
    let base64 = "api_keys: [{label: a, key: 'QUJDREVGR0hJSktMTU5PUFFSU1RVVg=='}]\n";
    assert_eq!(overlay(base64).codes(), ["api-key-plain"]);
}
