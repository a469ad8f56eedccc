//! Keeps logins in a PostgreSQL database, if the settings name one.

use std::time::Duration;

use super::Error;
use crate::settings::{Settings, StoreSettings};
use crate::store::{self, PostgresAddress, Store};

/// How often the start tries again, and how long it waits in between.
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

/// Has the store keep logins where the settings say. Without a store there are none.
pub(super) async fn place_logins(
    store: Option<Store>,
    settings: &Settings,
    is_key_local: bool,
) -> Result<Option<Store>, Error> {
    let Some(address) = database_address(&settings.store).map_err(store::Error::from)? else {
        store.as_ref().map(Store::verify_auth_in_file).transpose()?;
        return Ok(store);
    };
    if is_key_local {
        return Err(Error::MasterKeyNotShared);
    }
    let shown = address.shown().to_owned();
    let store = connect(store.ok_or(Error::DatabaseWithoutState)?, &address, &settings.node_name()).await?;
    tracing::info!(database = shown, "logins are kept in a database");
    Ok(Some(store))
}

/// Connects; waits a while for a server that starts.
async fn connect(store: Store, address: &PostgresAddress, node_name: &str) -> Result<Store, store::Error> {
    for _ in 0..CONNECT_ATTEMPTS {
        match store.clone().connect_auth(address.clone(), node_name).await {
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "the start waits for the database of logins");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
    store.connect_auth(address.clone(), node_name).await
}
