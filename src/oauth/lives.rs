//! The lives of tenants while the process lives: which one each tenant is in, and what the store has yet to be told of them.
//!
//! A tenant that is built is given its life; it is the tenant's once that is published. So whatever is built and does not come
//! to serve takes nothing from anybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::base::digest::{Digest, Hasher};
use crate::identity::Upstream;
use crate::spec::{LoginSpec, TenantName};
use crate::store::{Kept, Life, Turn};

/// What held when a life was taken over from an earlier version, whose grants and tokens do not say under what they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) upstream: Upstream,
    /// Of the machine clients and what they proved themselves by, in hexadecimal digits.
    pub(super) machines: String,
}

/// A tenant's life, as the tenant is given it.
#[derive(Debug, Clone)]
pub(super) struct Lived {
    pub(super) life: Life,
    /// Of a life that was begun by an earlier version.
    pub(super) before: Option<Arc<Before>>,
}

/// Which life each tenant is in.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<Arc<str>, Held>,
    /// What the store does not have yet, in the order in which it happened.
    unwritten: Vec<Turn>,
}

#[derive(Debug)]
struct Held {
    life: Life,
    /// None: nobody has taken what an earlier version kept.
    stem: Option<Arc<str>>,
    before: Option<Arc<Before>>,
}

impl Before {
    fn of(login: &LoginSpec) -> Self {
        Self { upstream: Upstream::of(&login.identity), machines: machines(login).to_string() }
    }

    /// Whether the machine clients, and what they prove themselves by, are what they were.
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

    /// The life that a tenant of this entry is in once it is published.
    pub(super) fn look(&self, tenant: &TenantName, stem: &str, login: &LoginSpec) -> Lived {
        match self.lock().held.get(tenant.shared()) {
            Some(Held { life, stem: Some(holder), before }) if **holder == *stem => {
                Lived { life: life.clone(), before: before.clone() }
            }
            // What an earlier version kept is of whoever has the name first.
            Some(Held { life, stem: None, .. }) => {
                Lived { life: life.clone(), before: Some(Arc::new(Before::of(login))) }
            }
            _ => Lived { life: Life::begin(tenant.shared()), before: None },
        }
    }

    /// A tenant of this entry was published, in this life if people log in to it: whatever is of another ends.
    pub(super) fn settle(&self, tenant: &TenantName, stem: &Arc<str>, lived: Option<&Lived>) {
        let mut inner = self.lock();
        let held = inner.held.get(tenant.shared());
        let is_its_own = held.is_some_and(|held| held.stem.as_ref() == Some(stem));
        match (lived, held) {
            (Some(lived), Some(held)) if is_its_own && held.life == lived.life => {}
            (Some(lived), _) => inner.begin(lived.clone(), stem),
            // Where nobody logs in there is nothing that would need a life; what another entry left ends all the same.
            (None, None) => {}
            (None, Some(_)) if is_its_own => {}
            (None, Some(Held { stem: None, life, .. })) => {
                let lived = Lived { life: life.clone(), before: None };
                inner.begin(lived, stem);
            }
            (None, Some(_)) => inner.end(tenant.shared()),
        }
    }

    /// An operator removed an entry: the lives of all names that it had are over.
    pub(super) fn end(&self, stem: &str) {
        let mut inner = self.lock();
        let of_it = |(tenant, held): (&Arc<str>, &Held)| {
            held.stem.as_deref().is_some_and(|holder| holder == stem).then(|| Arc::clone(tenant))
        };
        let ended: Vec<_> = inner.held.iter().filter_map(of_it).collect();
        ended.iter().for_each(|tenant| inner.end(tenant));
    }

    /// What the store does not have yet.
    pub(super) fn unwritten(&self) -> Vec<Turn> {
        self.lock().unwritten.clone()
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.lock().unwritten.is_empty()
    }

    /// The store has the first so many of those now.
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
