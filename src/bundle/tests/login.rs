//! Login with Microsoft: the interpretation of the fields, and what closes a tenant.

use super::corpus::{SALES, TenantFixture};
use crate::base::digest::Digest;
use crate::bundle::fields;
use crate::spec::{Audience, DirectorySpec, DocumentPolicy, EntraSpec, LoginSpec, ProviderSpec};

const APP: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";
const DIRECTORY: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const SECRET: &str = "canary~current-secret";

/// Returns the three values of an app registration, and further lines.
fn lines(further: &str) -> String {
    format!(
        "oauth_enabled: true\nmicrosoft_client_id: {APP}\nmicrosoft_client_secret: {SECRET}\n\
         microsoft_tenant_id: {DIRECTORY}\n{further}"
    )
}

fn with(further: &str) -> TenantFixture {
    TenantFixture::alone(&lines(further))
}

fn login(drop: &TenantFixture) -> LoginSpec {
    drop.spec().access.login.map(|login| (*login).clone()).expect("a login")
}

fn entra(login: &LoginSpec) -> &EntraSpec {
    let ProviderSpec::Entra(entra) = &login.provider;
    entra
}

fn texts(texts: &[std::sync::Arc<str>]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

#[test]
fn three_values_and_a_switch_are_a_login_for_the_whole_directory() {
    for drop in [
        with(""),
        TenantFixture::export(&lines("")),
        TenantFixture::export("").file(
            "acme.env",
            format!(
                "OAUTH_ENABLED=true\nMICROSOFT_CLIENT_ID={}\nMICROSOFT_CLIENT_SECRET={SECRET}\nMICROSOFT_TENANT_ID={DIRECTORY}\n",
                APP.to_uppercase()
            ),
        ),
    ] {
        let login = login(&drop);
        let entra = entra(&login);
        assert_eq!(&*entra.client_id, APP);
        assert_eq!(entra.directory, DirectorySpec::One(DIRECTORY.into()));
        let secrets: Vec<&str> = entra.client_secrets.iter().map(|secret| secret.expose()).collect();
        assert_eq!(secrets, [SECRET]);
        assert!(login.rules.is_empty() && !entra.allow_guests && !entra.allow_personal_accounts);
        assert!(login.registration.dynamic);
        let spec = drop.spec();
        assert!(!spec.access.is_open());
        assert_eq!(spec.public_url.callback_url(), "https://mcp.test/acme/auth/ms-callback");
    }
}

#[test]
fn a_secret_is_rotated_with_overlap_and_may_lie_in_a_file() {
    let drop = with("microsoft_client_secret_next: canary~next-secret\n");
    let login = login(&drop);
    let secrets: Vec<&str> = entra(&login).client_secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(secrets, [SECRET, "canary~next-secret"]);

    // The operator's file wins over the export, in either form of the secret.
    let drop = TenantFixture::new()
        .zip("acme.zip", &format!("{SALES}{}", lines("")))
        .file("acme.yaml", "microsoft_client_secret: ${TENANT_ACME_KEY}\n");
    let login = drop.spec().access.login.expect("a login");
    let secrets = entra(&login).client_secrets.clone();
    assert_eq!(secrets[0].expose(), "variable-key-0001");
}

#[test]
fn rules_name_roles_groups_users_domains_and_single_tools() {
    let drop = with(&format!(
        "access:\n  roles: [Analyst, 'Data Admin']\n  groups: {}\n  users: [{APP}]\n  email_domains: Contoso.com\n  guests: yes\n\
         \x20 tools:\n    search: {{roles: [Analyst]}}\n    get_context: {{email_domains: [contoso.com]}}\n\
         tools: {{search: {{name: ask}}}}\n",
        DIRECTORY.to_uppercase()
    ));
    let login = login(&drop);
    assert_eq!(texts(&login.rules.roles), ["Analyst", "Data Admin"]);
    assert_eq!((texts(&login.rules.groups), texts(&login.rules.users)), (vec![DIRECTORY], vec![APP]));
    assert_eq!(texts(&login.rules.email_domains), ["contoso.com"]);
    assert!(entra(&login).allow_guests);
    // Keyed by the names that callers see.
    assert_eq!(login.tools.keys().map(|name| &**name).collect::<Vec<_>>(), ["ask", "get_context"]);
    assert_eq!(texts(&login.tools["ask"].roles), ["Analyst"]);
}

#[test]
fn several_directories_count_only_by_name() {
    let several = |tid: &str, access: &str| {
        TenantFixture::alone(
            &lines(access).replace(&format!("tenant_id: {DIRECTORY}"), &format!("tenant_id: {tid}")),
        )
    };
    let access = format!("access: {{directories: [{DIRECTORY}], personal_accounts: true}}\n");
    let common = login(&several("Common", &access));
    let expected = DirectorySpec::Several { audience: Audience::Common, allowed: vec![DIRECTORY.into()] };
    assert_eq!((&entra(&common).directory, entra(&common).allow_personal_accounts), (&expected, true));
    assert_eq!(several("organizations", "").codes(), ["login-invalid"]);
    assert_eq!(
        several("organizations", "access: {directories: []}\n").codes(),
        ["access-empty", "login-invalid"]
    );
    assert_eq!(several("organizations", &access).codes(), ["login-invalid"]);
    let domain = login(&several("contoso.onmicrosoft.com", ""));
    assert_eq!(entra(&domain).directory, DirectorySpec::One("contoso.onmicrosoft.com".into()));
}

#[test]
fn programs_have_clients_of_their_own() {
    let drop = with(&format!(
        "machine_clients:\n  - {{id: teams-agent, label: Teams agent, sha256: {}, roles: [Analyst]}}\n  - id: nightly\n\
         \x20   jwks: {{keys: [{{kty: EC, crv: P-256, kid: '1', x: AQAB, y: AQAB}}]}}\n",
        "0f".repeat(32)
    ));
    let clients = login(&drop).machine_clients;
    assert_eq!((&*clients[0].id, &*clients[0].label), ("teams-agent", "Teams agent"));
    assert_eq!(clients[0].secret, Digest::parse_hex(&"0f".repeat(32)));
    assert_eq!(texts(&clients[0].roles), ["Analyst"]);
    assert_eq!((&*clients[1].label, clients[1].secret), ("nightly", None));
    let jwks = clients[1].jwks.as_deref().expect("keys");
    assert_eq!(jwks, r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"AQAB","y":"AQAB"}]}"#);
}

