//! The start of a gateway that takes over from another one (`tenantd upgrade`): its checks, and the
//! moment from which it serves.

use std::sync::Arc;

use super::{Error, certificate_names};
use crate::base::clock::SystemClock;
use crate::base::handover::{self, Offer, Predecessor};
use crate::base::inherited_sockets;
use crate::base::task::Tasks;
use crate::bundle;
use crate::certs;
use crate::settings::Settings;
use crate::store::{self, KeySource};
use crate::tenants::TenantsSource;

/// Checks whether a gateway with these settings could serve, and takes the sockets and locks of the
/// one before it. If that has ended meanwhile, this one starts like any other. Blocks.
///
/// # Errors
/// What the checks find; [`Error::Handover`] if the gateway before this one says what this version
/// does not know.
pub fn take_from(
    predecessor: &Predecessor,
    settings: &Settings,
    source: &TenantsSource,
    key: &KeySource,
) -> Result<(), Error> {
    let Some(offer) = predecessor.wait_for_offer().map_err(Error::Handover)? else { return Ok(()) };
    tracing::info!(from = offer.version, "taking over from a running gateway");
    check(settings, source, key, &offer)?;
    let is_taken = predecessor.take(env!("CARGO_PKG_VERSION"), store::SCHEMA).map_err(Error::Handover)?;
    if !is_taken {
        tracing::warn!("the gateway before this one has ended; this one starts by itself");
    }
    Ok(())
}

/// Checks what can be checked while another gateway serves. Takes no lock and changes nothing.
fn check(settings: &Settings, source: &TenantsSource, key: &KeySource, offer: &Offer) -> Result<(), Error> {
    if let TenantsSource::Folder(folder) = source {
        if folder.is_file() {
            return Err(Error::TenantsIsFile(folder.clone()));
        }
        if bundle::is_unpacked_export(folder) {
            return Err(Error::TenantsIsExport(folder.clone()));
        }
    }
    if let Some(schema) = offer.schema {
        store::check_in_use(&settings.state, key, schema)?;
    }
    certs::check(settings, &certificate_names::own(settings), SystemClock::shared())?;
    Ok(())
}

/// Has connections wait in the kernel, if there is a gateway that may still go on.
pub(super) fn hold_connections(tasks: &Tasks) {
    if handover::predecessor().is_some() {
        tasks.accept_gate().close();
    }
}

/// Tells the gateway before this one, if there is one, that this one could serve, and accepts
/// connections once it may.
pub(super) async fn take_over(tasks: &Tasks) -> Result<(), Error> {
    let Some(predecessor) = handover::predecessor() else { return Ok(()) };
    let asking = Arc::clone(&predecessor);
    let waiting = tokio::task::spawn_blocking(move || asking.wait_to_serve());
    waiting.await.expect("waiting does not panic").map_err(Error::Handover)?;
    inherited_sockets::close_untaken();
    tasks.accept_gate().open();
    let finishing = tokio::task::spawn_blocking(move || predecessor.finish());
    finishing.await.expect("waiting does not panic");
    tracing::info!("this gateway has taken over");
    Ok(())
}
