//! The memory that responses occupy from their first byte until they are written out.

use std::sync::Arc;

use super::{Call, Error};
use crate::base::budget::{Budget, Hold, Party};
use crate::spec::TenantName;

/// The budget unless [`Room::new`] is given another.
const DEFAULT_MIB: usize = 256;

/// The response memory, and the tenant in whose share it is counted.
#[derive(Debug, Clone)]
pub(super) struct Room {
    budget: Arc<Budget>,
    tenant: Option<Arc<str>>,
}

impl Room {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, tenant: None }
    }

    pub(super) fn for_tenant(&self, name: &TenantName) -> Self {
        Self { budget: Arc::clone(&self.budget), tenant: Some(Arc::clone(name.shared())) }
    }

    /// Room for one answer, in the shares of the tenant and of where the caller is; nothing yet.
    pub(super) fn hold(&self, call: &Call) -> Hold {
        // The share is asked for anew each time, so that a tenant that is not called costs nothing.
        let share = self.tenant.as_ref().map(|name| self.budget.share(Party::Tenant(Arc::clone(name))));
        let network = call.network.map(|network| self.budget.share(Party::Network(network)));
        self.budget.hold(share, network, call.has_credential)
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(Budget::of_mib(DEFAULT_MIB))
    }
}

/// Reserves `bytes` more.
pub(super) fn take(hold: &mut Hold, bytes: usize) -> Result<(), Error> {
    hold.grow(bytes as u64).map_err(Error::NoRoom)
}

/// Releases `bytes`.
pub(super) fn give_back(hold: &mut Hold, bytes: usize) {
    hold.shrink(bytes as u64);
}
