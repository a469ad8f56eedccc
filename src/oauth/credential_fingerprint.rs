//! Fingerprints of machine clients' tokens. A token carries the fingerprint of the secret or key
//! that it was issued for, and is valid while the tenant's file has that secret or key. So
//! replacing a secret or key invalidates its tokens at once.
//!
//! The fingerprint is a digest that includes the secret id of the tenant's incarnation, so that a
//! leaked token does not help to guess a secret.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::base::digest::{Digest, Hasher};
use crate::spec::{LoginSpec, MachineClientSpec};
use crate::store::Incarnation;

/// The valid fingerprints of each machine client.
#[derive(Debug)]
pub(super) struct CredentialFingerprints(Box<[MachineClientFingerprints]>);

#[derive(Debug)]
struct MachineClientFingerprints {
    client_id: Arc<str>,
    fingerprints: Box<[Box<str>]>,
}

impl CredentialFingerprints {
    pub(super) fn from_login(incarnation: &Incarnation, login: &LoginSpec) -> Self {
        Self::from_machine_clients(incarnation, &login.machine_clients)
    }

    fn from_machine_clients(incarnation: &Incarnation, machine_clients: &[MachineClientSpec]) -> Self {
        let fingerprints = |machine: &MachineClientSpec| {
            let all = credential_digests(machine)
                .map(|proof| compute_fingerprint(incarnation, &machine.id, &proof).into());
            MachineClientFingerprints { client_id: Arc::clone(&machine.id), fingerprints: all.collect() }
        };
        Self(machine_clients.iter().map(fingerprints).collect())
    }

    /// Whether the fingerprint is that of a current secret or key of this client.
    pub(super) fn contains(&self, client_id: &str, fingerprint: &str) -> bool {
        let own = self.0.iter().filter(|machine| *machine.client_id == *client_id);
        own.flat_map(|machine| &machine.fingerprints).any(|known| **known == *fingerprint)
    }
}

/// Returns the fingerprint of a token of this client. `proof` is the digest of the secret or key
/// that authenticated it.
pub(super) fn compute_fingerprint(incarnation: &Incarnation, client_id: &str, proof: &Digest) -> String {
    let mut hasher = Hasher::new();
    hasher.update_field(b"machine token");
    hasher.update_field(incarnation.id().as_bytes());
    hasher.update_field(client_id.as_bytes());
    hasher.update_field(proof.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&hasher.finish().as_bytes()[..16])
}

/// Returns the digest that identifies a public key.
pub(super) fn digest_of_key(key: &Value) -> Digest {
    Digest::of(key.to_string().as_bytes())
}

/// Returns the digests of a machine client's secret and keys.
fn credential_digests(machine: &MachineClientSpec) -> impl Iterator<Item = Digest> {
    let set: Option<Value> = machine.jwks.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let keys = set.as_ref().and_then(|set| set.get("keys")).and_then(Value::as_array);
    let keys: Vec<_> = keys.into_iter().flatten().map(digest_of_key).collect();
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

    fn fingerprints(
        incarnation: &Incarnation,
        machine_clients: Vec<MachineClientSpec>,
    ) -> CredentialFingerprints {
        CredentialFingerprints::from_machine_clients(incarnation, &machine_clients)
    }

    #[test]
    fn a_token_is_valid_while_its_credential_exists() {
        let incarnation = Incarnation::new(&"acme".into());
        let bought = compute_fingerprint(&incarnation, "a", &Digest::of(b"old"));
        assert!(fingerprints(&incarnation, vec![machine("a", Some("old"), None)]).contains("a", &bought));
        let others = [
            fingerprints(&incarnation, vec![machine("a", Some("new"), None)]),
            fingerprints(&incarnation, vec![machine("a", None, Some(r#"{"keys":[]}"#))]),
            fingerprints(&incarnation, vec![machine("b", Some("old"), None)]),
            fingerprints(&Incarnation::new(&"acme".into()), vec![machine("a", Some("old"), None)]),
            fingerprints(&incarnation, Vec::new()),
        ];
        for other in others {
            assert!(!other.contains("a", &bought), "{other:?}");
        }
    }

    #[test]
    fn removing_one_of_several_keys_invalidates_its_tokens_only() {
        let incarnation = Incarnation::new(&"acme".into());
        let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        let (one, two) = (r#"{"kty":"EC","x":"1"}"#, r#"{"kty":"EC","x":"2"}"#);
        let bought = |key: &str| {
            compute_fingerprint(
                &incarnation,
                "a",
                &digest_of_key(&serde_json::from_str::<Value>(key).expect("JSON")),
            )
        };
        let both = fingerprints(&incarnation, vec![machine("a", None, Some(&set(&[one, two])))]);
        assert!(both.contains("a", &bought(one)) && both.contains("a", &bought(two)));
        let left = fingerprints(&incarnation, vec![machine("a", None, Some(&set(&[two])))]);
        assert!(!left.contains("a", &bought(one)) && left.contains("a", &bought(two)));
    }
}
