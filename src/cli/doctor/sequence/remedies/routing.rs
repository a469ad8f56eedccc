//! Requests that do not arrive, or arrive elsewhere: paths, hosts, callers, redirects.

use super::Remedy;

pub(super) const DROPS_WELL_KNOWN: Remedy = Remedy {
    code: "well-known-dropped",
    meaning: "the client does not find the login: \"registration failed\", 404, or it asks for nothing",
    advice: "let the proxy forward the host's /.well-known/ to the gateway, too, without rewriting",
    nginx: "{well-known}",
    traefik: "http:
  routers:
    tenantd-well-known:
      rule: >-
        Host(`{host}`) && (PathPrefix(`/.well-known/oauth-authorization-server{prefix}`) ||
        PathPrefix(`/.well-known/oauth-protected-resource{prefix}`) ||
        PathPrefix(`/.well-known/openid-configuration{prefix}`))
      service: SERVICE
      tls: {}",
    application_gateway: "az network application-gateway url-path-map rule create -g GROUP --gateway-name GATEWAY \
                          --path-map-name MAP -n tenantd-well-known --address-pool POOL --http-settings SETTINGS \
                          --paths /.well-known/oauth-authorization-server{prefix} \
                          /.well-known/openid-configuration{prefix} /.well-known/oauth-protected-resource{prefix} \
                          /.well-known/oauth-protected-resource{prefix}/mcp",
};

pub(super) const DROPS_PATH: Remedy = Remedy {
    code: "path-dropped",
    meaning: "the client gets the proxy's own 404",
    advice: "let the proxy forward everything below the prefix, whatever the method",
    nginx: "{locations}",
    traefik: "http:
  routers:
    tenantd:
      rule: Host(`{host}`) && PathPrefix(`{prefix}/`)
      service: SERVICE
      tls: {}",
    application_gateway: "az network application-gateway url-path-map rule create -g GROUP --gateway-name GATEWAY \
                          --path-map-name MAP -n tenantd --address-pool POOL --http-settings SETTINGS --paths \
                          '{prefix}/*'",
};

pub(super) const REWRITES_PATH: Remedy = Remedy {
    code: "path-rewritten",
    meaning: "the gateway gets another path than the client asked for, and knows no tenant there",
    advice: "let the proxy forward the path unchanged",
    nginx: "proxy_pass {upstream};   # no path after the port, no `rewrite`",
    traefik: "remove stripPrefix, stripPrefixRegex, replacePath, replacePathRegex, addPrefix from the router's \
              middlewares",
    application_gateway:
        "az network application-gateway http-settings update -g GROUP --gateway-name GATEWAY -n \
                          SETTINGS --path null
# \"Override backend path\" is empty then; and no rewrite set with a URL path on this rule",
};

pub(super) const CHANGES_HOST: Remedy = Remedy {
    code: "host-changed",
    meaning: "the gateway gets another host name than the client asked for, and is not responsible for it",
    advice: "let the proxy forward the Host header; or name the other host with --host or extra_host",
    nginx: "proxy_set_header Host $http_host;",
    traefik: "http:
  services:
    SERVICE:
      loadBalancer:
        passHostHeader: true
remove headers.customRequestHeaders.Host from the router's middlewares",
    application_gateway:
        "az network application-gateway http-settings update -g GROUP --gateway-name GATEWAY -n \
                          SETTINGS --host-name null --host-name-from-backend-pool false
# \"Override with new host name\" is No then",
};

pub(super) const HIDES_CALLER: Remedy = Remedy {
    code: "caller-hidden",
    meaning: "the gateway does not learn who calls, or takes the proxy for the caller, and refuses",
    advice: "name the proxy in trusted_proxies (--trusted-proxies), and let it send X-Forwarded-For. A tenant \
             without login and key answers private networks only, unless it has `public: true`",
    nginx: "proxy_set_header X-Forwarded-For $remote_addr;",
    traefik:
        "remove entryPoints.websecure.forwardedHeaders.notAppendXForwardedFor from the static configuration
# behind another proxy also: entryPoints.websecure.forwardedHeaders.trustedIPs: [ITS-ADDRESS]",
    application_gateway: "# nothing: it sends X-Forwarded-For; name its subnet in trusted_proxies",
};

pub(super) const ANSWERS_ITSELF: Remedy = Remedy {
    code: "answered-by-proxy",
    meaning: "a page comes in place of the gateway's answer: a login of its own, a challenge for browsers, or a \
              default site",
    advice: "take the prefix and /.well-known/ out of that page's reach: clients are programs and cannot use it",
    nginx: "{locations} auth_request off;",
    traefik: "remove forwardAuth, errors from the router's middlewares
http:
  routers:
    tenantd:
      rule: >-
        Host(`{host}`) && (PathPrefix(`{prefix}/`) ||
        PathPrefix(`/.well-known/oauth-authorization-server{prefix}`) ||
        PathPrefix(`/.well-known/oauth-protected-resource{prefix}`) ||
        PathPrefix(`/.well-known/openid-configuration{prefix}`))
      priority: 100000
      service: SERVICE
      tls: {}",
    application_gateway: "az network application-gateway url-path-map rule create -g GROUP --gateway-name GATEWAY \
                          --path-map-name MAP -n tenantd --address-pool POOL --http-settings SETTINGS --paths \
                          '{prefix}/*' '/.well-known/*'
# in the WAF policy no custom rule with the action JSChallenge here; nor in a CDN in front",
};

pub(super) const REDIRECTS: Remedy = Remedy {
    code: "proxy-redirects",
    meaning: "clients do not follow a redirect of a POST, or follow it as a GET",
    advice: "use the URL that the redirect leads to in the clients, or answer here without a redirect",
    nginx: "# remove `return 301 …` and `rewrite …`, or forward these paths instead
{locations}",
    traefik: "remove redirectRegex, redirectScheme from the router's middlewares",
    application_gateway: "az network application-gateway url-path-map rule create -g GROUP --gateway-name GATEWAY \
                          --path-map-name MAP -n tenantd --address-pool POOL --http-settings SETTINGS --paths \
                          '{prefix}/*'
# a rule with a pool replaces the one with a redirect configuration",
};

pub(super) const REDIRECTS_TO_HTTP: Remedy = Remedy {
    code: "redirects-to-http",
    meaning: "the client is led from https to plain http, which it refuses",
    advice: "do not redirect here; if it must be, then to https",
    nginx: "# remove `return 301 …`, which belongs into the server of port 80 only, and forward these paths
{locations}",
    traefik: "remove redirectScheme, redirectRegex from the router's middlewares
# redirectScheme: { scheme: https } belongs to the entry point of port 80",
    application_gateway: "# redirect only from the listener of port 80 to that of port 443",
};
