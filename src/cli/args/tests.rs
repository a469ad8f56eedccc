use clap::CommandFactory;

use super::*;
use crate::settings::{Flags, Key};

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
    let verbs: [&[&str]; 13] = [
        &[],
        &["serve"],
        &["check"],
        &["tenants"],
        &["tenants", "list"],
        &["tenants", "show"],
        &["apikey"],
        &["apikey", "new"],
        &["healthcheck"],
        &["keys"],
        &["keys", "rotate"],
        &["demo"],
        &["completions"],
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
        Key::OPEN_TENANTS,
        Key::SECRET_ROOT,
        Key::CONFINE_TENANTS,
        Key::EXTRA_HOST,
        Key::ALLOWED_ORIGIN,
        Key::HSTS,
        Key::AUDIT,
        Key::AUDIT_FILES,
    ];
    for key in Key::ALL.into_iter().filter(|key| !no_flags.contains(key)) {
        assert!(flags.contains(&key.flag()), "{key}");
    }
    assert_eq!(flags.len(), Key::ALL.len() - no_flags.len() + ["--config", "--help"].len());
}

#[test]
fn flags_reach_the_settings() {
    let line = "tenantd serve --tenants t --state s --certs c --listen :1 --listen :2 --admin off --host h --public-base b \
                --tls off --watch poll --log json --require-auth --zip-hosts allow --backend-allow n --ready-file r \
                --private-networks p --private-networks q";
    let arguments = Arguments::try_parse_from(line.split_whitespace()).expect("understood");
    let Verb::Serve(serve) = arguments.verb else { panic!("another verb") };
    let expected = Flags::new()
        .with(Key::TENANTS, ["t"])
        .with(Key::STATE, ["s"])
        .with(Key::CERTS, ["c"])
        .with(Key::LISTEN, [":1", ":2"])
        .with(Key::ADMIN, ["off"])
        .with(Key::HOST, ["h"])
        .with(Key::PUBLIC_BASE, ["b"])
        .with(Key::TLS, ["off"])
        .with(Key::WATCH, ["poll"])
        .with(Key::LOG, ["json"])
        .with(Key::REQUIRE_AUTH, ["true"])
        .with(Key::ZIP_HOSTS, ["allow"])
        .with(Key::BACKEND_ALLOW, ["n"])
        .with(Key::READY_FILE, ["r"])
        .with(Key::PRIVATE_NETWORKS, ["p", "q"]);
    assert_eq!(serve.rules.flags(serve.gateway.flags(Flags::new())), expected);
}
