//! Sends a request to a running gateway's admin listener and prints the response.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use rustls_pki_types::ServerName;
use serde_json::Value;
use url::Url;

use super::admin_client::{AdminClient, Error};
use super::args::{AdminAccessArgs, AdminArgs};
use super::{Exit, configuration, output, render};
use crate::base::disk;
use crate::base::dns::DnsResolver;
use crate::base::secret::Secret;
use crate::certs;
use crate::settings::{AdminTls, Flags, SettingKey, Settings, TlsMode};

/// The variable of the token.
const TOKEN_VARIABLE: &str = "TENANTD_ADMIN_TOKEN";
/// The largest file with a token.
const MAX_TOKEN_BYTES: u64 = 4 << 10;

/// What the gateway answered.
pub(super) type Answer = Result<Value, Error>;

/// Creates a client for the gateway given by these arguments, the environment or the file.
///
/// # Errors
/// The settings cannot be read, or name no admin listener.
pub(super) fn client(admin: &AdminArgs) -> anyhow::Result<AdminClient> {
    let token = read_token(admin.admin_token_file.as_deref())?;
    let client = match admin.admin.as_deref().filter(|text| text.starts_with("https://")) {
        Some(url) => remote_client(url, admin.admin_ca.as_deref())?,
        None => local_client(admin)?,
    };
    Ok(client.with_token(token))
}

/// Creates a client for the listener of the settings, with TLS if they say that it has a
/// certificate.
fn local_client(admin: &AdminArgs) -> anyhow::Result<AdminClient> {
    let flags = Flags::new().with(SettingKey::ADMIN, &admin.admin);
    let settings = configuration::load_quietly(&flags, admin.config.as_deref())?;
    let off = "the admin listener is off in these settings; give its address with --admin";
    settings_client(&settings, admin.admin_ca.as_deref())?.context(off)
}

/// Creates a client for the listener of these settings, which sends the token of this file or of
/// the environment; `None` if the listener is off.
///
/// # Errors
/// The token or the authority's certificate cannot be read.
pub(super) fn find_client(
    settings: &Settings,
    access: &AdminAccessArgs,
) -> anyhow::Result<Option<AdminClient>> {
    let token = read_token(access.admin_token_file.as_deref())?;
    let client = settings_client(settings, access.admin_ca.as_deref())?;
    Ok(client.map(|client| client.with_token(token)))
}

fn settings_client(settings: &Settings, ca: Option<&Path>) -> anyhow::Result<Option<AdminClient>> {
    let Some(address) = settings.admin else { return Ok(None) };
    let client = AdminClient::new(address);
    if !matches!(settings.admin_access.tls, Some(AdminTls::Gateway | AdminTls::Files { .. })) {
        return Ok(Some(client));
    }
    let local_ca = settings.certs.join(certs::LOCAL_CA_FILE);
    let local_ca = (settings.tls == TlsMode::SelfSigned).then_some(local_ca);
    let config = certs::client_config(ca.or(local_ca.as_deref()))?;
    let named = settings.admin_access.hosts.first().or(settings.hosts.first());
    let name = named.map_or_else(|| "localhost".to_owned(), ToString::to_string);
    Ok(Some(client.with_tls(ServerName::try_from(name)?, config)))
}

/// Creates a client for `https://NAME:PORT`.
fn remote_client(url: &str, ca: Option<&Path>) -> anyhow::Result<AdminClient> {
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
    let client = AdminClient::new(SocketAddr::new(found, port));
    Ok(client.with_tls(ServerName::try_from(bare.to_owned())?, certs::client_config(ca)?))
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

/// Sends a request to the gateway.
///
/// # Errors
/// There is no gateway to ask; see [`client`].
pub(super) fn send(admin: &AdminArgs, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
    Ok(client(admin)?.send(method, path, body))
}

/// Prints a response, or the gateway's refusal with its findings.
///
/// # Errors
/// The gateway did not answer, or standard output cannot be written to.
pub(super) fn print_answer(answer: Answer, text: impl FnOnce(&Value) -> String) -> anyhow::Result<Exit> {
    match answer {
        Ok(answer) => {
            output::print(&text(&answer))?;
            Ok(Exit::Fine)
        }
        Err(Error::Rejected(detail, findings)) => {
            output::print_error(detail);
            findings
                .iter()
                .for_each(|finding| output::print_error_lines(&render::finding_of_gateway(finding)));
            Ok(Exit::Findings)
        }
        Err(error @ Error::NotFound(_)) => {
            output::print_error(error);
            Ok(Exit::Findings)
        }
        Err(error) => Err(error.into()),
    }
}
