//! Adding a tenant while the gateway serves: the time to its first good answer, and the cost.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;

use crate::load;
use crate::report::microseconds;
use crate::site::{Identity, Site};

/// The longest accepted time to a first answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two requests to a tenant that is not yet served.
const PAUSE: Duration = Duration::from_millis(1);
/// The pause between two added tenants, enough for a pass, the context and the receipt.
const SPACING: Duration = Duration::from_millis(250);

const QUESTION: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"q"}}}"#;

/// Adds this many tenants. Returns the times from renaming each file to its first good answer,
/// ascending.
pub(crate) fn first_answers(site: &Site, adds: usize, identity: &Identity) -> Result<Vec<Duration>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connector = load::connector(&identity.certificate)?;
        let mut sender = load::connect(site.server.address, &connector).await?;
        let mut waits = Vec::with_capacity(adds);
        for _ in 0..adds {
            let (number, begun) = site.add()?;
            first_answer(&mut sender, number, begun).await?;
            waits.push(begun.elapsed());
            tokio::time::sleep(SPACING).await;
        }
        waits.sort_unstable();
        Ok(waits)
    })
}

async fn first_answer(sender: &mut SendRequest<Full<Bytes>>, number: usize, begun: Instant) -> Result<()> {
    loop {
        let request = Request::post(format!("/tenant-{number}/mcp"))
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(Full::from(QUESTION))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status == StatusCode::OK && String::from_utf8_lossy(&body).contains(crate::backend::FIRST_ROW) {
            return Ok(());
        }
        ensure!(status == StatusCode::NOT_FOUND, "tenant {number} was answered with {status}: {body:?}");
        ensure!(begun.elapsed() < PATIENCE, "tenant {number} does not come");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the CPU microseconds of adding a tenant, including its context and receipt, minus what
/// the gateway spends while idle.
pub(crate) fn cpu_to_add_one(site: &Site, adds: usize) -> Result<f64> {
    site.server.settle()?;
    let adding = spent(site, adds, true)?;
    let idle = spent(site, adds, false)?;
    Ok(microseconds(adding.saturating_sub(idle)) / adds as f64)
}

fn spent(site: &Site, times: usize, adding: bool) -> Result<Duration> {
    let before = site.server.cpu()?;
    for _ in 0..times {
        if adding {
            site.add()?;
        }
        sleep(SPACING);
    }
    Ok(site.server.cpu()? - before)
}
