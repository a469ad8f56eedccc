//! Keeps logins in a PostgreSQL database, if the settings name one: connects at start, holds the
//! database while the gateway runs, and releases it at the end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::base::task::Tasks;
use crate::settings::StoreSettings;
use crate::store::{self, PostgresAddress, Store};

/// How often the start tries again, and how long it waits in between: together longer than a lease.
const CONNECT_ATTEMPTS: u32 = 10;
const CONNECT_PAUSE: Duration = Duration::from_secs(2);
/// The time for releasing the database at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

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
    settings: &StoreSettings,
    is_key_local: bool,
) -> Result<Option<Store>, Error> {
    let Some(address) = database_address(settings).map_err(store::Error::from)? else {
        store.as_ref().map(Store::verify_auth_in_file).transpose()?;
        return Ok(store);
    };
    if is_key_local {
        return Err(Error::MasterKeyNotShared);
    }
    let shown = address.shown().to_owned();
    let store = connect(store.ok_or(Error::DatabaseWithoutState)?, &address).await?;
    tracing::info!(database = shown, "logins are kept in a database");
    Ok(Some(store))
}

/// Connects; waits a while for a server that starts, and for the lease of a gateway that crashed.
async fn connect(store: Store, address: &PostgresAddress) -> Result<Store, store::Error> {
    for _ in 0..CONNECT_ATTEMPTS {
        match store.clone().connect_auth(address.clone()).await {
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "the start waits for the database of logins");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
    store.connect_auth(address.clone()).await
}

/// Holds the database while the gateway runs. Returns what fires if another gateway takes it over.
pub(super) fn hold(store: Option<&Store>, tasks: &Tasks) -> CancellationToken {
    let taken_over = CancellationToken::new();
    let Some(auth) = store.map(|store| store.auth().clone()) else { return taken_over };
    let (fired, abort) = (taken_over.clone(), tasks.abort_signal().clone());
    tasks.spawn_detached("database lease", async move {
        if abort.run_until_cancelled(auth.hold()).await.is_some() {
            tracing::error!("another gateway took the database of logins over: this one ends");
            fired.cancel();
        }
    });
    taken_over
}

/// Lets another gateway have the database.
pub(super) async fn release(store: Option<&Store>) {
    if let Some(store) = store {
        let _released = tokio::time::timeout(RELEASE_TIMEOUT, store.auth().release()).await;
    }
}
