use std::fmt::Write;

use super::*;

fn load(flags: Flags, variables: &[(&str, &str)], file: Option<&str>) -> Result<LoadedSettings, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenantd.yaml");
    let file = file.map(|text| std::fs::write(&path, text).map(|()| path.as_path()).expect("written"));
    let environment: Environment = variables.iter().copied().collect();
    Settings::load(&flags, &environment, file)
}

fn settings(flags: Flags, variables: &[(&str, &str)], file: Option<&str>) -> Settings {
    load(flags, variables, file).expect("settings that can be run").settings
}

/// Returns all findings as text, without the name of the temporary folder.
fn findings(flags: Flags, variables: &[(&str, &str)], file: Option<&str>) -> String {
    let report = match load(flags, variables, file) {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.report,
    };
    report.iter().fold(String::new(), |mut text, finding| {
        let mut finding = finding.clone();
        if let Some(location) = &mut finding.location {
            location.file = location.file.file_name().expect("a file").into();
        }
        writeln!(text, "{:?} [{}] {finding}", finding.severity, finding.code).expect("a string");
        text
    })
}

fn addresses(list: &[impl ToString]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_written_gives_the_defaults() {
    let settings = settings(Flags::new(), &[], None);
    insta::assert_debug_snapshot!(settings);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = Some("listen: [127.0.0.1:1, 127.0.0.1:2]\nadmin: 'off'\nhost: file.example\nlog: json\n");
    let variables = [("TENANTD_LISTEN", "127.0.0.1:3, 127.0.0.1:4"), ("TENANTD_HOST", "env.example")];
    let settings = settings(Flags::new().with(SettingKey::LISTEN, ["127.0.0.1:5"]), &variables, file);
    assert_eq!(addresses(&settings.listen), ["127.0.0.1:5"]);
    assert_eq!(settings.hosts, [HostName::parse("env.example").expect("a host")]);
    assert_eq!(settings.admin, None);
    assert_eq!(settings.log, LogFormat::Json);
}

#[test]
fn where_backends_may_be_has_three_spellings() {
    let items = |settings: Settings| {
        settings.backend_only.items().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let file = Some("backend_only: [portal.example.com, '*.apps.example.com', 10.0.0.0/8]\n");
    let written = ["portal.example.com", "*.apps.example.com", "10.0.0.0/8"];
    assert_eq!(items(settings(Flags::new(), &[], file)), written);
    let variables = [("TENANTD_BACKEND_ONLY", "fd12::/16, 192.0.2.1")];
    assert_eq!(items(settings(Flags::new(), &variables, file)), ["fd12::/16", "192.0.2.1/32"]);
    let flags = Flags::new().with(SettingKey::BACKEND_ONLY, ["portal.example.net"]);
    assert_eq!(items(settings(flags, &variables, file)), ["portal.example.net"]);
}

#[test]
fn any_origin_that_a_client_may_have_can_be_let_in() {
    for (written, kept) in [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.example.com:443/", "https://app.example.com"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("null", "null"),
        ("file://", "file://"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("vscode-webview://0abc", "vscode-webview://0abc"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("tauri://localhost", "tauri://localhost"),
        ("capacitor://localhost", "capacitor://localhost"),
    ] {
        let settings = settings(Flags::new(), &[("TENANTD_ALLOWED_ORIGIN", written)], None);
        assert_eq!(settings.allowed_origins, [kept], "{written}");
    }
    for bad in [
        "*",
        "http://localhost:*",
        "https://*.example.com",
        "app://a/b",
        "://x",
        "App://x",
        "claude.ai",
        "app://a b",
    ] {
        let found = findings(Flags::new(), &[("TENANTD_ALLOWED_ORIGIN", bad)], None);
        assert!(found.contains("TENANTD_ALLOWED_ORIGIN"), "{bad}: {found}");
    }
}

#[test]
fn the_dot_of_a_full_name_makes_no_other_host() {
    let flags = Flags::new()
        .with(SettingKey::HOST, ["mcp.example.com."])
        .with(SettingKey::EXTRA_HOST, ["lb.internal."])
        .with(SettingKey::PUBLIC_BASE, ["https://mcp.example.com.:8443"]);
    let settings = settings(flags, &[], None);
    assert_eq!(settings.hosts, [HostName::parse("mcp.example.com").expect("a host")]);
    assert_eq!(
        settings.extra_hosts,
        ExtraHosts::These(vec![HostName::parse("lb.internal").expect("a host")])
    );
    assert_eq!(settings.public_base.as_deref(), Some("https://mcp.example.com:8443"));
}

#[test]
fn repeatable_settings_are_comma_separated_in_the_environment() {
    let settings = settings(Flags::new(), &[("TENANTD_LISTEN", "127.0.0.1:3,:4 , [::1]:5")], None);
    assert_eq!(addresses(&settings.listen), ["127.0.0.1:3", "0.0.0.0:4", "[::1]:5"]);
}

#[test]
fn a_blank_variable_is_an_unset_one() {
    assert_eq!(settings(Flags::new(), &[("TENANTD_TLS", " ")], Some("tls: manual")).tls, TlsMode::Manual);
}

#[test]
fn off_in_the_file_is_a_mode_and_true_is_a_switch() {
    let settings =
        settings(Flags::new(), &[], Some("tls: off\nadmin: off\nlisten: 127.0.0.1:0\nrequire_auth: true"));
    assert_eq!((settings.tls, settings.admin), (TlsMode::Off, None));
    assert_eq!(settings.open_tenants, OpenTenants::Refused);
}

#[test]
fn paths_in_the_file_start_at_its_folder() {
    let settings = settings(Flags::new().with(SettingKey::STATE, ["s"]), &[], Some("tenants: t\nstate: x\n"));
    assert!(settings.tenants.is_absolute() && settings.tenants.ends_with("t"), "{:?}", settings.tenants);
    assert_eq!(settings.state, Path::new("s"));
}

#[test]
fn limits_are_a_section() {
    let limits = settings(Flags::new(), &[], Some("limits:\n  connections: 5\n")).limits;
    assert_eq!(limits, Limits { connections: 5, ..Limits::default() });
}

#[test]
fn an_empty_file_is_fine() {
    assert_eq!(findings(Flags::new(), &[], Some("# nothing yet\n")), "");
}

#[test]
fn the_public_base_has_the_port_unless_it_is_the_schemes() {
    let base = |flags, port| settings(flags, &[], None).public_base(([127, 0, 0, 1], port).into());
    let host = || Flags::new().with(SettingKey::HOST, ["mcp.example.com", "other.example"]);
    let plain = || host().with(SettingKey::TLS, ["off"]);
    assert_eq!(base(host(), 443), "https://mcp.example.com");
    assert_eq!(base(host(), 8443), "https://mcp.example.com:8443");
    assert_eq!(base(plain(), 80), "http://mcp.example.com");
    assert_eq!(base(plain(), 443), "http://mcp.example.com:443");
    assert_eq!(base(Flags::new().with(SettingKey::HOST, ["::1"]), 8443), "https://[::1]:8443");
    let given = Flags::new().with(SettingKey::PUBLIC_BASE, ["https://MCP.example.com:443/"]);
    assert_eq!(base(given, 8443), "https://mcp.example.com");
}

#[test]
fn the_host_of_the_public_base_is_ours() {
    let settings =
        settings(Flags::new().with(SettingKey::PUBLIC_BASE, ["https://mcp.example.com:8443"]), &[], None);
    assert_eq!(settings.hosts, [HostName::parse("mcp.example.com").expect("a host")]);
}

#[test]
fn secrets_go_to_https_or_loopback_authorities_only() {
    let authority = |text| findings(Flags::new().with(SettingKey::ENTRA_AUTHORITY, [text]), &[], None);
    for good in
        ["https://login.microsoftonline.us", "http://127.0.0.1:9400/", "http://[::1]:1", "http://localhost:1"]
    {
        assert_eq!(authority(good), "", "{good}");
    }
    for bad in ["http://login.test", "https://h/tenant", "https://h/?a", "login.test", "data:x", "ftp://h"] {
        assert!(authority(bad).contains("entra-authority"), "{bad}");
    }
}

#[test]
fn every_bad_flag_is_named_with_what_to_write_instead() {
    let flags = Flags::new()
        .with(SettingKey::LISTEN, ["443", "127.0.0.1:70000"])
        .with(SettingKey::ADMIN, ["on"])
        .with(SettingKey::HOST, ["https://mcp.example.com", "a b"])
        .with(SettingKey::PUBLIC_BASE, ["https://mcp.example.com/base"])
        .with(SettingKey::TLS, ["acme"])
        .with(SettingKey::WATCH, ["inotify"])
        .with(SettingKey::LOG, ["debug"])
        .with(SettingKey::BACKEND_ALLOW, ["127.0.0.0/80"])
        .with(SettingKey::PRIVATE_NETWORKS, ["100.64.0.0/10", "::/0"])
        .with(SettingKey::BACKEND_ONLY, ["https://portal.example.com"]);
    insta::assert_snapshot!(findings(flags, &[], None));
}

#[test]
fn bad_variables_and_lines_are_named_as_they_were_written() {
    let file = "listen: nonsense\ntls: [manual, 'off']\nextra_host: any\nallowed_origin: claude.ai\n";
    let variables = [("TENANTD_REQUIRE_AUTH", "maybe"), ("TENANTD_OPEN_TENANTS", "some")];
    insta::assert_snapshot!(findings(Flags::new(), &variables, Some(file)));
}

#[test]
fn an_unknown_setting_in_the_file_is_refused_with_the_one_meant() {
    let all = [
        "tls: of\nlisen: 1\nhosts: a\n",
        "lisen: 1\n",
        "nothing_like_it: 1\n",
        "limits:\n  conections: 3\n",
        "tls: self-signed\ntls: off\n",
        "- a\n",
    ];
    let text = all.map(|file| findings(Flags::new(), &[], Some(file))).concat();
    insta::assert_snapshot!(text);
}

#[test]
fn a_missing_file_is_said() {
    let error =
        Settings::load(&Flags::new(), &Environment::default(), Some(Path::new("/nowhere/tenantd.yaml")));
    let report = error.expect_err("refused").report;
    assert!(report.iter().any(|finding| finding.code == "config-unreadable"));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let flags = Flags::new()
        .with(SettingKey::LISTEN, ["127.0.0.1:9900", "127.0.0.1:9900", "127.0.0.1:0", "127.0.0.1:0"])
        .with(SettingKey::STATE, ["tenants.d/state"])
        .with(SettingKey::REQUIRE_AUTH, ["true"]);
    let file = "open_tenants: public\nlimits: {connections: 0, drain_seconds: 0}\n";
    insta::assert_snapshot!(findings(flags, &[], Some(file)));
}

#[test]
fn risky_settings_are_warned_of() {
    let flags = Flags::new().with(SettingKey::TLS, ["off"]).with(SettingKey::ADMIN, ["0.0.0.0:9900"]);
    let variables = [
        ("TENANTD_TENANT", "x"),
        ("TENANTD_PORT", "tcp://10.0.0.1:443"),
        ("TENANTD_SERVICE_HOST", "10.0.0.1"),
        ("TENANTD_LOG_FILTER", "debug"),
        ("HOME", "/"),
    ];
    insta::assert_snapshot!(findings(flags, &variables, None));
    let base = Flags::new().with(SettingKey::PUBLIC_BASE, ["http://mcp.example.com"]);
    insta::assert_snapshot!(findings(base, &[], None));
}

#[test]
fn every_key_of_the_file_is_a_setting() {
    let file = SettingKey::ALL.iter().fold(String::new(), |text, key| text + &format!("{key}:\n"));
    assert_eq!(findings(Flags::new(), &[], Some(&file)), "");
}

#[test]
fn the_config_file_is_the_flags_then_the_variables() {
    let environment: Environment = [("TENANTD_CONFIG", "/b.yaml")].into_iter().collect();
    assert_eq!(config_path(Some(Path::new("/a.yaml")), &environment), Some("/a.yaml".into()));
    assert_eq!(config_path(None, &environment), Some("/b.yaml".into()));
}

#[test]
fn hsts_is_a_period_and_needs_tls() {
    let hsts =
        |text: &str| settings(Flags::new(), &[("TENANTD_HSTS", text)], None).hsts.map(|hsts| hsts.as_secs());
    assert_eq!(hsts("off"), None);
    for (text, seconds) in [("300", 300), ("300s", 300), ("5m", 300), ("12h", 43_200), ("365d", 31_536_000)] {
        assert_eq!(hsts(text), Some(seconds), "{text}");
    }
    for bad in ["d", "1y", "-1s", "1 d", "99999999999999999999d"] {
        assert!(findings(Flags::new(), &[("TENANTD_HSTS", bad)], None).contains("setting-invalid"), "{bad}");
    }
    let plain = Flags::new().with(SettingKey::TLS, ["off"]);
    assert!(findings(plain, &[("TENANTD_HSTS", "1d")], None).contains("hsts-without-tls"));
}

#[test]
fn the_database_of_logins_is_given_once() {
    let address = "postgres://tenantd@db.example.com/tenantd";
    let flags = Flags::new().with(SettingKey::STORE, [address]);
    assert_eq!(findings(flags.clone(), &[("TENANTD_STORE_PASSWORD_FILE", "password")], None), "");
    assert!(findings(flags, &[("TENANTD_STORE_FILE", "address")], None).contains("store-twice"));
    let password = [("TENANTD_STORE_PASSWORD_FILE", "password")];
    assert!(findings(Flags::new(), &password, None).contains("password-without-store"));
}

#[test]
fn headers_of_proxies_need_trusted_proxies() {
    for (key, value, code) in [
        (SettingKey::LISTEN, "0.0.0.0:443 proxy_protocol", "proxy-protocol-without-proxies"),
        (SettingKey::TENANT_LISTENERS, "0.0.0.0:8001-8009 proxy_protocol", "proxy-protocol-without-proxies"),
        (SettingKey::TRUSTED_PROXY_HOPS, "2", "hops-without-proxies"),
    ] {
        let flags = Flags::new().with(key, [value]);
        assert!(findings(flags.clone(), &[], None).contains(code), "{value}");
        let flags = flags.with(SettingKey::TRUSTED_PROXIES, ["10.0.0.1"]);
        assert_eq!(findings(flags, &[], None), "", "{value}");
    }
    for everybody in ["0.0.0.0/0", "::/0"] {
        let flags = Flags::new().with(SettingKey::TRUSTED_PROXIES, [everybody]);
        assert!(findings(flags, &[], None).contains("can claim any address"), "{everybody}");
    }
}

#[test]
fn no_listener_of_tenants_is_in_the_way_of_the_gateways() {
    let collide = |range: &str| {
        let flags = Flags::new().with(SettingKey::TENANT_LISTENERS, [range]);
        let flags =
            flags.with(SettingKey::LISTEN, ["127.0.0.1:8443"]).with(SettingKey::ADMIN, ["127.0.0.1:9900"]);
        findings(flags, &[], None).contains("listeners-collide")
    };
    assert!(collide("127.0.0.1:8440-8450") && collide("0.0.0.0:9900") && collide("0.0.0.0:8443"));
    assert!(!collide("127.0.0.1:8001-8099") && !collide("127.0.0.2:8443"));
}
