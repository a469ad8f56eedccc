//! How a table of what gateways share says which of its columns are sealed.

use tokio_postgres::Row;

use crate::store::auth::postgres::ReadError;
use crate::store::keyring::Keyring;

/// A column whose values are sealed, and that belongs to no login.
pub(super) struct SealedColumn {
    /// The name of the column.
    pub(super) name: &'static str,
    /// Reads the values, with what their seals are bound to.
    pub(super) select: &'static str,
    /// Returns whether the value of such a row opens.
    pub(super) is_intact: fn(&Keyring, &Row) -> Result<bool, ReadError>,
}
