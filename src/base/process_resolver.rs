//! Lets `reqwest` look names up with the resolver of this process, so that a hanging name server
//! occupies no thread that the store needs.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::dns::DnsResolver;

/// Looks names up with [`DnsResolver::global`].
#[derive(Debug, Clone, Copy)]
pub struct ProcessResolver;

impl Resolve for ProcessResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = DnsResolver::global().lookup(name.as_str()).await?;
            let addresses: Vec<_> = addresses.iter().map(|&address| SocketAddr::new(address, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
