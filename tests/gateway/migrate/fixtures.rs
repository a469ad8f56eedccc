//! Installations of the vendor's servers, with the files and values that its guide tells customers
//! to write.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;
use tenantd::bundle::sample;

use crate::harness::FakeBackend;
use crate::harness::secret::secret;

/// The host that clients know.
pub(crate) const HOST: &str = "mcp.example.com";

/// An old installation in a folder.
pub(crate) struct Old(TempDir);

/// The export as the portal makes it: the customer fills in URLs and key elsewhere.
fn export(dataset: &str) -> Vec<u8> {
    let config = format!(
        "search_url: https://<your-tursio-hostname>/nlp-search\n\
         context_url: https://<your-tursio-hostname>/nlp-context\napi_key: your-api-key\n\
         connection_id: conn-{dataset}\n"
    );
    sample::build_export(dataset, &config)
}

impl Old {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// A Compose stack in a folder of its own, at `base` for clients. `login` has the lines of a
    /// login as a tenant's file has them.
    pub(crate) fn stack(&self, name: &str, port: u16, base: &str, login: &str, backend: &FakeBackend) {
        self.file(&format!("{name}/mcp_export.zip"), export(name));
        self.file(&format!("{name}/env.example"), "API_KEY=paste-your-api-key-here\n");
        self.file(
            &format!("{name}/compose.yaml"),
            "services:\n  tursio-mcp:\n    image: ${IMAGE:-tursio.azurecr.io/tursio-mcp:1.4.2}\n    \
             restart: unless-stopped\n    ports:\n      - \"${MCP_PORT:-8000}:${MCP_PORT:-8000}\"\n    \
             volumes:\n      - ${ZIP_PATH:-./mcp_export.zip}:/app/server.zip:ro\n    env_file: .env\n",
        );
        let (api, key) = (backend.url(""), secret(name));
        let pairs = login.lines().filter_map(|line| line.split_once(": "));
        let login: String =
            pairs.map(|(name, value)| format!("{}='{value}'\n", name.to_ascii_uppercase())).collect();
        self.file(
            &format!("{name}/.env"),
            format!(
                "ZIP_PATH=./mcp_export.zip\nMCP_PORT={port}\nAPI_KEY={key}\nSEARCH_URL={api}/nlp-search\n\
                 CONTEXT_URL={api}/nlp-context\nPATH_PREFIX=/{name}\nPUBLIC_URL={base}/{name}\n{login}"
            ),
        );
    }

    /// The proxy in front of two stacks.
    pub(crate) fn nginx(&self) {
        self.file(
            "nginx.conf",
            "events {}\nhttp {\n  server {\n    listen 443 ssl;\n    server_name mcp.example.com;\n\
             \x20   ssl_certificate /etc/ssl/mcp.pem; ssl_certificate_key /etc/ssl/mcp.key;\n\
             \x20   location /tenant-a { proxy_pass http://127.0.0.1:8001; proxy_read_timeout 3600s; }\n\
             \x20   location = /.well-known/oauth-authorization-server/tenant-a { proxy_pass \
             http://127.0.0.1:8001; }\n\
             \x20   include conf.d/*.conf;\n  }\n}\n",
        );
        if self.path().join("tenant-b").exists() {
            self.file(
                "conf.d/b.conf",
                "location /tenant-b/ {\n  proxy_pass http://127.0.0.1:8002;\n  proxy_set_header Host \
                 $host;\n}\n\
                 location = /.well-known/oauth-authorization-server/tenant-b { proxy_pass \
                 http://127.0.0.1:8002; }\n",
            );
        }
    }

    /// The guide's unit, and the unpacked export that it runs.
    pub(crate) fn unit(&self, unit: &str, dataset: &str, flags: &str, backend: &FakeBackend) {
        let tree = self.path().join("opt/tursio-mcp").display().to_string();
        let (base, key) = (backend.url(""), secret(dataset));
        self.file("opt/tursio-mcp/mcp/run.sh", "#!/usr/bin/env bash\n");
        self.file(
            &format!("opt/tursio-mcp/mcp/server/configs/{dataset}.yaml"),
            format!(
                "search_url: {base}/nlp-search\ncontext_url: {base}/nlp-context\napi_key: \
                 {key}\nconnection_id: c9\n"
            ),
        );
        self.file(
            &format!("{unit}.service"),
            format!(
                "[Unit]\nDescription=Tursio MCP \
                 Server\nAfter=network.target\n[Service]\nType=simple\nUser=tursio\n\
                 WorkingDirectory={tree}\nExecStart={tree}/mcp/run.sh \
                 {flags}\nRestart=on-failure\nRestartSec=5\n\
                 [Install]\nWantedBy=multi-user.target\n"
            ),
        );
    }

