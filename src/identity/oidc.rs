//! What OpenID Connect says of any provider: its published metadata and keys, the answers of its
//! token endpoint, the id_token, and the HTTP transport for all of that.

pub(super) mod discovery;
pub(super) mod id_token;
pub(super) mod jwks;
pub(super) mod token_response;
pub(super) mod transport;
