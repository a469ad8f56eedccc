//! Which names a certificate can be obtained for, so that no order is wasted on others.

use std::net::IpAddr;

use crate::base::net;
use crate::settings::Ca;

/// CAs that issue for public names and addresses only.
const PUBLIC_CAS: [&str; 5] = ["letsencrypt.org", "zerossl.com", "pki.goog", "buypass.com", "ssl.com"];
/// Suffixes of names for which only private CAs issue.
const PRIVATE_SUFFIXES: [&str; 6] = [".localhost", ".local", ".internal", ".lan", ".test", ".home.arpa"];

/// Returns whether the configured CAs would issue for a name.
pub(super) fn is_issuable(name: &str, cas: &[Ca]) -> bool {
    let public = cas.iter().all(|ca| is_public_ca(&ca.directory));
    match name.parse::<IpAddr>() {
        Ok(address) => !address.is_unspecified() && (!public || net::is_global(address)),
        Err(_) => {
            let is_private = public && PRIVATE_SUFFIXES.iter().any(|end| name.ends_with(end));
            name.contains('.') && !name.contains('_') && !is_private
        }
    }
}

fn is_public_ca(directory: &str) -> bool {
    let url = url::Url::parse(directory).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    PUBLIC_CAS.iter().any(|ca| host == *ca || host.strip_suffix(ca).is_some_and(|sub| sub.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_ca_is_known_by_its_domain() {
        assert!(is_public_ca("https://acme-v02.api.letsencrypt.org/directory"));
        assert!(!is_public_ca("https://evilletsencrypt.org/directory"));
        assert!(!is_public_ca("https://localhost:14000/dir"));
    }

    #[test]
    fn public_cas_get_no_orders_for_private_names() {
        let of = |directory: &str| vec![Ca { directory: directory.to_owned(), staging: None, eab: None }];
        let (public, private) =
            (of("https://acme-v02.api.letsencrypt.org/directory"), of("https://ca.lan/dir"));
        for name in ["mcp.lan", "10.0.0.1"] {
            assert!(!is_issuable(name, &public) && is_issuable(name, &private), "{name}");
        }
        assert!(is_issuable("mcp.example.com", &public) && is_issuable("8.8.8.8", &public));
        assert!(!is_issuable("localhost", &private) && !is_issuable("0.0.0.0", &private));
    }
}
