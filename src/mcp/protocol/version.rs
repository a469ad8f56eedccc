//! The revisions of the protocol.

use rmcp::model::ProtocolVersion;

/// The supported protocol revisions, oldest first.
pub(super) const PROTOCOL_VERSIONS: &[ProtocolVersion] = ProtocolVersion::KNOWN_VERSIONS;