    /// The guide's `docker run` line.
    pub(crate) fn docker_run(&self, name: &str, port: u16, backend: &FakeBackend) {
        self.file("opt/tursio/mcp_export.zip", export(name));
        let (base, key, zip) = (backend.url(""), secret(name), self.path().join("opt/tursio/mcp_export.zip"));
        self.file(
            "start.sh",
            format!(
                "#!/bin/sh\ndocker run -d \\\n--name {name} \\\n--restart unless-stopped \\\n-p \
                 {port}:8000 \\\n\
                 -v {}:/app/server.zip:ro \\\n-e MCP_PORT=8000 \\\n-e API_KEY={key} \\\n-e \
                 SEARCH_URL={base}/nlp-search \\\n\
                 -e CONTEXT_URL={base}/nlp-context \\\ntursio.azurecr.io/tursio-mcp:1.4.2\n",
                zip.display()
            ),
        );
    }

    /// The manifest of one tenant, with the Secret that `kubectl create secret` made.
    pub(crate) fn manifests(&self, name: &str, backend: &FakeBackend) {
        let (base, key, zip) = (backend.url(""), secret(name), BASE64_STANDARD.encode(export(name)));
        self.file(
            &format!("{name}/mcp-server.yaml"),
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: tursio-mcp-zip-{name}, namespace: \
                 tursio-mcp}}\n\
                 data:\n  server.zip: {zip}\n---\n\
                 apiVersion: v1\nkind: Secret\nmetadata: {{name: tursio-mcp-{name}, namespace: tursio-mcp}}\n\
                 stringData:\n  API_KEY: {key}\n---\n\
                 apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: tursio-mcp-{name}, namespace: \
                 tursio-mcp}}\ndata:\n\
                 \x20 SEARCH_URL: {base}/nlp-search\n  CONTEXT_URL: {base}/nlp-context\n  PATH_PREFIX: \
                 \"/{name}\"\n\
                 \x20 PUBLIC_URL: \"https://{HOST}/{name}\"\n  # OAUTH_ENABLED: \"true\"\n---\n\
                 apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: tursio-mcp-{name}, namespace: \
                 tursio-mcp}}\nspec:\n\
                 \x20 replicas: 1\n  selector: {{matchLabels: {{app: tursio-mcp-{name}}}}}\n  template:\n\
                 \x20   metadata: {{labels: {{app: tursio-mcp-{name}}}}}\n    spec:\n      containers:\n\
                 \x20       - name: tursio-mcp\n          image: registry.example.com/tursio-mcp:1.4.2\n\
                 \x20         ports: [{{containerPort: 8000}}]\n          envFrom:\n\
                 \x20           - configMapRef: {{name: tursio-mcp-{name}}}\n          env:\n\
                 \x20           - name: API_KEY\n              valueFrom: {{secretKeyRef: {{name: \
                 tursio-mcp-{name}, key: API_KEY}}}}\n\
                 \x20         volumeMounts:\n            - {{name: zip, mountPath: /app/server.zip, \
                 subPath: server.zip}}\n\
                 \x20     volumes:\n        - name: zip\n          secret: {{secretName: \
                 tursio-mcp-zip-{name}}}\n---\n\
                 apiVersion: v1\nkind: Service\nmetadata: {{name: tursio-mcp-{name}, namespace: \
                 tursio-mcp}}\nspec:\n\
                 \x20 type: LoadBalancer\n  selector: {{app: tursio-mcp-{name}}}\n  ports: [{{port: 8000}}]\n"
            ),
        );
    }

    /// The guide's rules for two tenants: an Ingress for one, an IngressRoute for the other.
    pub(crate) fn ingress(&self) {
        self.file(
            "ingress.yaml",
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: tursio-mcp\n  \
                 namespace: tursio-mcp\n\
                 \x20 annotations:\n    nginx.ingress.kubernetes.io/proxy-read-timeout: \"3600\"\nspec:\n\
                 \x20 ingressClassName: nginx\n  rules:\n  - host: {HOST}\n    http:\n      paths:\n\
                 \x20     - path: /tenant-a\n        pathType: Prefix\n        backend:\n          service:\n\
                 \x20           name: tursio-mcp-tenant-a\n            port:\n              number: \
                 8000\n---\n\
                 apiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata:\n  name: tursio-mcp\n\
                 \x20 namespace: tursio-mcp\nspec:\n  entryPoints:\n    - websecure\n  routes:\n\
                 \x20   - match: Host(`{HOST}`) && PathPrefix(`/tenant-b`)\n      kind: Rule\n      \
                 services:\n\
                 \x20       - name: tursio-mcp-tenant-b\n          port: 8000\n"
            ),
        );
    }
}
