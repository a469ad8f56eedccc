//! The memory that responses occupy from their first byte until they are written out.

use std::sync::Arc;

use super::{CallContext, Error};
use crate::base::budget::{Budget, Consumer, Reservation};
use crate::spec::TenantName;

/// The budget unless [`ResponseBudget::new`] is given another.
const DEFAULT_MIB: usize = 256;

/// The response memory, and the tenant in whose share it is counted.
#[derive(Debug, Clone)]
pub(super) struct ResponseBudget {
    budget: Arc<Budget>,
    tenant: Option<Arc<str>>,
}

impl ResponseBudget {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, tenant: None }
    }

    /// Changes how much memory responses may take to `mib` MiB. What is held stays.
    pub(super) fn set_mib(&self, mib: usize) {
        self.budget.set_mib(mib);
    }

    pub(super) fn for_tenant(&self, name: &TenantName) -> Self {
        Self { budget: Arc::clone(&self.budget), tenant: Some(Arc::clone(name.as_arc())) }
    }

    /// Room for one answer, in the shares of the tenant and of where the caller is; nothing yet.
    pub(super) fn new_reservation(&self, call: &CallContext) -> Reservation {
        // The share is asked for anew each time, so that a tenant that is not called costs nothing.
        let share = self.tenant.as_ref().map(|name| self.budget.share(Consumer::Tenant(Arc::clone(name))));
        let network = call.network.map(|network| self.budget.share(Consumer::Network(network)));
        self.budget.new_reservation(share, network, call.has_credential)
    }
}

impl Default for ResponseBudget {
    fn default() -> Self {
        Self::new(Budget::from_mib(DEFAULT_MIB))
    }
}

/// Reserves `bytes` more.
pub(super) fn reserve(reservation: &mut Reservation, bytes: usize) -> Result<(), Error> {
    reservation.try_grow(bytes as u64).map_err(Error::BudgetExhausted)
}

/// Releases `bytes`.
pub(super) fn release(reservation: &mut Reservation, bytes: usize) {
    reservation.shrink(bytes as u64);
}