#[test]
fn doors_for_clients_are_shut_one_by_one() {
    let registration = |lines: &str| login(&with(lines)).registration;
    assert_eq!(registration("registration: {dynamic: no}\n").documents, DocumentPolicy::Any);
    let off = registration("registration: {dynamic: false, documents: off}\n");
    assert_eq!((off.dynamic, off.documents), (false, DocumentPolicy::Off));
    let listed = registration("registration: {documents: [claude.ai, ChatGPT.com]}\n").documents;
    assert_eq!(listed, DocumentPolicy::Listed(vec!["claude.ai".into(), "chatgpt.com".into()]));
    for bad in ["some", "[any, claude.ai]", "[]", "[127.0.0.1]", "https://claude.ai"] {
        let drop = with(&format!("registration: {{documents: {bad}}}\n"));
        assert_eq!(drop.codes(), ["registration-invalid"], "{bad}");
    }
}

/// A refused change keeps the last good revision serving only if it changes nothing about who may
/// call.
#[test]
fn all_that_decides_who_may_call_is_in_the_fingerprint() {
    let fingerprint = |drop: &TenantFixture| drop.load().access_fingerprint;
    let base = fingerprint(&with("")).expect("certain");
    let machine = format!("machine_clients: [{{id: a, sha256: {}}}]\n", "0f".repeat(32));
    let other = format!("machine_clients: [{{id: a, sha256: {}}}]\n", "0e".repeat(32));
    let mut seen = vec![base];
    for further in [
        "access: {roles: [A]}\n",
        "access: {roles: [B]}\n",
        "access: {groups: [72f988bf-86f1-41af-91ab-2d7cd011db47]}\n",
        "access: {users: [72f988bf-86f1-41af-91ab-2d7cd011db47]}\n",
        "access: {email_domains: [contoso.com]}\n",
        "access: {guests: true}\n",
        "access: {tools: {search: {roles: [A]}}}\n",
        "access: {tools: {get_context: {roles: [A]}}}\n",
        "registration: {dynamic: false}\n",
        "registration: {documents: off}\n",
        "access_token_minutes: 15\n",
        &machine,
        &other,
        &machine.replace("id: a", "id: b"),
        &machine.replace("id: a", "id: a, roles: [A]"),
    ] {
        let digest = fingerprint(&with(further)).unwrap_or_else(|| panic!("certain: {further}"));
        assert!(!seen.contains(&digest), "{further}");
        seen.push(digest);
    }
    for (from, to) in [(APP, DIRECTORY), (DIRECTORY, APP), ("oauth_enabled: true", "oauth_enabled: false")] {
        let changed = TenantFixture::alone(&lines("").replace(from, to));
        assert!(!seen.contains(&fingerprint(&changed).expect("certain")), "{from}");
    }
    // Another title has nothing to do with who may call. A broken secret leaves no doubt about it,
    // a broken rule does.
    assert_eq!(fingerprint(&TenantFixture::with(&lines("display_name: Other\n"))), Some(base));
    assert!(fingerprint(&with("microsoft_client_secret_next: changeme\n")).is_some());
    assert_eq!(fingerprint(&with("access: {roles: []}\n")), None);
    assert_eq!(fingerprint(&with("access: {rolls: [A]}\n")), None);
}

