//! Prunes clients' JWK sets (RFC 7517) for the cache, to the members that verification reads.
//!
//! Parsed JSON takes many times the bytes of its text. A pruned set takes about as many.

use serde_json::{Map, Value};

/// The limit on the keys of a set. No client has nearly as many.
const MOST_KEYS: usize = 32;
/// The members that verification reads, of RSA and EC keys.
const KEPT_MEMBERS: [&str; 9] = ["kty", "use", "alg", "kid", "crv", "n", "e", "x", "y"];
/// In bytes. The modulus of an 8192-bit RSA key has 1366 characters.
const MAX_MEMBER_BYTES: usize = 1400;

/// Returns the pruned set; `None` if the value is not a JWK set.
pub(super) fn prune(set: &Value) -> Option<Value> {
    let keys = set["keys"].as_array()?.iter().take(MOST_KEYS).filter_map(prune_key);
    Some(serde_json::json!({ "keys": keys.collect::<Vec<_>>() }))
}

fn prune_key(key: &Value) -> Option<Value> {
    let said = key.as_object()?;
    let mut kept = Map::with_capacity(KEPT_MEMBERS.len());
    for name in KEPT_MEMBERS {
        match said.get(name).map(|value| value.as_str().filter(|text| text.len() <= MAX_MEMBER_BYTES)) {
            Some(Some(text)) => drop(kept.insert(name.to_owned(), text.into())),
            // A key without one of its members would be another key.
            Some(None) => return None,
            None => {}
        }
    }
    kept.contains_key("kty").then_some(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_keeps_its_keys_and_nothing_else() {
        let rsa = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "a", "n": "AQAB", "e": "AQAB" });
        let mut more = rsa.clone();
        more["x5c"] = json!([[[[0]]]]);
        let set = json!({ "keys": [more, 7, { "kid": "b" }, { "kty": ["RSA"] }], "more": [0, 0] });
        assert_eq!(prune(&set), Some(json!({ "keys": [rsa] })));
        assert_eq!(prune(&json!({ "keys": 1 })), None);
        let many = json!({ "keys": vec![json!({ "kty": "EC" }); 100] });
        assert_eq!(prune(&many).expect("a set")["keys"].as_array().map(Vec::len), Some(MOST_KEYS));
    }
}
