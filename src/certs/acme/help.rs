//! Advice about failures: for each problem type of RFC 8555 section 6.7, and for CAs that cannot be
//! reached.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::http::{ExchangeTimeout, NotAnAcmeResponse};
use crate::base::error_chain::causes;

/// Returns advice for a problem, by the last part of its type.
pub(super) fn help_for_problem(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "connection" => {
            "Open ports 443 and 80 from the whole internet to this gateway; a firewall, a router or a \
             cloud's security group blocks them, or the DNS name points to another machine"
        }
        "dns" => {
            "Create an A or AAAA record for the name that points here, and wait until every name server has \
             it; if the zone is signed, check DNSSEC"
        }
        "caa" => {
            "A CAA record of the name, or of a domain above it, allows other CAs only: add this one to it, or ask one \
             that it allows (acme_directory)"
        }
        "tls" => {
            "Another server answers on port 443: pass TLS through to this gateway, or let port 80 reach it"
        }
        "unauthorized" | "incorrectResponse" => {
            "Another server answers under this name: let the DNS name point here only (an old AAAA record, a \
             CDN or a proxy in front are the usual causes)"
        }
        "rateLimited" => {
            "Nothing to do: the gateway waits by itself, and uses another CA at once if there is one \
             (acme_directory). `tenantd certs list` says until when"
        }
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "This CA does not issue for this name: use another name, or another CA (acme_directory)"
        }
        "invalidProfile" => "Remove acme_profile, or use a profile that the CA has",
        "userActionRequired" => {
            "Read what the CA requires (usually its terms have changed) and set accept_tos"
        }
        "externalAccountRequired" => {
            "This CA requires an external account: set acme_eab_kid to its key id and acme_eab_key_file to a \
             file with its key"
        }
        "invalidContact" | "unsupportedContact" => "Change acme_contact, or remove it",
        "serverInternal" => "Nothing to do: the CA has a problem, and the gateway tries again by itself",
        "badCSR" | "badPublicKey" | "badSignatureAlgorithm" => {
            "This CA does not accept the gateway's kind of key (ECDSA P-256): use another CA \
             (acme_directory)"
        }
        _ => return None,
    })
}

/// Advice for an account that was not opened although an external account was named.
pub(super) const WRONG_EAB: &str = "The CA does not accept the external account: compare acme_eab_kid and the key in acme_eab_key_file with what it shows";

/// Returns advice for a CA that sent no ACME response.
pub(super) fn help_for_transport_error(error: &(dyn StdError + 'static)) -> &'static str {
    for error in causes(error) {
        if error.is::<NotAnAcmeResponse>() {
            return "If this continues, check that acme_directory is the CA's, and that no proxy answers \
                    instead of the CA";
        }
        if error.is::<ExchangeTimeout>() {
            return "Nothing to do if the CA is slow; otherwise check this machine's outgoing connections";
        }
        if let Some(help) = find_tls_error(error).and_then(help_for_certificate_error) {
            return help;
        }
    }
    "Check that this machine can connect to the CA and has a name server; the gateway tries again by itself"
}

/// Returns rustls' error, which a socket's error may wrap.
fn find_tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map_or_else(|| error.downcast_ref(), |inner| inner.downcast_ref())
}

fn help_for_certificate_error(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    Some(match why {
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            "Its server's certificate is not valid now: set this machine's clock"
        }
        UnknownIssuer => {
            "This machine does not trust the CA's own server: set acme_ca_root to its root certificate, or \
             install CA certificates (Debian: ca-certificates)"
        }
        _ => {
            "The certificate of the CA's own server is not valid for it: check that acme_directory is the \
              CA's"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_trusted_is_told_from_a_clock_that_is_wrong() {
        let help = |why| {
            let error = rustls::Error::InvalidCertificate(why);
            help_for_transport_error(&io::Error::new(io::ErrorKind::InvalidData, error))
        };
        assert!(help(CertificateError::UnknownIssuer).contains("acme_ca_root"));
        assert!(help(CertificateError::Expired).contains("clock"));
        assert!(help(CertificateError::NotValidYet).contains("clock"));
        assert!(help(CertificateError::Revoked).contains("acme_directory"));
        assert!(
            help_for_transport_error(&io::Error::from(io::ErrorKind::ConnectionRefused))
                .contains("can connect")
        );
    }
}
