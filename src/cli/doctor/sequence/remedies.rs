//! What interferes between clients and the gateway, what it means, and the line to change for each
//! proxy. This is the one table of such lines.

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
    /// The gateway's address, as a proxy reaches it.
    pub(super) upstream: &'a str,
    /// What the `Server` header of a proxy's own answer says.
    pub(super) server: Option<&'a str>,
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
            ("NGINX", remedy.nginx),
            ("Traefik", remedy.traefik),
            ("Application Gateway", remedy.application_gateway),
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
        changes.into_iter().map(|(product, lines)| ProxyChange { product, lines: fill(lines) }).collect()
    }

    fn remedy(self) -> Remedy {
        match self {
            Self::DropsWellKnown => Remedy {
                code: "well-known-dropped",
                meaning: "the client does not find the login: \"registration failed\", 404, or it asks for nothing",
                advice: "let the proxy forward the host's /.well-known/ to the gateway, too, without rewriting",
                nginx: "location /.well-known/oauth-authorization-server{prefix} { proxy_pass http://{upstream}; }\n\
                        location /.well-known/oauth-protected-resource{prefix} { proxy_pass http://{upstream}; }\n\
                        location /.well-known/openid-configuration{prefix} { proxy_pass http://{upstream}; }",
                traefik: "match: Host(`{host}`) && (PathPrefix(`/.well-known/oauth-authorization-server{prefix}`) || \
                          PathPrefix(`/.well-known/oauth-protected-resource{prefix}`) || \
                          PathPrefix(`/.well-known/openid-configuration{prefix}`))",
                application_gateway: "path rule: /.well-known/oauth-authorization-server{prefix}, \
                                      /.well-known/openid-configuration{prefix}, \
                                      /.well-known/oauth-protected-resource{prefix} -> the gateway's backend pool",
            },
            Self::DropsPath => Remedy {
                code: "path-dropped",
                meaning: "the client gets the proxy's own 404",
                advice: "let the proxy forward everything below the prefix",
                nginx: "location {prefix}/ { proxy_pass http://{upstream}; }",
                traefik: "match: Host(`{host}`) && PathPrefix(`{prefix}`)",
                application_gateway: "path rule: {prefix}/* -> the gateway's backend pool",
            },
            Self::RewritesPath => Remedy {
                code: "path-rewritten",
                meaning: "the gateway gets another path than the client asked for, and knows no tenant there",
                advice: "let the proxy forward the path unchanged",
                nginx: "proxy_pass http://{upstream};   # no path after the port, no `rewrite`",
                traefik: "remove the middleware StripPrefix (or ReplacePath, AddPrefix) from the router",
                application_gateway: "backend settings: leave \"Override backend path\" empty; rewrites: none on this rule",
            },
            Self::ChangesHost => Remedy {
                code: "host-changed",
                meaning: "the gateway gets another host name than the client asked for, and is not responsible for it",
                advice: "let the proxy forward the Host header; or name the other host with --host or extra_host",
                nginx: "proxy_set_header Host $http_host;",
                traefik: "loadBalancer: { passHostHeader: true }",
                application_gateway: "backend settings: \"Override with new host name\" No",
            },
            Self::HidesCaller => Remedy {
                code: "caller-hidden",
                meaning: "the gateway does not learn who calls, or takes the proxy for the caller, and refuses",
                advice: "name the proxy in trusted_proxies (--trusted-proxies), and let it send X-Forwarded-For. A \
                         tenant without login and key answers private networks only, unless it has `public: true`",
                nginx: "proxy_set_header X-Forwarded-For $remote_addr;",
                traefik: "nothing: it sends X-Forwarded-For; behind another proxy set entryPoints.….forwardedHeaders.trustedIPs",
                application_gateway: "nothing: it sends X-Forwarded-For; name its subnet in trusted_proxies",
            },
            Self::DropsAuthorization => Remedy {
                code: "authorization-dropped",
                meaning: "the gateway does not get the client's token or key: every call is refused with 401",
                advice: "let the proxy forward the Authorization header, and switch off its own authentication",
                nginx: "remove `proxy_set_header Authorization …` and `auth_basic` from this location",
                traefik: "remove the middlewares basicAuth, forwardAuth (or set authResponseHeaders) and headers.\
                          customRequestHeaders.Authorization",
                application_gateway: "rewrites: no rule that removes or sets the request header Authorization",
            },
            Self::DropsChallenge => Remedy {
                code: "challenge-dropped",
                meaning: "the client is refused and does not learn where to log in",
                advice: "let the proxy pass the header WWW-Authenticate of the answer",
                nginx: "remove `proxy_hide_header WWW-Authenticate;` and `proxy_intercept_errors on;`",
                traefik: "remove headers.customResponseHeaders.WWW-Authenticate and the middleware errors",
                application_gateway: "rewrites: no rule that removes the response header WWW-Authenticate; no custom error page for 401",
            },
            Self::ChangesAnswer => Remedy {
                code: "answer-changed",
                meaning: "the client gets another answer than the gateway gave; clients compare these values letter by letter",
                advice: "let the proxy pass answers unchanged, and cache nothing below the prefix and /.well-known/",
                nginx: "remove `sub_filter`, `proxy_intercept_errors`, `proxy_cache` and `add_header Content-Type` here",
                traefik: "remove plugins that rewrite bodies, and the middleware errors",
                application_gateway: "rewrites: none on this rule; no custom error pages",
            },
            Self::ChangesRequest => Remedy {
                code: "request-changed",
                meaning: "the gateway gets another request than the client sent, and refuses it",
                advice: "let the proxy pass method, body and headers unchanged",
                nginx: "remove `proxy_method`, `proxy_set_body`, `proxy_pass_request_headers off` and `proxy_set_header \
                        Content-Type` here",
                traefik: "remove headers.customRequestHeaders and method rewrites from the router",
                application_gateway: "rewrites: none on the request headers Content-Type and Accept",
            },
            Self::AnswersItself => Remedy {
                code: "answered-by-proxy",
                meaning: "a page comes in place of the gateway's answer: a login of its own, a challenge for browsers, \
                          or a default site",
                advice: "take the prefix and /.well-known/ out of that page's reach: clients are programs and cannot use it",
                nginx: "location {prefix}/ { auth_request off; proxy_pass http://{upstream}; }",
                traefik: "remove forwardAuth from this router, and give the router a higher priority",
                application_gateway: "listener: the rule for {host} -> the gateway's backend pool; a CDN in front: no \
                                      browser challenge here",
            },
            Self::Authenticates => Remedy {
                code: "proxy-authenticates",
                meaning: "the proxy demands a credential of its own, which no client has",
                advice: "switch the proxy's own authentication off below the prefix and /.well-known/",
                nginx: "auth_basic off;",
                traefik: "remove the middlewares basicAuth, digestAuth, forwardAuth from the router",
                application_gateway: "listener: no mutual authentication for this host",
            },
            Self::Forbids => Remedy {
                code: "proxy-forbids",
                meaning: "a firewall of the proxy (WAF, allow-list, bot protection) refuses the client",
                advice: "exclude the prefix and /.well-known/ from the rule that the proxy's log names; JSON-RPC and \
                         URLs in forms often meet rules against injections",
                nginx: "location {prefix}/ { modsecurity off; allow all; proxy_pass http://{upstream}; }",
                traefik: "remove ipAllowList (ipWhiteList) and WAF plugins from the router",
                application_gateway: "WAF policy: an exclusion or a custom rule \"Allow\" for {prefix}/* and /.well-known/*",
            },
            Self::RefusesMethod => Remedy {
                code: "method-refused",
                meaning: "the proxy lets no POST through, and MCP consists of POSTs",
                advice: "allow GET, POST, DELETE and OPTIONS below the prefix",
                nginx: "remove `limit_except GET { deny all; }` from this location",
                traefik: "remove Method(`GET`) from the router's rule",
                application_gateway: "WAF policy: no custom rule on the request method for {prefix}/*",
            },
            Self::LimitsRate => Remedy {
                code: "proxy-limits-rate",
                meaning: "the proxy limits how often clients may call; hosted clients share a few addresses",
                advice: "raise the proxy's limit; the gateway has limits of its own for each caller",
                nginx: "remove `limit_req` here, or raise its rate and burst",
                traefik: "remove the middleware rateLimit (and inFlightReq), or raise average and burst",
                application_gateway: "WAF policy: no rate limit rule for {prefix}/*, or a higher threshold",
            },
            Self::Redirects => Remedy {
                code: "proxy-redirects",
                meaning: "clients do not follow a redirect of a POST, or follow it as a GET",
                advice: "use the URL that the redirect leads to in the clients, or answer here without a redirect",
                nginx: "remove `return 301 …` and `rewrite … redirect` from this location",
                traefik: "remove redirectRegex and redirectScheme from this router",
                application_gateway: "the rule's type: backend pool, not redirection",
            },
            Self::RedirectsToHttp => Remedy {
                code: "redirects-to-http",
                meaning: "the client is led from https to plain http, which it refuses",
                advice: "do not redirect here; if it must be, then to https",
                nginx: "return 308 https://$host$request_uri;   # in the server of port 80 only",
                traefik: "redirectScheme: { scheme: https } on the entry point web only",
                application_gateway: "redirect only from the listener of port 80 to that of port 443",
            },
            Self::BodyLimit => Remedy {
                code: "body-limit",
                meaning: "the proxy refuses requests that the gateway would take: long questions fail",
                advice: "raise the proxy's limit to the tenant's `max_request`",
                nginx: "client_max_body_size 16m;",
                traefik: "middleware buffering: { maxRequestBodyBytes: 16777216 }, or remove it",
                application_gateway: "WAF policy: a higher \"Max request body size\", or no inspection of bodies here",
            },
            Self::HeaderLimit => Remedy {
                code: "header-limit",
                meaning: "the proxy refuses long headers: tokens and the cookies of a login are long",
                advice: "raise the proxy's limit to 16 KiB",
                nginx: "large_client_header_buffers 4 16k;",
                traefik: "entryPoints.websecure.http.maxHeaderBytes: 65536",
                application_gateway: "nothing: its limit is 32 KB; look for another proxy on the way",
            },
            Self::Timeout => Remedy {
                code: "proxy-timeout",
                meaning: "the proxy waits in vain for the gateway, or gives up too early: it leads to the wrong address, or \
                          a firewall is between",
                advice: "check the address that the proxy forwards to, and its timeouts",
                nginx: "proxy_pass http://{upstream};\nproxy_read_timeout 3600s;",
                traefik: "loadBalancer: { servers: [{ url: \"http://{upstream}\" }] }\n\
                          serversTransport: { forwardingTimeouts: { responseHeaderTimeout: 0s } }",
                application_gateway: "backend settings: \"Request time-out\" at least the tenant's deadline; backend pool: \
                                      the gateway's address",
            },
            Self::BadGateway => Remedy {
                code: "bad-gateway",
                meaning: "the proxy does not reach the gateway, speaks the wrong protocol to it (http, https), or its probe \
                          fails",
                advice: "compare address, port and scheme with the gateway's listener; the probe's path is /-/healthz",
                nginx: "proxy_pass http://{upstream};\nproxy_buffer_size 16k;",
                traefik: "loadBalancer: { servers: [{ url: \"http://{upstream}\" }], healthCheck: { path: /-/healthz } }",
                application_gateway: "backend settings: protocol and port of {upstream}; custom probe: path /-/healthz, any host",
            },
            Self::BreaksOff => Remedy {
                code: "answer-broken-off",
                meaning: "the connection is closed before the answer is complete",
                advice: "look for the reason in the proxy's log",
                nginx: "error_log … info;   # says why",
                traefik: "accessLog: {} and log: { level: DEBUG }",
                application_gateway: "diagnostic settings: the access log",
            },
            Self::Unreachable => Remedy {
                code: "public-unreachable",
                meaning: "no client connects",
                advice: "see ports and certificate above",
                nginx: "",
                traefik: "",
                application_gateway: "",
            },
            Self::Buffers => Remedy {
                code: "stream-buffered",
                meaning: "events arrive only when the answer ends: long calls seem to hang, and clients give up",
                advice: "let the proxy pass event streams as they come",
                nginx: "proxy_buffering off;\ngzip off;   # and no `proxy_ignore_headers X-Accel-Buffering`",
                traefik: "remove the middlewares buffering and compress from the router",
                application_gateway: "backend settings: \"Response buffering\" off",
            },
            Self::CutsStreams => Remedy {
                code: "stream-cut",
                meaning: "the proxy ends event streams that are quiet for a moment; the gateway sends a keep-alive every 12 s",
                advice: "raise the proxy's timeout for quiet answers",
                nginx: "proxy_read_timeout 3600s;\nproxy_send_timeout 3600s;",
                traefik: "entryPoints.websecure.transport.respondingTimeouts: { writeTimeout: 0s, idleTimeout: 180s }",
                application_gateway: "backend settings: \"Request time-out\" 3600 s",
            },
            Self::OldProtocol => Remedy {
                code: "old-protocol",
                meaning: "HTTP/1.0 has no streams, and each request needs a connection of its own",
                advice: "let the proxy speak HTTP/1.1 or HTTP/2 to clients and to the gateway",
                nginx: "proxy_http_version 1.1;\nproxy_set_header Connection \"\";",
                traefik: "nothing: it speaks HTTP/1.1 and HTTP/2; look for another proxy on the way",
                application_gateway: "nothing: it speaks HTTP/1.1 and HTTP/2; look for another proxy on the way",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_that_answered_is_named_first_and_the_lines_are_filled_in() {
        let place = |server| ProxyPlace { prefix: "/a", host: "h.test", upstream: "127.0.0.1:8080", server };
        let of = |server| Interference::DropsWellKnown.changes(&place(server));
        let products = |server| of(server).iter().map(|change| change.product).collect::<Vec<_>>();
        assert_eq!(products(Some("nginx/1.26")), ["NGINX", "Traefik", "Application Gateway"]);
        assert_eq!(products(Some("Microsoft-Azure-Application-Gateway/v2"))[0], "Application Gateway");
        assert_eq!(
            of(None)[0].lines.lines().next(),
            Some("location /.well-known/oauth-authorization-server/a { proxy_pass http://127.0.0.1:8080; }")
        );
        assert!(
            of(None)
                .iter()
                .all(|change| !change.lines.contains("{prefix}") && !change.lines.contains("{host}"))
        );
    }
}
