//! Which of several gateways tells what all of them see alike.

use std::sync::Arc;

use tokio::sync::watch;

use super::condition::Conditions;
use super::telling::Telling;
use crate::spec::AlertKind;

/// What is the same on all gateways: it follows from the tenants' files, from common counts, and from
/// what gateways say of their tenants. All else is about one gateway, which tells it and gives its
/// name.
const COMMON_KINDS: [AlertKind; 4] = [
    AlertKind::TenantsDisagree,
    AlertKind::QuotaNear,
    AlertKind::ClientSecretExpires,
    AlertKind::ApiKeyExpires,
];

/// Whether this gateway tells what is the same on all of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Teller(watch::Receiver<bool>);

impl Teller {
    /// Returns one that follows a value that changes while gateways come and go.
    pub fn new(tells: watch::Receiver<bool>) -> Self {
        Self(tells)
    }

    /// Waits until it begins or ends; for ever if it never does.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns what a target has to hear from this gateway.
    pub(super) fn select(&self, telling: &mut Telling, current: Arc<Conditions>) -> Arc<Conditions> {
        if *self.0.borrow() {
            return current;
        }
        telling.leave_to_others(&COMMON_KINDS);
        if current.keys().all(|key| !COMMON_KINDS.contains(&key.kind)) {
            return current;
        }
        let is_own = |kind: &AlertKind| !COMMON_KINDS.contains(kind);
        let own = current.iter().filter(|(key, _)| is_own(&key.kind));
        Arc::new(own.map(|(key, condition)| (key.clone(), condition.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::condition::{Condition, ConditionKey, Subject};
    use super::*;

    #[test]
    fn what_all_gateways_see_is_told_by_one_and_ends_without_a_word_elsewhere() {
        let condition = |kind| {
            let key = ConditionKey { kind, id: "acme".to_owned() };
            (key, Condition::new(Subject::tenant("acme"), "it is so", "repair it"))
        };
        let current: Conditions =
            [AlertKind::QuotaNear, AlertKind::TenantRejected].map(condition).into_iter().collect();
        let current = Arc::new(current);
        let (tells, teller) = watch::channel(true);
        let teller = Teller::new(teller);
        let mut telling = Telling::new(AlertKind::ALL.to_vec());
        let mut told = |current: &Arc<Conditions>| {
            let current = teller.select(&mut telling, Arc::clone(current));
            telling.note(&current);
            let mut count = 0;
            while let Some(change) = telling.next_change(&current) {
                count += 1;
                telling.record(change, 0);
            }
            count
        };
        assert_eq!(told(&current), 2);
        tells.send_replace(false);
        assert_eq!(told(&current), 0, "the quota is for another gateway, which knows of it");
        assert_eq!(told(&Arc::default()), 1, "the tenant is well");
        tells.send_replace(true);
        assert_eq!(told(&current), 2);
    }
}
