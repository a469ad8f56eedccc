use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::spec::{HostName, Mount, Prefix, ResourceSpelling, TenantName};

fn mount(text: &str) -> Mount {
    let (host, prefix) = text.split_at(text.find('/').expect("a prefix begins with a slash"));
    let host = (!host.is_empty()).then(|| HostName::parse(host).expect("a host"));
    Mount { listener: None, host, prefix: Prefix::parse(prefix).expect("a prefix") }
}

/// Builds a router whose values are the texts of the mounts.
fn router(mounts: &[&'static str]) -> Router<&'static str> {
    let mut router = Router::new();
    mounts.iter().for_each(|text| router.insert(&mount(text), *text));
    router
}

fn found(router: &Router<&'static str>, host: &str, path: &str) -> Option<(&'static str, Endpoint)> {
    router.main().find(host, path).map(|(value, endpoint)| (*value, endpoint))
}

#[test]
fn a_path_belongs_to_the_longest_whole_segment_prefix() {
    let router = router(&["/a", "/a/b", "/tenant-a"]);
    let cases = [
        ("/a/mcp", Some(("/a", Endpoint::Mcp))),
        ("/a", Some(("/a", Endpoint::Page))),
        ("/a/", Some(("/a", Endpoint::Page))),
        ("/a/token", Some(("/a", Endpoint::OAuth(OAuthEndpoint::Token)))),
        ("/a/token/", Some(("/a", Endpoint::OAuth(OAuthEndpoint::Token)))),
        ("/a/auth/ms-callback", Some(("/a", Endpoint::OAuth(OAuthEndpoint::Callback)))),
        ("/a/auth/", None),
        ("/a/auth/other", None),
        ("/a/b/mcp", Some(("/a/b", Endpoint::Mcp))),
        ("/a/b/", Some(("/a/b", Endpoint::Page))),
        ("/a/b/typo", None),
        ("/a/b/mcp/", Some(("/a/b", Endpoint::Mcp))),
        ("/a/typo", None),
        ("/a/mcp/", Some(("/a", Endpoint::Mcp))),
        ("/a/mcp/x/", None),
        ("/a/mcp/x", None),
        ("/A/mcp", None),
        ("/tenant-a/mcp", Some(("/tenant-a", Endpoint::Mcp))),
        ("/tenant-ab/mcp", None),
        ("/tenant-/mcp", None),
        ("/mcp", None),
        ("/", None),
        ("", None),
        ("*", None),
    ];
    for (path, expected) in cases {
        assert_eq!(found(&router, "localhost", path), expected, "{path}");
    }
}

#[test]
fn a_root_tenant_owns_exactly_its_own_paths() {
    let router = router(&["/", "/a"]);
    for (path, expected) in [
        ("/", Some(("/", Endpoint::Page))),
        ("/mcp", Some(("/", Endpoint::Mcp))),
        ("/authorize", Some(("/", Endpoint::OAuth(OAuthEndpoint::Authorize)))),
        ("/.well-known/oauth-protected-resource", Some(("/", resource(ResourceSpelling::Connector)))),
        ("/.well-known/oauth-protected-resource/", Some(("/", resource(ResourceSpelling::Base)))),
        ("/.well-known/oauth-protected-resource/mcp", Some(("/", resource(ResourceSpelling::Connector)))),
        (
            "/.well-known/oauth-authorization-server",
            Some(("/", Endpoint::Discovery(DiscoveryDocument::AuthorizationServer))),
        ),
        (
            "/.well-known/openid-configuration",
            Some(("/", Endpoint::Discovery(DiscoveryDocument::AuthorizationServer))),
        ),
        ("/.well-known/jwks.json", Some(("/", Endpoint::Discovery(DiscoveryDocument::Jwks)))),
        ("/typo/mcp", None),
        ("/typo", None),
        ("/a/mcp", Some(("/a", Endpoint::Mcp))),
        ("/a/authorise", None),
    ] {
        assert_eq!(found(&router, "localhost", path), expected, "{path}");
    }
}

#[test]
fn discovery_is_found_in_front_of_the_prefix_and_behind_it() {
    let router = router(&["/a", "/a/b"]);
    let server = |tenant| Some((tenant, Endpoint::Discovery(DiscoveryDocument::AuthorizationServer)));
    let resource = |tenant, spelling| Some((tenant, resource(spelling)));
    for (path, expected) in [
        ("/.well-known/oauth-authorization-server/a", server("/a")),
        ("/.well-known/oauth-authorization-server/a/", server("/a")),
        ("/.well-known/oauth-authorization-server/a/mcp", server("/a")),
        ("/.well-known/openid-configuration/a/b", server("/a/b")),
        ("/.well-known/openid-configuration/a/b/mcp", server("/a/b")),
        ("/a/.well-known/oauth-authorization-server", server("/a")),
        ("/a/b/.well-known/openid-configuration", server("/a/b")),
        ("/a/mcp/.well-known/openid-configuration", server("/a")),
        ("/.well-known/oauth-protected-resource/a", resource("/a", ResourceSpelling::Base)),
        ("/.well-known/oauth-protected-resource/a/", resource("/a", ResourceSpelling::Base)),
        ("/.well-known/oauth-protected-resource/a/mcp", resource("/a", ResourceSpelling::Connector)),
        ("/.well-known/oauth-protected-resource/a/mcp/", resource("/a", ResourceSpelling::ConnectorSlash)),
        ("/.well-known/oauth-protected-resource/a/b/mcp", resource("/a/b", ResourceSpelling::Connector)),
        ("/a/.well-known/oauth-protected-resource", resource("/a", ResourceSpelling::Connector)),
        ("/a/.well-known/oauth-protected-resource/", resource("/a", ResourceSpelling::Base)),
        ("/a/.well-known/oauth-protected-resource/mcp/", resource("/a", ResourceSpelling::ConnectorSlash)),
        ("/a/.well-known/oauth-protected-resource/mcp", resource("/a", ResourceSpelling::Connector)),
        ("/a/mcp/.well-known/oauth-protected-resource", resource("/a", ResourceSpelling::Connector)),
        ("/a/.well-known/jwks.json", Some(("/a", Endpoint::Discovery(DiscoveryDocument::Jwks)))),
        ("/.well-known/oauth-authorization-server", None),
        ("/.well-known/oauth-authorization-server/ab", None),
        ("/.well-known/oauth-authorization-server/a/typo", None),
        ("/.well-known/oauth-authorization-server/a/mcp/mcp", None),
        ("/.well-known/oauth-authorization-serverx/a", None),
        ("/a/.well-known/oauth-authorization-server/b", None),
        ("/.well-known/jwks.json/a", None),
        ("/.well-known/jwks.json", None),
        ("/.well-known/", None),
    ] {
        assert_eq!(found(&router, "localhost", path), expected, "{path}");
    }
}

fn resource(spelling: ResourceSpelling) -> Endpoint {
    Endpoint::Discovery(DiscoveryDocument::Resource(spelling))
}

#[test]
fn a_path_without_its_prefix_is_known_as_one() {
    for path in ["/authorize", "/token", "/register/", "/.well-known/oauth-authorization-server"] {
        assert!(Endpoint::is_missing_prefix(path), "{path}");
    }
    for path in ["/", "/mcp", "/typo", "/.well-known/acme-challenge/x"] {
        assert!(!Endpoint::is_missing_prefix(path), "{path}");
    }
}

#[test]
fn a_host_of_its_own_serves_only_what_is_mounted_there() {
    let router = router(&["/a", "mcp.acme.com/", "mcp.acme.com/x"]);
    assert!(router.main().is_tenant_host("mcp.acme.com") && !router.main().is_tenant_host("localhost"));
    assert_eq!(found(&router, "mcp.acme.com", "/mcp"), Some(("mcp.acme.com/", Endpoint::Mcp)));
    assert_eq!(found(&router, "mcp.acme.com", "/x/mcp"), Some(("mcp.acme.com/x", Endpoint::Mcp)));
    assert_eq!(found(&router, "mcp.acme.com", "/a/mcp"), None);
    assert_eq!(found(&router, "mcp.acme.com", "/.well-known/oauth-protected-resource/a"), None);
    assert_eq!(found(&router, "localhost", "/mcp"), None);
    assert_eq!(found(&router, "localhost", "/x/mcp"), None);
}

#[test]
fn each_odd_spelling_has_its_fault() {
    use PathError::*;
    for (path, fault) in [
        ("", NotOriginForm),
        ("*", NotOriginForm),
        ("a/mcp", NotOriginForm),
        ("http://h/a", NotOriginForm),
        ("//a/mcp", EmptySegment),
        ("/a//mcp", EmptySegment),
        ("/a/./mcp", DotSegment),
        ("/a/..", DotSegment),
        ("/a/..;x/mcp", DotSegment),
        ("/a%2Fmcp", Encoded),
        ("/a%5cmcp", Encoded),
        ("/%2e%2e/a", Encoded),
        ("/a%00", Encoded),
        ("/a%252f", Encoded),
        ("/a%2", Character),
        ("/a%zz", Character),
        ("/a\\mcp", Character),
        ("/ä/mcp", Character),
        ("/a b", Character),
        ("/a\u{7f}", Character),
    ] {
        assert_eq!(check_path(path), Err(fault), "{path:?}");
    }
    for path in
        ["/", "/a", "/a/", "/a/mcp", "/a/.well-known/x", "/a;v=1/mcp", "/%61cme", "/a..b/...", "/@:+,"]
    {
        assert_eq!(check_path(path), Ok(()), "{path}");
    }
}

/// Returns spellings that some parser might read as `path`.
fn tricks(path: &str) -> Vec<String> {
    let separators = [
        "%2f",
        "%2F",
        "%252f",
        "%5c",
        "\\",
        "//",
        "/./",
        "/.//",
        "/%2e/",
        "/x/../",
        "/x/%2e%2e/",
        "/x/..;/",
        "/;/",
        ";/",
        "/;v=1/",
        ";v=1/",
        "/%00/",
        "%00/",
        "/%20",
        "/ ",
        "\t/",
        "/%09",
        "\u{2215}",
        "\u{ff0f}",
        "%c0%af",
        "%e2%88%95",
        "/\u{200b}",
        "/%e2%80%8b",
        "./",
        "../",
        "%2e/",
        "/.%00/",
        "/%ff/",
        "?/",
        "#/",
        "%23/",
        "%3f/",
        ":/",
        "@/",
        "&/",
        "/\u{0}",
    ];
    let mut spellings: Vec<String> = separators
        .iter()
        .flat_map(|separator| [path.replacen('/', separator, 1), path.replace('/', separator)])
        .collect();
    for (at, _) in path.match_indices('/') {
        let (head, tail) = path.split_at(at);
        spellings.extend(separators.iter().map(|separator| format!("{head}{separator}{}", &tail[1..])));
    }
    let around = [
        "http://localhost",
        "https://evil.example",
        "//localhost",
        "/.",
        "/..",
        "/x/..",
        "/%2e%2e",
        " ",
        "\u{feff}",
    ];
    spellings.extend(around.iter().map(|front| format!("{front}{path}")));
    let behind = [
        "/", "//", "/.", "/..", "/%2e", ".", "%2e", ";", ";x=y", "%00", "\0", "%20", " ", "%0a", "\\", "..",
        "/x", "~",
    ];
    spellings.extend(behind.iter().map(|back| format!("{path}{back}")));
    spellings.extend([
        path.to_uppercase(),
        path.replace('b', "%62"),
        path.replace('b', "%2562"),
        path.replace('b', "\u{432}"),
    ]);
    spellings.extend([path.replace('c', "\u{441}"), path.replace('m', "%6d"), path.replace('b', "b\u{301}")]);
    spellings.retain(|spelling| spelling != path);
    spellings
}

/// Applies the server's rule: a refused path belongs to no tenant.
fn reached(router: &Router<&'static str>, path: &str) -> Option<&'static str> {
    check_path(path).ok()?;
    found(router, "localhost", path).map(|(tenant, _)| tenant)
}

#[test]
fn no_spelling_below_one_prefix_reaches_another_tenant() {
    let router = router(&["/a", "/b", "/a/deep/c"]);
    let targets = ["/b/mcp", "/b/token", "/b/.well-known/oauth-authorization-server", "/b"];
    let below_a: Vec<String> = targets
        .iter()
        .flat_map(|target| tricks(target).into_iter().chain([target.to_string()]))
        .flat_map(|spelling| {
            ["/a", "/a/", "/a/mcp", "/a/x/../..", "/a/%2e%2e", "/a/..;", "/a/.."]
                .map(|front| format!("{front}{spelling}"))
        })
        .collect();
    assert!(below_a.len() > 200);
    for path in &below_a {
        assert!(matches!(reached(&router, path), None | Some("/a")), "{path:?}");
    }
}

#[test]
fn a_tenants_path_has_one_spelling_but_for_a_slash_at_its_end() {
    let router = router(&["/a", "/b", "/a/deep/c"]);
    for target in ["/b/mcp", "/a/deep/c/mcp", "/.well-known/oauth-protected-resource/b/mcp"] {
        let spellings = tricks(target);
        assert!(spellings.len() > 100);
        for path in spellings.iter().filter(|path| **path != format!("{target}/")) {
            assert_eq!(reached(&router, path), None, "{path:?}");
        }
    }
}

/// Returns what `find` should return, by comparing texts: the simplest implementation that could
/// work.
fn naive(mounts: &[&str], path: &str) -> Option<(String, Endpoint)> {
    let of = |spelling| Endpoint::Discovery(DiscoveryDocument::Resource(spelling));
    let inside = [
        ("/mcp", Endpoint::Mcp),
        ("", Endpoint::Page),
        ("/authorize", Endpoint::OAuth(OAuthEndpoint::Authorize)),
        ("/token", Endpoint::OAuth(OAuthEndpoint::Token)),
        ("/auth/ms-callback", Endpoint::OAuth(OAuthEndpoint::Callback)),
        ("/.well-known/oauth-protected-resource", of(ResourceSpelling::Connector)),
        ("/.well-known/oauth-protected-resource/mcp", of(ResourceSpelling::Connector)),
        ("/mcp/.well-known/oauth-protected-resource", of(ResourceSpelling::Connector)),
    ];
    let plain = path.strip_suffix('/').unwrap_or(path);
    let slashed = |endpoint| match endpoint == of(ResourceSpelling::Connector) && path != plain {
        true if path.ends_with("/mcp/") => of(ResourceSpelling::ConnectorSlash),
        true if path.ends_with("/.well-known/oauth-protected-resource/")
            && !path.ends_with("/mcp/.well-known/oauth-protected-resource/") =>
        {
            of(ResourceSpelling::Base)
        }
        _ => endpoint,
    };
    let prefix = |mount: &&str| if *mount == "/" { String::new() } else { mount.to_string() };
    for (rest, spelling) in [("", ResourceSpelling::Base), ("/mcp", ResourceSpelling::Connector)] {
        let front =
            |mount: &&&str| plain == format!("/.well-known/oauth-protected-resource{}{rest}", prefix(mount));
        if let Some(mount) = mounts.iter().find(front) {
            let plain = if *mount == "/" && rest.is_empty() { ResourceSpelling::Connector } else { spelling };
            return Some((mount.to_string(), slashed(of(plain))));
        }
    }
    let holds = |mount: &&&str| path == prefix(mount) || path.starts_with(&format!("{}/", prefix(mount)));
    let mount = mounts.iter().filter(holds).max_by_key(|mount| prefix(mount).len())?;
    let endpoint = inside.iter().find(|(rest, _)| plain == format!("{}{rest}", prefix(mount)))?;
    Some((mount.to_string(), slashed(endpoint.1)))
}

const MOUNTS: [&str; 9] = ["/", "/a", "/A", "/ab", "/a/b", "/a/b/c", "/b", "/b.a", "/a/token/c"];

proptest! {
    #[test]
    fn find_agrees_with_a_naive_model(
        mounts in proptest::sample::subsequence(MOUNTS.to_vec(), 0..=MOUNTS.len()),
        segments in proptest::collection::vec(
            proptest::sample::select(vec!["a", "A", "ab", "b", "c", "b.a", "mcp", "authorize", "token", "auth",
                "ms-callback", ".well-known", "oauth-protected-resource", ""]), 0..6),
        well_known in any::<bool>(),
    ) {
        let front = if well_known { "/.well-known/oauth-protected-resource" } else { "" };
        let path = segments.iter().fold(front.to_owned(), |path, segment| format!("{path}/{segment}"));
        let actual = found(&router(&mounts), "localhost", &path).map(|(m, endpoint)| (m.to_owned(), endpoint));
        prop_assert_eq!(actual, naive(&mounts, &path), "{} among {:?}", path, mounts);
    }

    #[test]
    fn check_path_never_panics_and_what_passes_has_plain_segments(path in "/?(\\PC|[/.%;a-f0-9]){0,24}") {
        if check_path(&path).is_ok() {
            prop_assert!(path.starts_with('/') && path.is_ascii());
            prop_assert!(!path.contains("//") && !path.contains('\\'));
            prop_assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")));
        }
    }

    #[test]
    fn judge_agrees_with_a_naive_model(
        claims in proptest::collection::vec(
            (proptest::collection::vec(proptest::sample::select(CLAIMED.to_vec()), 1..3), any::<bool>()), 0..7),
    ) {
        let claims: Vec<MountClaim> = claims.iter().enumerate().map(|(n, (mounts, incumbent))| {
            let tenant = TenantName::parse(&format!("t{n}")).expect("a name");
            MountClaim { tenant, mounts: mounts.iter().map(|text| mount(text)).collect(), shares_hosts: true, is_incumbent: *incumbent }
        }).collect();
        let losers: BTreeMap<_, _> = find_conflicts(&claims).into_iter().map(|conflict| (conflict.loser.clone(), conflict)).collect();
        let granted = naive_grants(&claims);
        for claim in &claims {
            prop_assert_eq!(!losers.contains_key(&claim.tenant), granted.contains(&&claim.tenant), "{:?}", claim);
        }
        for conflict in losers.values() {
            prop_assert!(granted.contains(&&conflict.holder), "the holder of {:?} lost too", conflict);
        }
    }
}

const CLAIMED: [&str; 14] = [
    "/",
    "/a",
    "/A",
    "/b",
    "/a/b",
    "/a/mcp",
    "/a/MCP/x",
    "/mcp",
    "/a/auth/c",
    "/a/b/token",
    "h.example/",
    "h.example/a",
    "h.example/a/mcp",
    "/token/a",
];

fn naive_clash(one: &Mount, other: &Mount) -> bool {
    let text = |mount: &Mount| mount.prefix.as_str().to_ascii_lowercase();
    let takes = |owner: &Mount, taker: &Mount| {
        ["mcp", "authorize", "token", "register", "revoke", "introspect", "consent", "auth", ".well-known"]
            .iter()
            .any(|own| {
                let path = format!("{}/{own}", text(owner));
                text(taker) == path || text(taker).starts_with(&format!("{path}/"))
            })
    };
    one.host == other.host && (text(one) == text(other) || takes(one, other) || takes(other, one))
}

fn naive_grants(claims: &[MountClaim]) -> Vec<&TenantName> {
    let mut granted: Vec<&MountClaim> = Vec::new();
    for claim in claims.iter().filter(|c| c.is_incumbent).chain(claims.iter().filter(|c| !c.is_incumbent)) {
        let clash = |holder: &&MountClaim| {
            holder.mounts.iter().any(|held| claim.mounts.iter().any(|m| naive_clash(held, m)))
        };
        if !granted.iter().any(clash) {
            granted.push(claim);
        }
    }
    granted.into_iter().map(|claim| &claim.tenant).collect()
}

fn claim(tenant: &str, mounts: &[&str], incumbent: bool) -> MountClaim {
    let tenant = TenantName::parse(tenant).expect("a name");
    MountClaim {
        tenant,
        mounts: mounts.iter().map(|text| mount(text)).collect(),
        shares_hosts: true,
        is_incumbent: incumbent,
    }
}

fn verdicts(claims: &[MountClaim]) -> Vec<(String, String, String, ConflictKind)> {
    find_conflicts(claims)
        .into_iter()
        .map(|c| (c.loser.to_string(), c.holder.to_string(), c.mount.prefix.to_string(), c.kind))
        .collect()
}

fn lost(
    loser: &str,
    holder: &str,
    prefix: &str,
    kind: ConflictKind,
) -> Vec<(String, String, String, ConflictKind)> {
    vec![(loser.to_owned(), holder.to_owned(), prefix.to_owned(), kind)]
}

#[test]
fn the_incumbent_wins_whatever_the_order() {
    let claims = [claim("new", &["/a"], false), claim("old", &["/a"], true)];
    assert_eq!(verdicts(&claims), lost("new", "old", "/a", ConflictKind::Same));
}

#[test]
fn among_newcomers_the_first_wins() {
    let claims = [claim("one", &["/a"], false), claim("two", &["/A"], false)];
    assert_eq!(verdicts(&claims), lost("two", "one", "/A", ConflictKind::CaseOnly));
}

#[test]
fn a_prefix_cannot_take_an_endpoint_nor_be_robbed_of_one() {
    let claims = [claim("owner", &["/a"], true), claim("taker", &["/a/mcp/x"], false)];
    assert_eq!(verdicts(&claims), lost("taker", "owner", "/a/mcp/x", ConflictKind::TakesEndpoint));
    let claims = [claim("taker", &["/a/mcp"], true), claim("owner", &["/a"], false)];
    assert_eq!(verdicts(&claims), lost("owner", "taker", "/a", ConflictKind::TakesEndpoint));
}

#[test]
fn tenants_that_swap_prefixes_both_succeed() {
    let claims = [claim("one", &["/b"], true), claim("two", &["/a"], true)];
    assert_eq!(verdicts(&claims), vec![]);
}

#[test]
fn a_loser_holds_nothing_against_others() {
    let claims = [
        claim("holder", &["/a"], true),
        claim("loser", &["/free", "/a"], false),
        claim("other", &["/free"], false),
    ];
    assert_eq!(verdicts(&claims), lost("loser", "holder", "/a", ConflictKind::Same));
}

#[test]
fn nested_prefixes_and_other_hosts_are_no_conflict() {
    let claims = [
        claim("one", &["/a"], true),
        claim("two", &["/a/b"], false),
        claim("three", &["h.example/a", "h.example/"], false),
    ];
    assert_eq!(verdicts(&claims), vec![]);
}

#[test]
fn what_is_removed_is_found_no_more_and_older_copies_keep_it() {
    let mut router = router(&["/a", "/a/b/c", "h.example/x", "h.example/y"]);
    let before = router.clone();
    router.remove(&mount("/a/b/c"));
    router.remove(&mount("h.example/x"));
    assert_eq!(found(&router, "", "/a/b/c/mcp"), None);
    assert_eq!(found(&router, "", "/a/mcp"), Some(("/a", Endpoint::Mcp)));
    assert!(router.main().is_tenant_host("h.example"));
    router.remove(&mount("h.example/y"));
    router.remove(&mount("h.example/y"));
    router.remove(&mount("/nowhere/at/all"));
    assert!(!router.main().is_tenant_host("h.example") && router.tenant_hosts().count() == 0);
    assert_eq!(found(&before, "", "/a/b/c/mcp"), Some(("/a/b/c", Endpoint::Mcp)));
    assert_eq!(found(&before, "h.example", "/x/mcp"), Some(("h.example/x", Endpoint::Mcp)));
}

#[test]
fn rivals_are_exactly_the_holders_that_clash() {
    let mounts: Vec<Mount> = CLAIMED.iter().map(|text| mount(text)).collect();
    for missing in 0..mounts.len() {
        let mut index = super::MountIndex::new();
        mounts.iter().enumerate().for_each(|(holder, mount)| index.insert(mount, true, &holder));
        index.remove(&mounts[missing], true, &missing);
        for claimed in &mounts {
            let mut rivals: Vec<usize> = index.find_rivals(claimed, true).copied().collect();
            rivals.sort_unstable();
            rivals.dedup();
            let clashing = (0..mounts.len()).filter(|&n| n != missing && naive_clash(&mounts[n], claimed));
            assert_eq!(rivals, clashing.collect::<Vec<_>>(), "{claimed:?} without {:?}", mounts[missing]);
        }
    }
}

#[test]
fn the_second_of_those_who_share_a_host_keeps_the_first_from_having_it_alone() {
    let claims = [
        claim("a", &["own.example/a"], true),
        claim("b", &["own.example/b"], true),
        MountClaim { shares_hosts: false, ..claim("a", &["own.example/alone"], false) },
    ];
    let conflicts = find_conflicts(&claims);
    let who: Vec<_> =
        conflicts.iter().map(|one| (one.loser.as_str(), one.holder.as_str(), one.kind)).collect();
    assert_eq!(who, [("a", "b", ConflictKind::Host)]);
}
