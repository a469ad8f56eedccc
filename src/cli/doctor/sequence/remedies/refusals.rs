//! Requests and answers that are refused or changed on the way.

use super::Remedy;

pub(super) const DROPS_AUTHORIZATION: Remedy = Remedy {
    code: "authorization-dropped",
    meaning: "the gateway does not get the client's token or key: every call is refused with 401",
    advice: "let the proxy forward the Authorization header, and switch off its own authentication",
    nginx: "# remove `proxy_set_header Authorization …` and `auth_basic` from this location",
    traefik: "remove headers.customRequestHeaders.Authorization, basicAuth, digestAuth, forwardAuth from the router's \
              middlewares",
    application_gateway: "az network application-gateway rewrite-rule list -g GROUP --gateway-name GATEWAY \
                          --rule-set-name SET
# and delete the one that sets or removes the request header Authorization",
};

pub(super) const DROPS_CHALLENGE: Remedy = Remedy {
    code: "challenge-dropped",
    meaning: "the client is refused and does not learn where to log in",
    advice: "let the proxy pass the header WWW-Authenticate of the answer",
    nginx: "# remove `proxy_hide_header WWW-Authenticate;` and `proxy_intercept_errors on;`",
    traefik: "remove headers.customResponseHeaders.WWW-Authenticate, errors from the router's middlewares",
    application_gateway: "az network application-gateway rewrite-rule list -g GROUP --gateway-name GATEWAY \
                          --rule-set-name SET
# and delete the one that removes the response header WWW-Authenticate",
};

pub(super) const CHANGES_ANSWER: Remedy = Remedy {
    code: "answer-changed",
    meaning: "the client gets another answer than the gateway gave; clients compare these values letter by letter",
    advice: "let the proxy pass answers unchanged, and cache nothing below the prefix and /.well-known/",
    nginx: "# remove `sub_filter`, `proxy_intercept_errors`, `proxy_cache` and `add_header Content-Type`; or, if \
            something else answers, forward these paths
{locations}",
    traefik: "remove headers.customResponseHeaders, contentType, errors, plugin from the router's middlewares",
    application_gateway: "az network application-gateway url-path-map rule create -g GROUP --gateway-name GATEWAY \
                          --path-map-name MAP -n tenantd --address-pool POOL --http-settings SETTINGS --paths \
                          '{prefix}/*' '/.well-known/*'
# without --rewrite-rule-set; and no custom error pages for this listener",
};

pub(super) const CHANGES_REQUEST: Remedy = Remedy {
    code: "request-changed",
    meaning: "the gateway gets another request than the client sent, and refuses it",
    advice: "let the proxy pass method, body and headers unchanged",
    nginx: "# remove `proxy_method`, `proxy_set_body`, `proxy_pass_request_headers off` and `proxy_set_header \
            Content-Type` here",
    traefik: "remove headers.customRequestHeaders, plugin from the router's middlewares",
    application_gateway: "az network application-gateway rewrite-rule list -g GROUP --gateway-name GATEWAY \
                          --rule-set-name SET
# and delete those that set or remove Content-Type, Accept or Mcp-…",
};

pub(super) const AUTHENTICATES: Remedy = Remedy {
    code: "proxy-authenticates",
    meaning: "the proxy demands a credential of its own, which no client has",
    advice: "switch the proxy's own authentication off below the prefix and /.well-known/",
    nginx: "auth_basic off;",
    traefik: "remove basicAuth, digestAuth, forwardAuth from the router's middlewares",
    application_gateway: "# listener: an SSL profile without client authentication (mutual TLS), no JWT \
                          validation on the rule",
};

pub(super) const FORBIDS: Remedy = Remedy {
    code: "proxy-forbids",
    meaning: "a firewall of the proxy (WAF, allow-list, bot protection) refuses the client",
    advice: "exclude the prefix and /.well-known/ from the rule that the proxy's log names; JSON-RPC and URLs in \
             forms often meet rules against injections, and user agents of assistants rules against bots",
    nginx: "# remove `modsecurity on`, `deny` and `return 403`, or
{locations} allow all;",
    traefik: "remove ipAllowList, ipWhiteList, plugin from the router's middlewares",
    application_gateway: "az network application-gateway waf-policy custom-rule create -g GROUP --policy-name POLICY \
                          -n tenantd --priority 1 --rule-type MatchRule --action Allow --match-conditions \
                          \"[{variables:[{variable-name:RequestUri}],operator:BeginsWith,values:['{prefix}/',\
                          '/.well-known/']}]\"",
};

pub(super) const REFUSES_METHOD: Remedy = Remedy {
    code: "method-refused",
    meaning: "the proxy lets no POST through, and MCP consists of POSTs",
    advice: "allow GET, POST, DELETE and OPTIONS below the prefix",
    nginx: "# remove `limit_except …` and `if ($request_method …` from this location",
    traefik: "http:
  routers:
    tenantd:
      rule: Host(`{host}`) && PathPrefix(`{prefix}/`)
      service: SERVICE
      tls: {}",
    application_gateway:
        "az network application-gateway waf-policy custom-rule list -g GROUP --policy-name POLICY
# and change the one on RequestMethod",
};

pub(super) const LIMITS_RATE: Remedy = Remedy {
    code: "proxy-limits-rate",
    meaning: "the proxy limits how often clients may call; hosted clients share a few addresses",
    advice: "raise the proxy's limit; the gateway has limits of its own for each caller",
    nginx: "# remove `limit_req` here, or raise its rate and burst",
    traefik: "remove rateLimit, inFlightReq from the router's middlewares
# or raise their average and burst, and their amount",
    application_gateway:
        "az network application-gateway waf-policy custom-rule list -g GROUP --policy-name POLICY
# and raise --rate-limit-threshold of the RateLimitRule",
};
