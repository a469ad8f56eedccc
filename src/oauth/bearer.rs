//! The bearer check in front of a tenant (RFC 6750): credential → [`Principal`], or the denial to answer.

use std::net::IpAddr;

use http::HeaderMap;
use jiff::Timestamp;

use crate::settings::OpenTenants;
use crate::spec::AccessSpec;

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody in particular: the tenant is open.
    Anonymous,
    /// The holder of a static key.
    Key { label: std::sync::Arc<str> },
}

impl Principal {
    /// What audit and rate buckets call the caller.
    pub fn label(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Key { label } => label,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// 401: no credential was presented.
    Missing,
    /// 400: the Authorization header cannot be read.
    Malformed,
    /// 401 `invalid_token`: unknown or expired.
    Invalid,
    /// 403: an open tenant, and the caller is not on a private network.
    NotPrivate,
}

/// The check of one tenant.
#[derive(Debug, Clone)]
pub struct BearerCheck {}

impl BearerCheck {
    pub fn new(_access: &AccessSpec, _open: OpenTenants) -> Self {
        unimplemented!("owner: oauth")
    }
    pub fn check(&self, _headers: &HeaderMap, _peer: IpAddr, _now: Timestamp) -> Result<Principal, Denial> {
        unimplemented!("owner: oauth")
    }
}

impl Denial {
    pub fn status(self) -> http::StatusCode {
        unimplemented!("owner: oauth")
    }
    /// The `WWW-Authenticate` value, if the status wants one.
    pub fn challenge(self) -> Option<&'static str> {
        unimplemented!("owner: oauth")
    }
    /// One sentence for people: what was found and what to do.
    pub fn sentence(self) -> &'static str {
        unimplemented!("owner: oauth")
    }
}