#[test]
fn whatever_is_wrong_with_a_login_closes_the_tenant_in_words() {
    let jwks = |key: &str| format!("machine_clients:\n  - {{id: a, jwks: {{keys: [{key}]}}}}\n");
    let cases = vec![
        ("nothing but the switch", TenantFixture::alone("oauth_enabled: true\n")),
        (
            "placeholders",
            TenantFixture::alone(
                "oauth_enabled: yes\nmicrosoft_client_id: <client id>\nmicrosoft_client_secret: your-client-secret\nmicrosoft_tenant_id: your tenant\n",
            ),
        ),
        ("the secret's id", TenantFixture::alone(&lines("").replace(SECRET, DIRECTORY))),
        ("keys as well", with(&format!("api_keys: [{{sha256: {}}}]\n", "0f".repeat(32)))),
        (
            "rules without login",
            TenantFixture::alone("access: {roles: [A]}\nmachine_clients:\nregistration: {dynamic: no}\n"),
        ),
        ("rules, login off", TenantFixture::alone("oauth_enabled: false\naccess:\n")),
        (
            "rules that say nothing",
            with(
                "access:\n  roles:\n  users: [ada@contoso.com]\n  groups: [admins]\n  email_domains: ['@contoso.com']\n",
            ),
        ),
        ("blank rules", with("access:\n")),
        ("misspelt rules", with("access: {role: [A], tools: {serch: {roles: [A]}, search: {rolls: [A]}}}\n")),
        ("personal accounts of one directory", with("access: {personal_accounts: true}\n")),
        ("directories of one directory", with(&format!("access: {{directories: [{APP}]}}\n"))),
        ("consumers", TenantFixture::alone(&lines("").replace(DIRECTORY, "consumers"))),
        (
            "programs",
            with(&format!(
                "machine_clients:\n  - {{label: no id, sha256: x}}\n  - {{id: a.b, secret: canary-short}}\n  - {{id: c}}\n  - {{id: {APP}, secret: canary-canary-canary-canary}}\n  - {{id: d, secret: canary-canary-canary-canary, sha256: x}}\n"
            )),
        ),
        ("a program's private key", with(&jwks("{kty: EC, crv: P-256, x: a, y: a, d: canary}"))),
        ("a program's odd key", with(&jwks("{kty: OKP, crv: Ed25519, x: a}"))),
        ("no key", with(&jwks(""))),
        ("public as well", with("public: true\n")),
        ("guards in an export", TenantFixture::export("access: {roles: [A]}\nregistration: {dynamic: no}\n")),
        ("http", with("public_url: http://mcp.test/a\n")),
    ];
    let text: String = cases.iter().map(|(case, drop)| format!("## {case}\n{}\n", drop.findings())).collect();
    assert!(!text.contains("canary"), "{text}");
    insta::assert_snapshot!("login", text);
}

#[test]
fn a_login_over_plain_http_is_for_loopback() {
    for url in ["http://localhost:8080/a", "http://127.0.0.1/a", "https://mcp.test/a"] {
        assert_eq!(with(&format!("public_url: {url}\n")).codes(), [""; 0], "{url}");
    }
    let on = |base: &'static str| with("").context(|context| context.public_base = base.to_owned());
    assert_eq!(on("http://mcp.test").codes(), ["insecure-public-url"]);
    assert_eq!(on("http://localhost:8080").codes(), [""; 0]);
}

#[test]
fn a_misspelt_guard_is_an_error_and_another_unknown_name_is_not() {
    let guards = fields::TENANT.iter().filter(|field| fields::is_guard(field));
    let misspelt: Vec<String> = guards.map(|guard| format!("{}x", guard.name)).collect();
    assert!(misspelt.len() >= 9, "{misspelt:?}");
    for name in &misspelt {
        let findings = TenantFixture::alone(&format!("{name}: contoso\n")).findings();
        assert!(findings.contains(&format!("error[unknown-key] {name} ")), "{name}: {findings}");
    }
    let findings = TenantFixture::alone("colour: red\n").findings();
    assert!(!findings.contains("error[unknown-key]"), "{findings}");
}

#[test]
fn access_tokens_live_from_five_minutes_to_an_hour() {
    let minutes = |lines: &str| login(&with(lines)).access_token_lifetime.as_secs() / 60;
    assert_eq!((minutes(""), minutes("access_token_minutes: 5\n")), (60, 5));
    assert_eq!((minutes("access_token_minutes: '15'\n"), minutes("access_token_minutes: 60\n")), (15, 60));
    for bad in ["4", "61", "0", "-5", "15.5", "soon"] {
        let findings = with(&format!("access_token_minutes: {bad}\n")).findings();
        assert!(
            findings.contains("access_token_minutes") && findings.contains("acme.yaml:"),
            "{bad}: {findings}"
        );
    }
    assert_eq!(TenantFixture::with("access_token_minutes: 15\n").codes(), ["access-without-login"]);
}
