//! Signs what is posted to receivers as Standard Webhooks does
//! (<https://www.standardwebhooks.com>): HMAC-SHA256 over id, time and body.

use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;

use super::disk;
use super::secret::Secret;

/// The largest file of keys.
const MAX_FILE_BYTES: u64 = 16 << 10;
/// The most keys in a file: the current one, and others during a rotation.
const MAX_KEYS: usize = 4;
/// Marks a key whose rest is base64.
const ENCODED: &str = "whsec_";

/// The keys of one receiver.
pub struct SigningKeys(Vec<hmac::Key>);

impl SigningKeys {
    /// Reads the keys of a file, one a line. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or one that is not what it says.
    pub fn read(path: &Path) -> Result<Self, String> {
        let describe = |why: String| format!("the signing key {} cannot be used: {why}", path.display());
        let text = disk::read_text(path, MAX_FILE_BYTES).map(Secret::new);
        let text = text.map_err(|error| describe(error.to_string()))?;
        let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<_>> = lines.take(MAX_KEYS).map(parse_key).collect();
        match keys {
            None => Err(describe(format!("after `{ENCODED}` there must be base64"))),
            Some(keys) if keys.is_empty() => Err(describe("it is empty".to_owned())),
            Some(keys) => Ok(Self(keys)),
        }
    }

    /// Returns the value of `webhook-signature`: a signature by each key.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut signed = format!("{id}.{}.", at.as_second()).into_bytes();
        signed.extend_from_slice(body);
        let signature = |key: &hmac::Key| format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, &signed)));
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

fn parse_key(line: &str) -> Option<hmac::Key> {
    let bytes = match line.strip_prefix(ENCODED) {
        Some(encoded) => BASE64_STANDARD.decode(encoded).ok()?,
        None => line.as_bytes().to_vec(),
    };
    Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<SigningKeys, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, text).expect("written");
        SigningKeys::read(&path)
    }

    /// The example of the specification.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let keys = keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a key");
        let at = Timestamp::from_second(1_614_265_330).expect("a time");
        let signed = keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_line_is_a_key_and_a_file_without_one_is_refused() {
        let signed = keys("one\n\n two \n").expect("keys").sign("id", Timestamp::UNIX_EPOCH, b"{}");
        assert_eq!(signed.split(' ').count(), 2);
        assert_eq!(
            signed.split(' ').next(),
            Some(keys("one").expect("a key").sign("id", Timestamp::UNIX_EPOCH, b"{}").as_str())
        );
        for bad in ["", " \n", "whsec_%%%"] {
            assert!(keys(bad).is_err(), "{bad:?}");
        }
    }
}
