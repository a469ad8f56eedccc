//! Marks of machine clients' tokens. A token carries the mark of the secret or key that it was
//! issued for, and is valid while the tenant's file has that secret or key. So replacing a secret
//! or key invalidates its tokens at once.
//!
//! The mark is a digest that includes the secret id of the tenant's life, so that a leaked token
//! does not help to guess a secret.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::base::digest::{Digest, Hasher};
use crate::spec::{LoginSpec, MachineClientSpec};
use crate::store::Life;

/// The valid marks of each machine client.
#[derive(Debug)]
pub(super) struct Marks(Box<[Machine]>);

#[derive(Debug)]
struct Machine {
    id: Arc<str>,
    marks: Box<[Box<str>]>,
}

impl Marks {
    pub(super) fn of(life: &Life, login: &LoginSpec) -> Self {
        Self::of_machines(life, &login.machine_clients)
    }

    fn of_machines(life: &Life, machines: &[MachineClientSpec]) -> Self {
        let marks = |machine: &MachineClientSpec| {
            let all = proofs(machine).map(|proof| mark(life, &machine.id, &proof).into());
            Machine { id: Arc::clone(&machine.id), marks: all.collect() }
        };
        Self(machines.iter().map(marks).collect())
    }

    /// Whether the mark is that of a current secret or key of this client.
    pub(super) fn include(&self, client_id: &str, mark: &str) -> bool {
        let of_it = self.0.iter().filter(|machine| *machine.id == *client_id);
        of_it.flat_map(|machine| &machine.marks).any(|known| **known == *mark)
    }
}

/// Returns the mark of a token of this client. `proof` is the digest of the secret or key that
/// authenticated it.
pub(super) fn mark(life: &Life, client_id: &str, proof: &Digest) -> String {
    let mut fields = Hasher::new();
    fields.field(b"machine token");
    fields.field(life.id().as_bytes());
    fields.field(client_id.as_bytes());
    fields.field(proof.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&fields.finish().as_bytes()[..16])
}

/// Returns the digest that identifies a public key.
pub(super) fn proof_of_key(key: &Value) -> Digest {
    Digest::of(key.to_string().as_bytes())
}

/// Returns the digests of a machine client's secret and keys.
fn proofs(machine: &MachineClientSpec) -> impl Iterator<Item = Digest> {
    let set: Option<Value> = machine.jwks.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let keys = set.as_ref().and_then(|set| set.get("keys")).and_then(Value::as_array);
    let keys: Vec<_> = keys.into_iter().flatten().map(proof_of_key).collect();
    machine.secret.into_iter().chain(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, secret: Option<&str>, jwks: Option<&str>) -> MachineClientSpec {
        MachineClientSpec {
            id: id.into(),
            label: id.into(),
            secret: secret.map(|secret| Digest::of(secret.as_bytes())),
            jwks: jwks.map(Arc::from),
            roles: Vec::new(),
        }
    }

    fn marks(life: &Life, machines: Vec<MachineClientSpec>) -> Marks {
        Marks::of_machines(life, &machines)
    }

    #[test]
    fn a_token_counts_while_what_it_was_bought_by_is_there() {
        let life = Life::begin(&"acme".into());
        let bought = mark(&life, "a", &Digest::of(b"old"));
        assert!(marks(&life, vec![machine("a", Some("old"), None)]).include("a", &bought));
        let others = [
            marks(&life, vec![machine("a", Some("new"), None)]),
            marks(&life, vec![machine("a", None, Some(r#"{"keys":[]}"#))]),
            marks(&life, vec![machine("b", Some("old"), None)]),
            marks(&Life::begin(&"acme".into()), vec![machine("a", Some("old"), None)]),
            marks(&life, Vec::new()),
        ];
        for other in others {
            assert!(!other.include("a", &bought), "{other:?}");
        }
    }

    #[test]
    fn one_of_several_keys_that_goes_takes_its_own_tokens_along() {
        let life = Life::begin(&"acme".into());
        let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        let (one, two) = (r#"{"kty":"EC","x":"1"}"#, r#"{"kty":"EC","x":"2"}"#);
        let bought =
            |key: &str| mark(&life, "a", &proof_of_key(&serde_json::from_str::<Value>(key).expect("JSON")));
        let both = marks(&life, vec![machine("a", None, Some(&set(&[one, two])))]);
        assert!(both.include("a", &bought(one)) && both.include("a", &bought(two)));
        let left = marks(&life, vec![machine("a", None, Some(&set(&[two])))]);
        assert!(!left.include("a", &bought(one)) && left.include("a", &bought(two)));
    }
}
