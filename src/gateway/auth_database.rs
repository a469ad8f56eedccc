//! Keeps logins in a PostgreSQL database, if the settings name one.

use std::time::Duration;

use super::Error;
use crate::base::handover;
use crate::settings::{Settings, StoreSettings};
use crate::store::{self, Joining, PostgresAddress, Store};

/// How often a start that needs the database tries again, and how long it waits in between.
const CONNECT_ATTEMPTS: u32 = 10;
const CONNECT_PAUSE: Duration = Duration::from_secs(2);

/// Returns the address of the database of logins, if the settings name one.
///
/// # Errors
/// The address is none, or a file of it cannot be read.
pub fn database_address(settings: &StoreSettings) -> Result<Option<PostgresAddress>, store::PostgresError> {
    let password_file = settings.password_file.as_deref();
    match (&settings.address, &settings.address_file) {
        (Some(address), _) => PostgresAddress::parse(address, password_file).map(Some),
        (None, Some(file)) => PostgresAddress::read(file, password_file).map(Some),
        (None, None) => Ok(None),
    }
}

/// Has the store keep logins where the settings say. Without a store there are none. If the database
/// is away that had them before, the gateway starts without it, and joins it later.
pub(super) async fn place_logins(
    store: Option<Store>,
    settings: &Settings,
    is_key_local: bool,
) -> Result<(Option<Store>, Option<Joining>), Error> {
    let Some(address) = database_address(&settings.store).map_err(store::Error::from)? else {
        store.as_ref().map(Store::verify_auth_in_file).transpose()?;
        return Ok((store, None));
    };
    if is_key_local {
        return Err(Error::MasterKeyNotShared);
    }
    let (store, node_name) = (store.ok_or(Error::DatabaseWithoutState)?, settings.node_name());
    let (store, joining) = connect(store, &address, &node_name).await?;
    tracing::info!(database = address.shown(), "logins are kept in a database");
    Ok((Some(store), joining))
}

/// Connects, or starts without a database that is away. Waits a while for it if nothing is known of
/// it yet, or if another process serves until this one does.
async fn connect(
    store: Store,
    address: &PostgresAddress,
    node_name: &str,
) -> Result<(Store, Option<Joining>), store::Error> {
    for _ in 0..CONNECT_ATTEMPTS {
        let error = match store.clone().connect_auth(address.clone(), node_name).await {
            Err(error) if error.is_passing() => error,
            outcome => return outcome.map(|store| (store, None)),
        };
        if handover::predecessor().is_none()
            && let Some((store, joining)) = store.clone().await_auth(address.clone(), node_name)?
        {
            tracing::error!(
                %error,
                "the gateway starts without its database of logins: tenants with a login get 503 until it answers, \
                 all others are served"
            );
            return Ok((store, Some(joining)));
        }
        tracing::warn!(%error, "the start waits for the database of logins");
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
    store.connect_auth(address.clone(), node_name).await.map(|store| (store, None))
}
