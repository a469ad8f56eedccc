//! The lives of tenants in memory: the current life of each tenant, and the changes that the store
//! does not have yet.
//!
//! A tenant that is built gets a life, which becomes its current one when the tenant is published.
//! So a tenant that is built and never published takes nothing from another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::base::digest::{Digest, Hasher};
use crate::identity::Upstream;
use crate::spec::{LoginSpec, TenantName};
use crate::store::{Kept, Life, Turn};

/// The settings when a life was taken over from an earlier version, whose grants and tokens do not
/// record them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) upstream: Upstream,
    /// The digest of the machine clients with their secrets and keys, in hexadecimal digits.
    pub(super) machines: String,
}

/// A tenant's life, as assigned when the tenant is built.
#[derive(Debug, Clone)]
pub(super) struct Lived {
    pub(super) life: Life,
    /// Present for a life that an earlier version began.
    pub(super) before: Option<Arc<Before>>,
}

/// The current life of each tenant.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<Arc<str>, Held>,
    /// The changes that the store does not have yet, in order.
    unwritten: Vec<Turn>,
}

#[derive(Debug)]
struct Held {
    life: Life,
    /// The holder of the name; `None` if no entry has taken over an earlier version's data yet.
    stem: Option<Arc<str>>,
    before: Option<Arc<Before>>,
}

impl Before {
    fn of(login: &LoginSpec) -> Self {
        Self { upstream: Upstream::of(&login.identity), machines: machines(login).to_string() }
    }

    /// Whether the machine clients, their secrets and their keys are unchanged.
    pub(super) fn has_the_machines_of(&self, login: &LoginSpec) -> bool {
        self.machines == machines(login).to_string()
    }
}

fn machines(login: &LoginSpec) -> Digest {
    let mut fields = Hasher::new();
    for machine in &login.machine_clients {
        fields.field(machine.id.as_bytes());
        fields.field(machine.secret.as_ref().map_or(&[], |secret| &secret.as_bytes()[..]));
        fields.field(machine.jwks.as_deref().unwrap_or_default().as_bytes());
    }
    fields.finish()
}

impl Lives {
    pub(super) fn of(kept: Vec<Kept>) -> Self {
        let held = |Kept { life, stem, about }: Kept| {
            let before = serde_json::from_slice(&about).ok().map(Arc::new);
            (Arc::clone(life.tenant()), Held { life, stem, before })
        };
        Self(Mutex::new(Inner { held: kept.into_iter().map(held).collect(), unwritten: Vec::new() }))
    }

    /// Returns the life that a tenant of this entry will have once it is published.
    pub(super) fn look(&self, tenant: &TenantName, stem: &str, login: &LoginSpec) -> Lived {
        match self.lock().held.get(tenant.shared()) {
            Some(Held { life, stem: Some(holder), before }) if **holder == *stem => {
                Lived { life: life.clone(), before: before.clone() }
            }
            // The data of an earlier version goes to the first holder of the name.
            Some(Held { life, stem: None, .. }) => {
                Lived { life: life.clone(), before: Some(Arc::new(Before::of(login))) }
            }
            _ => Lived { life: Life::begin(tenant.shared()), before: None },
        }
    }

    /// Makes `lived` the current life of a published tenant, if it has a login; ends the life of
    /// another entry.
    pub(super) fn settle(&self, tenant: &TenantName, stem: &Arc<str>, lived: Option<&Lived>) {
        let mut inner = self.lock();
        let held = inner.held.get(tenant.shared());
        let is_its_own = held.is_some_and(|held| held.stem.as_ref() == Some(stem));
        match (lived, held) {
            (Some(lived), Some(held)) if is_its_own && held.life == lived.life => {}
            (Some(lived), _) => inner.begin(lived.clone(), stem),
            // A tenant without login needs no life, but a life that another entry left must end.
            (None, None) => {}
            (None, Some(_)) if is_its_own => {}
            (None, Some(Held { stem: None, life, .. })) => {
                let lived = Lived { life: life.clone(), before: None };
                inner.begin(lived, stem);
            }
            (None, Some(_)) => inner.end(tenant.shared()),
        }
    }

    /// Ends the lives of all names that a removed entry had.
    pub(super) fn end(&self, stem: &str) {
        let mut inner = self.lock();
        let of_it = |(tenant, held): (&Arc<str>, &Held)| {
            held.stem.as_deref().is_some_and(|holder| holder == stem).then(|| Arc::clone(tenant))
        };
        let ended: Vec<_> = inner.held.iter().filter_map(of_it).collect();
        ended.iter().for_each(|tenant| inner.end(tenant));
    }

    /// Returns the changes that the store does not have yet.
    pub(super) fn unwritten(&self) -> Vec<Turn> {
        self.lock().unwritten.clone()
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.lock().unwritten.is_empty()
    }

    /// Records that the store has the first `count` of those changes.
    pub(super) fn are_written(&self, count: usize) {
        self.lock().unwritten.drain(..count);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Inner {
    fn begin(&mut self, lived: Lived, stem: &Arc<str>) {
        let Lived { life, before } = lived;
        let about = before.as_deref().map(|before| serde_json::to_vec(before).expect("plain data"));
        let kept =
            Kept { life: life.clone(), stem: Some(Arc::clone(stem)), about: about.unwrap_or_default() };
        self.unwritten.push(Turn::Begin(kept));
        self.held.insert(Arc::clone(life.tenant()), Held { life, stem: Some(Arc::clone(stem)), before });
    }

    fn end(&mut self, tenant: &Arc<str>) {
        self.held.remove(tenant);
        self.unwritten.push(Turn::End(Arc::clone(tenant)));
    }
}

#[cfg(test)]
mod tests;
