//! Connections that do not last: sizes, timeouts, streams, protocols.

use super::Remedy;

pub(super) const BODY_LIMIT: Remedy = Remedy {
    code: "body-limit",
    meaning: "the proxy refuses requests that the gateway would take: long questions fail",
    advice: "raise the proxy's limit to the tenant's `max_request`",
    nginx: "client_max_body_size 16m;",
    traefik: "remove buffering from the router's middlewares
# or give it maxRequestBodyBytes: 16777216, and its events wait",
    application_gateway:
        "az network application-gateway waf-policy policy-setting update -g GROUP --policy-name \
                          POLICY --request-body-enforcement false
# or --max-request-body-size-in-kb 2000, which is the most",
};

pub(super) const HEADER_LIMIT: Remedy = Remedy {
    code: "header-limit",
    meaning: "the proxy refuses long headers: tokens and the cookies of a login are long",
    advice: "raise the proxy's limit to 16 KiB",
    nginx: "large_client_header_buffers 4 16k;",
    traefik: "entryPoints:
  websecure:
    http:
      maxHeaderBytes: 65536",
    application_gateway: "# nothing: it takes 32 KB; look for another proxy on the way
# (in HTTP/2 8 KB for one field: az network application-gateway update -g GROUP -n GATEWAY --http2 Disabled)",
};

pub(super) const TIMEOUT: Remedy = Remedy {
    code: "proxy-timeout",
    meaning: "the proxy waits in vain for the gateway, or gives up too early: it leads to the wrong address, or a \
              firewall is between",
    advice: "check the address that the proxy forwards to, and its timeouts",
    nginx: "proxy_pass {upstream};\nproxy_read_timeout 3600s;",
    traefik: "http:
  services:
    SERVICE:
      loadBalancer:
        servers: [{ url: \"{upstream}\" }]
  serversTransports:
    TRANSPORT:
      forwardingTimeouts: { dialTimeout: 30s, responseHeaderTimeout: 0s }",
    application_gateway:
        "az network application-gateway http-settings update -g GROUP --gateway-name GATEWAY -n \
                          SETTINGS --timeout 3600
az network application-gateway address-pool update -g GROUP --gateway-name GATEWAY -n POOL --servers ADDRESS",
};

pub(super) const BAD_GATEWAY: Remedy = Remedy {
    code: "bad-gateway",
    meaning: "the proxy does not reach the gateway, speaks the wrong protocol to it (http, https), or its probe fails",
    advice: "compare address, port and scheme with the gateway's listener; the probe's path is /-/healthz",
    nginx: "{locations}\nproxy_buffer_size 16k;\nproxy_buffers 8 16k;",
    traefik: "http:
  services:
    SERVICE:
      loadBalancer:
        servers: [{ url: \"{upstream}\" }]
        healthCheck: { path: /-/healthz }",
    application_gateway: "az network application-gateway probe create -g GROUP --gateway-name GATEWAY -n tenantd \
                          --protocol Http --path /-/healthz --host {host}
az network application-gateway http-settings update -g GROUP --gateway-name GATEWAY -n SETTINGS --probe tenantd
# protocol and port are those of {upstream}",
};

pub(super) const BREAKS_OFF: Remedy = Remedy {
    code: "answer-broken-off",
    meaning: "the connection is closed before the answer is complete",
    advice: "look for the reason in the proxy's log",
    nginx: "# its error log says why; `return 444` is one reason",
    traefik: "entryPoints:
  websecure:
    transport:
      respondingTimeouts: { writeTimeout: 0s }
accessLog: {}
log: { level: DEBUG }",
    application_gateway: "# diagnostic settings: ApplicationGatewayAccessLog",
};

pub(super) const UNREACHABLE: Remedy = Remedy {
    code: "public-unreachable",
    meaning: "no client connects",
    advice: "see ports and certificate above",
    nginx: "",
    traefik: "",
    application_gateway: "",
};

pub(super) const BUFFERS: Remedy = Remedy {
    code: "stream-buffered",
    meaning: "events arrive only when the answer ends: long calls seem to hang, and clients give up",
    advice: "let the proxy pass event streams as they come",
    nginx: "proxy_buffering off;\ngzip off;   # and no `proxy_ignore_headers X-Accel-Buffering`",
    traefik: "remove buffering, compress from the router's middlewares",
    application_gateway: "az network application-gateway update -g GROUP -n GATEWAY --set \
                          globalConfiguration.enableResponseBuffering=false",
};

pub(super) const CUTS_STREAMS: Remedy = Remedy {
    code: "stream-cut",
    meaning: "the proxy ends event streams that are quiet for a moment, or open for long; the gateway sends a \
              keep-alive every 15 s",
    advice: "raise the proxy's timeout for quiet answers",
    nginx: "proxy_read_timeout 3600s;\nproxy_send_timeout 3600s;",
    traefik: "entryPoints:
  websecure:
    transport:
      respondingTimeouts: { writeTimeout: 0s }",
    application_gateway: "az network application-gateway http-settings update -g GROUP --gateway-name GATEWAY -n \
                          SETTINGS --timeout 3600",
};

pub(super) const OLD_PROTOCOL: Remedy = Remedy {
    code: "old-protocol",
    meaning: "HTTP/1.0 has no streams, and each request needs a connection of its own",
    advice: "let the proxy speak HTTP/1.1 or HTTP/2 to clients and to the gateway",
    nginx: "proxy_http_version 1.1;\nproxy_set_header Connection \"\";",
    traefik: "# nothing: it speaks HTTP/1.1 and HTTP/2; look for another proxy on the way",
    application_gateway: "# nothing: it speaks HTTP/1.1 and HTTP/2; look for another proxy on the way",
};
