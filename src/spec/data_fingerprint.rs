//! Which data a tenant gives access to, in a form that can be compared but reveals no key.

use std::sync::OnceLock;

use url::Url;

use crate::base::digest::Hasher;
use crate::base::random;
use crate::base::secret::Secret;

/// One endpoint of a backend with one API key and one trained connection. Equal values lead to the
/// same data.
///
/// It is a digest under a key that only this process has: comparable, and useless to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataFingerprint([u8; 16]);

impl DataFingerprint {
    /// Returns the fingerprint of `key` at `url`. The URL's query and trailing slashes make no
    /// difference.
    pub fn compute(url: &Url, key: &Secret, connection_id: Option<&str>) -> Self {
        static KEY: OnceLock<[u8; 32]> = OnceLock::new();
        let mut hasher = Hasher::new();
        hasher.update_field(KEY.get_or_init(random::bytes));
        hasher.update_field(url.origin().ascii_serialization().as_bytes());
        hasher.update_field(url.path().trim_end_matches('/').as_bytes());
        hasher.update_field(key.expose().as_bytes());
        hasher.update_field(connection_id.unwrap_or_default().as_bytes());
        let digest = hasher.finish();
        Self(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
    }
}

/// The data that one tenant gives access to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataFingerprints {
    /// What the tenant's tools give access to.
    pub effective: Vec<DataFingerprint>,
    /// What the export alone gives access to, as in a copy without the operator's files, unless it
    /// is in `effective`.
    pub export_only: Vec<DataFingerprint>,
}

impl DataFingerprints {
    /// Returns everything that is closed to callers who may not call this tenant.
    pub fn all(&self) -> impl Iterator<Item = DataFingerprint> {
        self.effective.iter().chain(&self.export_only).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(url: &str, key: &str, connection_id: Option<&str>) -> DataFingerprint {
        DataFingerprint::compute(&Url::parse(url).expect("a URL"), &Secret::new(key), connection_id)
    }

    #[test]
    fn spellings_of_one_endpoint_are_one_reach() {
        let one = fingerprint("https://portal.test/nlp-search", "k1", Some("c1"));
        for url in [
            "https://PORTAL.test:443/nlp-search",
            "https://portal.test/nlp-search/",
            "https://portal.test/nlp-search?a=b",
        ] {
            assert_eq!(fingerprint(url, "k1", Some("c1")), one, "{url}");
        }
        for (url, key, connection) in [
            ("http://portal.test/nlp-search", "k1", Some("c1")),
            ("https://portal.test:8443/nlp-search", "k1", Some("c1")),
            ("https://portal.test/nlp-context", "k1", Some("c1")),
            ("https://portal.test/nlp-search", "k2", Some("c1")),
            ("https://portal.test/nlp-search", "k1", Some("c2")),
            ("https://portal.test/nlp-search", "k1", None),
        ] {
            assert_ne!(fingerprint(url, key, connection), one, "{url} {key} {connection:?}");
        }
    }

    #[test]
    fn nothing_of_the_key_is_in_it() {
        let fingerprint = fingerprint("https://portal.test/nlp-search", "canary", None);
        assert_ne!(fingerprint.0[..], crate::base::digest::Digest::of(b"canary").as_bytes()[..16]);
        assert!(!format!("{fingerprint:?}").contains("canary"));
    }
}
