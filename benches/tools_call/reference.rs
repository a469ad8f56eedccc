//! The bare server: the cost of rmcp, hyper and rustls by themselves.
//!
//! It has no sessions, answers in JSON, and has one tool that calls the search API over a pooled
//! client, parses the answer as JSON and returns it twice, as text and as structured content. No
//! tenants, no limits, no schema validation, no deadlines.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::process;

/// Serves until killed.
pub(crate) fn serve(listen: SocketAddr, identity: &Path, search_url: &str, api_key: &str) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(identity)?));
    let search = Search::new(search_url, api_key)?;
    let config =
        StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service = StreamableHttpService::new(
        move || Ok(search.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        process::announce(listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                let answer = service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, std::convert::Infallible>(service.handle(request).await) }
                });
                http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await?;
                anyhow::Ok(())
            });
        }
    })
}

/// Returns the TLS configuration of the reference and the search API.
pub(crate) fn tls(identity: &Path) -> Result<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(identity)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(identity)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Clone)]
struct Search {
    client: Client<HttpConnector, Full<Bytes>>,
    url: http::Uri,
    api_key: http::HeaderValue,
    tool: Tool,
}

impl Search {
    fn new(url: &str, api_key: &str) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let schema = json!({
            "type": "object",
            "properties": { "query": { "type": "string" }, "limit": { "type": "integer" } },
            "required": ["query"],
        });
        let schema = schema.as_object().cloned().expect("it is written as an object above");
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: url.parse()?,
            api_key: api_key.parse()?,
            tool: Tool::new("search", "Ask the dataset a question in plain language.", schema),
        })
    }

    async fn ask(&self, arguments: &Value) -> Result<Value> {
        let request = http::Request::post(self.url.clone())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("x-api-key", self.api_key.clone())
            .body(Full::from(arguments.to_string()))?;
        let answer = self.client.request(request).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&answer)?)
    }
}

impl ServerHandler for Search {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![self.tool.clone()]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        match self.ask(&arguments).await {
            Ok(answer) => Ok(CallToolResult::structured(answer).into()),
            Err(error) => Err(ErrorData::internal_error(error.to_string(), None)),
        }
    }
}
