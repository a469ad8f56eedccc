use clap::CommandFactory;

use super::*;
use crate::settings::{Flags, SettingKey};

/// Returns the help of a command, at the widest terminal width that it is laid out for.
fn help(path: &[&str]) -> String {
    let mut command = Arguments::command().term_width(100);
    command.build();
    let verb =
        path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).expect("a verb"));
    verb.render_long_help().to_string()
}

#[test]
fn every_verb_explains_itself() {
    let verbs: [&[&str]; 22] = [
        &[],
        &["serve"],
        &["run"],
        &["container"],
        &["check"],
        &["migrate"],
        &["tenants"],
        &["tenants", "list"],
        &["tenants", "show"],
        &["usage"],
        &["audit"],
        &["apikey"],
        &["apikey", "new"],
        &["healthcheck"],
        &["keys"],
        &["keys", "rotate"],
        &["logins"],
        &["logins", "end"],
        &["logins", "block"],
        &["demo"],
        &["completions"],
        &["man"],
    ];
    for path in verbs {
        let name = ["help"].iter().chain(path).copied().collect::<Vec<_>>().join("_");
        insta::assert_snapshot!(name, help(path));
    }
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn every_flag_is_a_setting_of_its_name() {
    let mut command = Arguments::command();
    command.build();
    let serve = command.find_subcommand("serve").expect("a verb");
    let flags: Vec<String> =
        serve.get_arguments().filter_map(|flag| Some(format!("--{}", flag.get_long()?))).collect();
    let no_flags = [
        SettingKey::OPEN_TENANTS,
        SettingKey::HOLD_CHANGES,
        SettingKey::SECRET_ROOT,
        SettingKey::CONFINE_TENANTS,
        SettingKey::EXTRA_HOST,
        SettingKey::ALLOWED_ORIGIN,
        SettingKey::HSTS,
        SettingKey::AUDIT,
        SettingKey::AUDIT_FILES,
        SettingKey::LOG_FILTER,
    ];
    for key in SettingKey::ALL.into_iter().filter(|key| !no_flags.contains(key)) {
        assert!(flags.contains(&key.flag()), "{key}");
    }
    assert_eq!(flags.len(), SettingKey::ALL.len() - no_flags.len() + ["--config", "--help"].len());
}

#[test]
fn flags_reach_the_settings() {
    let line = "tenantd serve --tenants t --state s --certs c --listen :1 --listen :2 --admin off --host h --public-base b \
                --tls off --watch poll --log json --require-auth --zip-hosts allow --backend-allow n --ready-file r \
                --private-networks p --private-networks q";
    let arguments = Arguments::try_parse_from(line.split_whitespace()).expect("understood");
    let Verb::Serve(serve) = arguments.verb else { panic!("another verb") };
    let expected = Flags::new()
        .with(SettingKey::TENANTS, ["t"])
        .with(SettingKey::STATE, ["s"])
        .with(SettingKey::CERTS, ["c"])
        .with(SettingKey::LISTEN, [":1", ":2"])
        .with(SettingKey::ADMIN, ["off"])
        .with(SettingKey::HOST, ["h"])
        .with(SettingKey::PUBLIC_BASE, ["b"])
        .with(SettingKey::TLS, ["off"])
        .with(SettingKey::WATCH, ["poll"])
        .with(SettingKey::LOG, ["json"])
        .with(SettingKey::REQUIRE_AUTH, ["true"])
        .with(SettingKey::ZIP_HOSTS, ["allow"])
        .with(SettingKey::BACKEND_ALLOW, ["n"])
        .with(SettingKey::READY_FILE, ["r"])
        .with(SettingKey::PRIVATE_NETWORKS, ["p", "q"]);
    assert_eq!(serve.validation.flags(serve.gateway.flags(Flags::new())), expected);
}
