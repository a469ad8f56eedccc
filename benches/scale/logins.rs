//! Logins in the store of a gateway, as if people had logged in.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tenantd::store::{CreateGrant, GrantId, KeySource, RotateGrant, Store};

/// Nobody logs in at this directory.
pub(crate) const LINES: &str = "\
oauth_enabled: true
microsoft_client_id: 6731de76-14a6-49ae-97bc-6eba6914391e
microsoft_client_secret: b2-0d5e8f17a3c94620-bench
microsoft_tenant_id: 72f988bf-86f1-41af-91ab-2d7cd011db47
";

/// Adds logins, one tenant after the other, to the store of a gateway that is stopped.
pub(crate) fn add(state: &Path, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async {
            let store = Store::open(state, &KeySource::State)?;
            let incarnations = store.auth().load_state().await?.incarnations.current;
            ensure!(!incarnations.is_empty(), "no tenant has a login");
            let now = jiff::Timestamp::now();
            for number in 0..count {
                let incarnation = &incarnations[number % incarnations.len()].incarnation;
                let id = GrantId::random();
                let client_id = "client".to_owned();
                let grant = CreateGrant {
                    id,
                    client_id: client_id.clone(),
                    now,
                    code_expires_at: now + Duration::from_secs(60),
                    family_key: [7; 32],
                    payload: vec![b'x'; 600],
                };
                store.auth().create_grant(incarnation, grant).await?;
                let redeemed = RotateGrant {
                    id,
                    from_sequence: 0,
                    client_id,
                    now,
                    expires_at: now + Duration::from_secs(86_400),
                    ends_at: now + Duration::from_secs(86_400),
                    payload: vec![b'x'; 600],
                };
                ensure!(store.auth().take_code(incarnation, redeemed).await?, "a code was not taken");
            }
            Ok(())
        })
        .context("adding logins")
}
