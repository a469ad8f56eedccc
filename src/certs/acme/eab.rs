//! The key that binds an ACME account to an existing external one (external account binding, RFC
//! 8555 section 7.3.4).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::base::disk;
use crate::certs::Error;
use crate::settings;

/// The largest file that is read, in bytes; far more than a key needs.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// The binding, as instant-acme expects it.
pub(super) struct ExternalAccountBinding {
    pub(super) kid: String,
    pub(super) key: Vec<u8>,
}

/// Reads the key from its file. CAs issue keys in either base64 alphabet, with padding or without.
pub(super) fn read_binding(eab: &settings::ExternalAccount) -> Result<ExternalAccountBinding, Error> {
    let file = eab.key_file.display();
    let text = disk::read_text(&eab.key_file, MAX_KEY_FILE_BYTES).map_err(|error| {
        Error(format!("the external account's key {file} (acme_eab_key_file) cannot be read: {error}"))
    })?;
    let key = decode_key(text.trim()).ok_or_else(|| {
        Error(format!(
            "the external account's key {file} (acme_eab_key_file) is not base64; paste it as the CA shows \
             it"
        ))
    })?;
    Ok(ExternalAccountBinding { kid: eab.kid.clone(), key })
}

fn decode_key(text: &str) -> Option<Vec<u8>> {
    let plain = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    BASE64_URL_SAFE_NO_PAD.decode(plain).ok().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_cas_hand_it_out() {
        let key = Some(vec![0xfb, 0xff, 0xfe, 0x01]);
        for text in ["-__-AQ", "-__-AQ==", "+//+AQ=="] {
            assert_eq!(decode_key(text), key, "{text}");
        }
        assert_eq!(decode_key("not a key"), None);
        assert_eq!(decode_key(""), None);
    }
}
