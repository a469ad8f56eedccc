//! The rows of the auth store as any database holds them: what is secret is encrypted, and the seal
//! covers the clear columns, so that a row that was changed or moved does not open. Engines read and
//! write these rows; they see nothing in the clear, so a row can be copied from one to another.

mod block;
mod client;
mod grant;
mod incarnation;
mod revocation;
mod rows;
mod signing_key;

use jiff::Timestamp;

pub(in crate::store) use self::block::BlockRow;
pub(in crate::store) use self::client::{ClientRow, RemovedClientRow};
pub(in crate::store) use self::grant::{GrantRow, RotationRow};
pub(in crate::store) use self::incarnation::{IncarnationChangeRow, IncarnationRow};
pub(in crate::store) use self::revocation::RevocationRow;
pub use self::rows::AuthCounts;
pub(in crate::store) use self::rows::AuthRows;
pub(in crate::store) use self::signing_key::SigningKeyRow;

/// Converts seconds since 1970; a value beyond the calendar becomes its end.
fn to_timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
