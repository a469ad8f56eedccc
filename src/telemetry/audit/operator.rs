//! The operator behind an order.

use std::net::IpAddr;

use super::AuditRecord;

/// Who gave an order through the admin listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operator {
    /// The name of the admin token, or of the session that it began.
    pub name: Option<String>,
    /// The account on this machine.
    pub uid: Option<u32>,
    /// The address that the order came from.
    pub address: Option<IpAddr>,
}

impl Operator {
    /// Adds the operator to a record.
    pub fn sign<'a>(&'a self, record: AuditRecord<'a>) -> AuditRecord<'a> {
        AuditRecord {
            operator: self.name.as_deref(),
            uid: self.uid,
            client_addr: self.address.or(record.client_addr),
            ..record
        }
    }
}
