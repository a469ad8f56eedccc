//! The order that is under way at a CA, with the key of its certificate. The gateway that takes the
//! lease after a crash goes on with it instead of ordering again.

use instant_acme::{Account, Order, OrderStatus};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::bad_nonce::retry_bad_nonce;
use crate::base::secret::Secret;

/// An order under way, as it is sealed and stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PendingOrder {
    /// The CA's directory.
    pub(super) directory: String,
    pub(super) url: String,
    /// PEM of the certificate's key.
    #[serde(with = "exposed")]
    key: Secret,
}

/// The key is written only to be sealed.
mod exposed {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::base::secret::Secret;

    pub(super) fn serialize<S: Serializer>(key: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(key.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

impl PendingOrder {
    pub(super) fn new(directory: &str, order: &Order, key: &KeyPair) -> Self {
        Self {
            directory: directory.to_owned(),
            url: order.url().to_owned(),
            key: Secret::new(key.serialize_pem()),
        }
    }

    pub(super) fn serialize(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }

    /// Finds the order at the CA. `None` if it came to nothing, or the CA does not know it.
    pub(super) async fn find(&self, account: &Account) -> Option<(Order, KeyPair)> {
        let key = KeyPair::from_pem(self.key.expose()).ok()?;
        let mut order = retry_bad_nonce!(account.order(self.url.clone())).ok()?;
        (order.state().status != OrderStatus::Invalid).then_some((order, key))
    }
}
