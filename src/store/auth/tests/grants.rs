//! The incarnation and the grants that tests use.

use super::*;

/// Returns the incarnation that most tests use.
pub(super) fn acme() -> Incarnation {
    static INCARNATION: std::sync::LazyLock<Incarnation> =
        std::sync::LazyLock::new(|| Incarnation::new(&"acme".into()));
    INCARNATION.clone()
}

/// Makes a grant whose code has not been redeemed.
pub(super) fn new_grant(client_id: &str) -> CreateGrant {
    CreateGrant {
        id: GrantId::random(),
        client_id: client_id.to_owned(),
        now: NOW,
        code_expires_at: NOW + 60.seconds(),
        family_key: [7; 32],
        payload: b"canary details".to_vec(),
    }
}

/// Stores a grant whose code has not been redeemed.
pub(super) async fn create_grant(store: &AuthStore, client_id: &str) -> GrantId {
    let grant = new_grant(client_id);
    let id = grant.id;
    store.create_grant(&acme(), grant).await.expect("kept");
    id
}

/// Makes the step from a token to the next.
pub(super) fn new_rotation(id: GrantId, from: u32) -> RotateGrant {
    RotateGrant {
        id,
        from_sequence: from,
        client_id: "client".to_owned(),
        now: NOW,
        expires_at: NOW + 30.seconds(),
        ends_at: NOW + 90.seconds(),
        payload: b"canary details".to_vec(),
    }
}
