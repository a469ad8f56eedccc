//! What interferes between clients and the gateway, what it means, and the lines to change for each
//! proxy. The tables of such lines are below; tests apply NGINX's and Traefik's to real ones.
//!
//! Words in capitals stand for the reader's own names. A comment of NGINX's has what to remove in
//! backticks. Traefik's lines are those of its files; a
//! line `remove … from the router's middlewares` has its middlewares by their kinds.

mod refusals;
mod routing;
mod transport;

use super::super::verdict::ProxyChange;

/// How something between clients and the gateway interferes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interference {
    DropsWellKnown,
    DropsPath,
    RewritesPath,
    ChangesHost,
    HidesCaller,
    DropsAuthorization,
    DropsChallenge,
    ChangesAnswer,
    ChangesRequest,
    AnswersItself,
    Authenticates,
    Forbids,
    RefusesMethod,
    LimitsRate,
    Redirects,
    RedirectsToHttp,
    BodyLimit,
    HeaderLimit,
    Timeout,
    BadGateway,
    BreaksOff,
    Unreachable,
    Buffers,
    CutsStreams,
    OldProtocol,
}

/// What an interference means and how it is ended.
struct Remedy {
    code: &'static str,
    meaning: &'static str,
    advice: &'static str,
    nginx: &'static str,
    traefik: &'static str,
    application_gateway: &'static str,
}

/// What the lines have to name.
pub(super) struct ProxyPlace<'a> {
    pub(super) prefix: &'a str,
    pub(super) host: &'a str,
    /// The URL of the gateway, as a proxy reaches it.
    pub(super) upstream: &'a str,
    /// What the `Server` header of a proxy's own answer says.
    pub(super) server: Option<&'a str>,
}

/// What an NGINX does to forward all of a tenant's requests as they are.
const NGINX_FORWARDING: &str = "proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Host $http_host; \
                                proxy_set_header X-Forwarded-For $remote_addr;";
/// The paths below which a tenant's requests are.
const TENANT_PATHS: [&str; 4] = [
    "{prefix}/",
    "/.well-known/oauth-authorization-server{prefix}",
    "/.well-known/oauth-protected-resource{prefix}",
    "/.well-known/openid-configuration{prefix}",
];

/// Writes the lines of NGINX out: `{locations}` and `{well-known}` stand for a location for each
/// path that a tenant has, and for each of its metadata; what follows up to `;` is in each, too.
fn write_out_locations(lines: &str) -> String {
    let write = |line: &str| {
        let (paths, more) = match line.strip_prefix("{locations}") {
            Some(more) => (&TENANT_PATHS[..], more),
            None => (&TENANT_PATHS[1..], line.strip_prefix("{well-known}")?),
        };
        let location = |path: &&str| format!("location {path} {{{more} {NGINX_FORWARDING} }}");
        Some(paths.iter().map(location).collect::<Vec<_>>().join("\n"))
    };
    lines.lines().map(|line| write(line).unwrap_or_else(|| line.to_owned())).collect::<Vec<_>>().join("\n")
}

