//! What pages of the admin listener cost: the console's overview, and the metrics. CPU of the gateway
//! for each view, and its size.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Result, ensure};

use crate::report::{median, microseconds};
use crate::site::Site;

/// Views of which the CPU is measured together.
const VIEWS: u32 = 50;
const ROUNDS: usize = 3;

/// The costs of one view.
pub(crate) struct View {
    pub(crate) cpu_ms: f64,
    pub(crate) bytes: usize,
}

/// Returns the costs of a view of the overview, and of a search in it.
pub(crate) fn cost_of_views(site: &Site) -> Result<(View, View)> {
    let cost = |path| cost(site, path, "<h2>Tenants</h2>");
    Ok((cost("/")?, cost("/?q=nant-7")?))
}

/// Returns the costs of a scrape, with the series of all tenants that were called.
pub(crate) fn cost_of_scrape(site: &Site) -> Result<View> {
    cost(site, "/metrics", "# EOF")
}

fn cost(site: &Site, path: &str, content: &str) -> Result<View> {
    let (mut costs, mut bytes) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        site.server.settle()?;
        let before = site.server.cpu()?;
        for _ in 0..VIEWS {
            bytes = view(site, path, content)?;
        }
        costs.push(microseconds(site.server.cpu()? - before) / f64::from(VIEWS) / 1e3);
    }
    Ok(View { cpu_ms: median(costs), bytes })
}

/// Asks for a page and returns its size.
fn view(site: &Site, path: &str, content: &str) -> Result<usize> {
    let mut stream = TcpStream::connect(site.admin()?)?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains(content), "{answer}");
    Ok(answer.len())
}
