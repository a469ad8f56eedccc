//! Makes the client of a gateway's admin listener: its address, the TLS that it has, and the token
//! that it may ask for. Each verb that talks to a running gateway gets its client here.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustls_pki_types::ServerName;
use url::Url;

use super::admin_client::AdminClient;
use super::args::AdminAccessArgs;
use crate::base::disk;
use crate::base::dns::DnsResolver;
use crate::base::secret::Secret;
use crate::certs;
use crate::settings::{AdminTls, Settings, TlsMode};

/// The variable of the token.
const TOKEN_VARIABLE: &str = "TENANTD_ADMIN_TOKEN";
/// The variable of the certificate of the authority.
const CA_VARIABLE: &str = "TENANTD_ADMIN_CA";
/// The largest file with a token.
const MAX_TOKEN_BYTES: u64 = 4 << 10;

/// Whether `--admin` is a URL, which leads to a gateway whose settings are not known here.
pub(super) fn is_url(admin: &str) -> bool {
    admin.starts_with("https://")
}

/// Creates a client for the admin listener of these settings, with TLS if they say that it has a
/// certificate; `None` if it is off.
///
/// # Errors
/// The token or the certificate of the authority cannot be read.
pub(super) fn connect(settings: &Settings, access: &AdminAccessArgs) -> anyhow::Result<Option<AdminClient>> {
    let Some(address) = settings.admin else { return Ok(None) };
    let client = AdminClient::new(address).with_token(read_token(access.admin_token_file.as_deref())?);
    let is_local_ca = match &settings.admin_access.tls {
        Some(AdminTls::Gateway) => settings.tls == TlsMode::SelfSigned,
        Some(AdminTls::Files { .. }) => false,
        None | Some(AdminTls::Off) => return Ok(Some(client)),
    };
    let local_ca = || is_local_ca.then(|| settings.certs.join(certs::LOCAL_CA_FILE));
    let config = certs::client_config(find_ca(access).or_else(local_ca).as_deref())?;
    let named = settings.admin_access.hosts.first().or(settings.hosts.first());
    let name = named.map_or_else(|| "localhost".to_owned(), ToString::to_string);
    Ok(Some(client.with_tls(ServerName::try_from(name)?, config)))
}

/// Creates a client for `https://NAME:PORT`.
///
/// # Errors
/// The URL is no such one, the name cannot be looked up, or the token or the certificate of the
/// authority cannot be read.
pub(super) fn connect_to(url: &str, access: &AdminAccessArgs) -> anyhow::Result<AdminClient> {
    let wrong = || format!("`--admin` is {url:?}: write https://NAME:PORT");
    let url = Url::parse(url).ok().with_context(wrong)?;
    let (host, port) = (url.host_str().with_context(wrong)?, url.port_or_known_default().unwrap_or(443));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let looked_up = runtime.block_on(DnsResolver::global().lookup(bare));
            let all = looked_up.map_err(|error| anyhow::anyhow!("{bare} cannot be looked up: {error}"))?;
            *all.first().with_context(|| format!("{bare} has no address"))?
        }
    };
    let config = certs::client_config(find_ca(access).as_deref())?;
    let client = AdminClient::new(SocketAddr::new(found, port));
    let token = read_token(access.admin_token_file.as_deref())?;
    Ok(client.with_tls(ServerName::try_from(bare.to_owned())?, config).with_token(token))
}

/// Returns the certificate of the authority that is given, if any is.
fn find_ca(access: &AdminAccessArgs) -> Option<PathBuf> {
    let variable = || std::env::var_os(CA_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    access.admin_ca.clone().or_else(variable)
}

/// Reads the token: from the file that is given, else from the environment.
fn read_token(file: Option<&Path>) -> anyhow::Result<Option<Secret>> {
    if let Some(file) = file {
        let text = disk::read_text(file, MAX_TOKEN_BYTES);
        let text = text.with_context(|| format!("the token file {} cannot be read", file.display()))?;
        return Ok(Some(Secret::new(text.trim())));
    }
    let given = std::env::var(TOKEN_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    Ok(given.map(|text| Secret::new(text.trim())))
}
