//! A tenant that requires a login, and an access token of a machine client for it.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use rustls::pki_types::CertificateDer;

use crate::load;

const SECRET: &str = "m1-7f3a9c20e84d51b6-bench";

/// Nobody logs in at this directory: machine clients authenticate to the gateway alone.
pub(crate) const LINES: &str = "\
oauth_enabled: true
microsoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e
microsoft_client_secret: b2-0d5e8f17a3c94620-bench
microsoft_tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47
machine_clients:
  - {id: bench, secret: m1-7f3a9c20e84d51b6-bench}
";

/// Requests a token that is valid for longer than any run.
pub(crate) fn buy(address: SocketAddr, root: &CertificateDer<'static>) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut sender = load::connect(address, &load::connector(root)?).await?;
        let form = format!("grant_type=client_credentials&client_id=bench&client_secret={SECRET}");
        let request = Request::post("/tenant-0/token")
            .header("host", format!("localhost:{}", address.port()))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::<Bytes>::from(form))?;
        let response = sender.send_request(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        let token = answer["access_token"].as_str().with_context(|| format!("no token: {answer}"))?;
        Ok(token.to_owned())
    })
}