impl Interference {
    pub(super) fn code(self) -> &'static str {
        self.remedy().code
    }

    pub(super) fn meaning(self) -> &'static str {
        self.remedy().meaning
    }

    pub(super) fn advice(self) -> &'static str {
        self.remedy().advice
    }

    /// Returns the lines to change, the product that answered first.
    pub(super) fn changes(self, place: &ProxyPlace<'_>) -> Vec<ProxyChange> {
        let remedy = self.remedy();
        let mut changes = vec![
            ("NGINX", write_out_locations(remedy.nginx)),
            ("Traefik", remedy.traefik.to_owned()),
            ("Application Gateway", remedy.application_gateway.to_owned()),
        ];
        changes.retain(|(_, lines)| !lines.is_empty());
        let server = place.server.unwrap_or_default().to_ascii_lowercase();
        let recognized = match () {
            () if server.contains("application-gateway") => "Application Gateway",
            () if server.contains("nginx") => "NGINX",
            () => "",
        };
        changes.sort_by_key(|(product, _)| *product != recognized);
        let fill = |lines: &str| {
            lines
                .replace("{prefix}", place.prefix)
                .replace("{host}", place.host)
                .replace("{upstream}", place.upstream)
        };
        changes.into_iter().map(|(product, lines)| ProxyChange { product, lines: fill(&lines) }).collect()
    }

    fn remedy(self) -> &'static Remedy {
        match self {
            Self::DropsWellKnown => &routing::DROPS_WELL_KNOWN,
            Self::DropsPath => &routing::DROPS_PATH,
            Self::RewritesPath => &routing::REWRITES_PATH,
            Self::ChangesHost => &routing::CHANGES_HOST,
            Self::HidesCaller => &routing::HIDES_CALLER,
            Self::AnswersItself => &routing::ANSWERS_ITSELF,
            Self::Redirects => &routing::REDIRECTS,
            Self::RedirectsToHttp => &routing::REDIRECTS_TO_HTTP,
            Self::DropsAuthorization => &refusals::DROPS_AUTHORIZATION,
            Self::DropsChallenge => &refusals::DROPS_CHALLENGE,
            Self::ChangesAnswer => &refusals::CHANGES_ANSWER,
            Self::ChangesRequest => &refusals::CHANGES_REQUEST,
            Self::Authenticates => &refusals::AUTHENTICATES,
            Self::Forbids => &refusals::FORBIDS,
            Self::RefusesMethod => &refusals::REFUSES_METHOD,
            Self::LimitsRate => &refusals::LIMITS_RATE,
            Self::BodyLimit => &transport::BODY_LIMIT,
            Self::HeaderLimit => &transport::HEADER_LIMIT,
            Self::Timeout => &transport::TIMEOUT,
            Self::BadGateway => &transport::BAD_GATEWAY,
            Self::BreaksOff => &transport::BREAKS_OFF,
            Self::Unreachable => &transport::UNREACHABLE,
            Self::Buffers => &transport::BUFFERS,
            Self::CutsStreams => &transport::CUTS_STREAMS,
            Self::OldProtocol => &transport::OLD_PROTOCOL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands of Azure CLI 2.91 after `az network application-gateway`, with those of their
    /// options that are printed. Its parser took all printed lines, up to the login that is missing
    /// here.
    const AZURE_COMMANDS: [(&str, &[&str]); 9] = [
        (
            "url-path-map rule create",
            &["--gateway-name", "--path-map-name", "-n", "--address-pool", "--http-settings", "--paths"],
        ),
        (
            "http-settings update",
            &[
                "--gateway-name",
                "-n",
                "--path",
                "--host-name",
                "--host-name-from-backend-pool",
                "--timeout",
                "--probe",
            ],
        ),
        ("address-pool update", &["--gateway-name", "-n", "--servers"]),
        ("probe create", &["--gateway-name", "-n", "--protocol", "--path", "--host"]),
        ("rewrite-rule list", &["--gateway-name", "--rule-set-name"]),
        (
            "waf-policy custom-rule create",
            &["--policy-name", "-n", "--priority", "--rule-type", "--action", "--match-conditions"],
        ),
        ("waf-policy custom-rule list", &["--policy-name"]),
        ("waf-policy policy-setting update", &["--policy-name", "--request-body-enforcement"]),
        ("update", &["-n", "--set"]),
    ];

    const REMEDIES: [&Remedy; 25] = [
        &routing::DROPS_WELL_KNOWN,
        &routing::DROPS_PATH,
        &routing::REWRITES_PATH,
        &routing::CHANGES_HOST,
        &routing::HIDES_CALLER,
        &routing::ANSWERS_ITSELF,
        &routing::REDIRECTS,
        &routing::REDIRECTS_TO_HTTP,
        &refusals::DROPS_AUTHORIZATION,
        &refusals::DROPS_CHALLENGE,
        &refusals::CHANGES_ANSWER,
        &refusals::CHANGES_REQUEST,
        &refusals::AUTHENTICATES,
        &refusals::FORBIDS,
        &refusals::REFUSES_METHOD,
        &refusals::LIMITS_RATE,
        &transport::BODY_LIMIT,
        &transport::HEADER_LIMIT,
        &transport::TIMEOUT,
        &transport::BAD_GATEWAY,
        &transport::BREAKS_OFF,
        &transport::UNREACHABLE,
        &transport::BUFFERS,
        &transport::CUTS_STREAMS,
        &transport::OLD_PROTOCOL,
    ];

    /// The commands for an Application Gateway cannot be run here; this much can be known of them.
    #[test]
    fn the_lines_for_an_application_gateway_are_commands_that_there_are() {
        let mut checked = 0;
        for line in REMEDIES.iter().flat_map(|remedy| remedy.application_gateway.lines()) {
            let Some(rest) = line.strip_prefix("az network application-gateway ") else {
                assert!(line.starts_with("# "), "neither a command nor a comment: {line}");
                continue;
            };
            let (command, options) = AZURE_COMMANDS
                .iter()
                .find(|(command, _)| rest.starts_with(&format!("{command} -g GROUP ")))
                .unwrap_or_else(|| panic!("not known: {line}"));
            for word in rest[command.len()..].split_whitespace().filter(|word| word.starts_with('-')) {
                assert!(word == "-g" || options.contains(&word), "{command} has no {word}");
            }
            checked += 1;
        }
        assert!(checked > 15, "the lines were not understood");
    }

    #[test]
    fn the_product_that_answered_is_named_first_and_the_lines_are_filled_in() {
        let upstream = "http://127.0.0.1:8080";
        let place = |server| ProxyPlace { prefix: "/a", host: "h.test", upstream, server };
        let of = |server| Interference::DropsWellKnown.changes(&place(server));
        let products = |server| of(server).iter().map(|change| change.product).collect::<Vec<_>>();
        assert_eq!(products(Some("nginx/1.26")), ["NGINX", "Traefik", "Application Gateway"]);
        assert_eq!(products(Some("Microsoft-Azure-Application-Gateway/v2"))[0], "Application Gateway");
        assert_eq!(
            of(None)[0].lines.lines().next(),
            Some(
                "location /.well-known/oauth-authorization-server/a { proxy_pass http://127.0.0.1:8080; \
                 proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For \
                 $remote_addr; }"
            )
        );
        assert!(
            of(None)
                .iter()
                .all(|change| !change.lines.contains("{prefix}") && !change.lines.contains("{host}"))
        );
    }
}
