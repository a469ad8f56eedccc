//! Floor 3: who is calling. The bearer check, and each tenant's own authorization server (OAuth 2.1, RFC 8414, RFC 9728)
//! in front of Microsoft Entra ID.

pub mod bearer;
pub mod client;
pub mod parameters;
