mod two_gateways;

use std::time::Duration;

use super::super::testkit::{REDIRECT, TestGateway, VERIFIER, form_request, login_spec};
use super::GrantPayload;
use crate::identity::tests::fake::{Endpoint, Fault};
use crate::spec::{AccessRules, LoginSpec, TenantName};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Grants as earlier versions stored them: whole, and of the first version.
const STORED: [&str; 2] = [
    concat!(
        r#"{"person":{"tid":"72f988bf-86f1-41af-91ab-2d7cd011db47","oid":"00aa11bb-22cc-33dd-44ee-55ff66007788","#,
        r#""name":"Ada Lovelace","username":"ada@contoso.com","roles":["Analyst"],"groups":{"Known":["g1"]},"guest":true},"#,
        r#""at":{"app":"6731de76-14a6-49ae-97bc-6eba6914391e","directory":"contoso.com"},"scope":"mcp:use","#,
        r#""client_name":"Claude","redirect_uri":"https://client.example/callback","code_challenge":"c","upstream":"r"}"#,
    ),
    r#"{"person":{"tid":"t","oid":"o","groups":"TooMany","guest":false},"scope":"mcp:use"}"#,
];

#[test]
fn stored_grants_are_read_and_written_as_ever() {
    for stored in STORED {
        let payload: GrantPayload = serde_json::from_str(stored).expect("read");
        assert_eq!(String::from_utf8(payload.encode()).expect("text"), stored);
    }
}

#[tokio::test]
async fn of_concurrent_requests_with_a_code_one_succeeds_and_a_later_one_revokes_the_grant() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, None).await;
    let answers = futures_util::future::join_all((0..10).map(|_| server.redeem(&code, &client))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(lost.iter().all(|answer| answer.error() == (400, "invalid_grant")), "{lost:?}");
    // All of them had the verifier, so they were the client's own.
    assert!(server.is_access_token_valid(won[0].text("access_token")).await);
    bed.clock.advance(MINUTE);
    assert_eq!(server.redeem(&code, &client).await.error(), (400, "invalid_grant"));
    assert!(!server.is_access_token_valid(won[0].text("access_token")).await);
    let refreshed = server.refresh(won[0].text("refresh_token"), &client).await;
    assert_eq!(refreshed.error(), (400, "invalid_grant"));
}

#[tokio::test]
async fn a_code_that_the_network_delivers_late_ends_nothing_and_one_of_a_thief_does() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    for verifier in [Some(VERIFIER.to_owned()), Some(VERIFIER.to_lowercase()), None] {
        let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
        let first = server.redeem(&code, &client).await;
        let last = server.refresh(first.text("refresh_token"), &client).await;
        bed.clock.advance(MINUTE - Duration::from_secs(1));
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("client_id", &client),
        ];
        form.extend(verifier.as_deref().map(|verifier| ("code_verifier", verifier)));
        let late = server.request_token(form_request(&form)).await;
        assert_eq!(late.error(), (400, "invalid_grant"), "{verifier:?}");
        let goes_on = server.refresh(last.text("refresh_token"), &client).await.status == 200;
        assert_eq!(goes_on, verifier.as_deref() == Some(VERIFIER), "{verifier:?}");
    }
}

#[tokio::test]
async fn a_code_is_good_for_a_minute() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let (early, late) = (server.issue_code(&client, None).await, server.issue_code(&client, None).await);
    bed.clock.advance(MINUTE - Duration::from_secs(1));
    assert_eq!(server.redeem(&early, &client).await.status, 200);
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(server.redeem(&late, &client).await.error(), (400, "invalid_grant"));
}

#[tokio::test]
async fn concurrent_refreshes_get_the_same_successor_and_a_late_one_revokes_the_grant() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let first = server.redeem(&code, &client).await;
    let first = first.text("refresh_token");
    let (one, two) = tokio::join!(server.refresh(first, &client), server.refresh(first, &client));
    assert_eq!(one.text("refresh_token"), two.text("refresh_token"));
    assert_ne!(one.text("refresh_token"), first);
    assert_eq!(bed.entra.count(Endpoint::Token), 1 + 1, "one login, one renewal");
    // A client that did not receive the response retries within the minute.
    bed.clock.advance(MINUTE - Duration::from_secs(1));
    let again = server.refresh(first, &client).await;
    assert_eq!(again.text("refresh_token"), one.text("refresh_token"));
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(server.refresh(first, &client).await.error(), (400, "invalid_grant"));
    assert_eq!(server.refresh(one.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
    assert!(!server.is_access_token_valid(again.text("access_token")).await, "access ends with the family");
}

#[tokio::test]
async fn an_older_token_yields_nothing_and_a_minute_after_it_was_replaced_revokes_the_grant() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let first = server.redeem(&code, &client).await;
    let mut last = server.refresh(first.text("refresh_token"), &client).await;
    // Renewals that follow do not put it off.
    for _ in 0..5 {
        last = server.refresh(last.text("refresh_token"), &client).await;
        let late = server.refresh(first.text("refresh_token"), &client).await;
        assert_eq!(late.status, 503, "as if the network had been slow: {late:?}");
        bed.clock.advance(Duration::from_secs(10));
    }
    bed.clock.advance(Duration::from_secs(9));
    assert_eq!(server.refresh(first.text("refresh_token"), &client).await.status, 503);
    last = server.refresh(last.text("refresh_token"), &client).await;
    assert_eq!(last.status, 200, "the login goes on: {last:?}");
    bed.clock.advance(Duration::from_secs(1));
    let stolen = server.refresh(first.text("refresh_token"), &client).await;
    assert_eq!(stolen.error(), (400, "invalid_grant"));
    assert_eq!(server.refresh(last.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
}

#[tokio::test]
async fn a_tenants_file_says_how_long_access_tokens_live_also_those_that_are_out() {
    let bed = TestGateway::new().await;
    let name = TenantName::parse("acme").expect("a name");
    let login = |minutes: u64| LoginSpec {
        access_token_lifetime: Duration::from_secs(minutes * 60),
        ..login_spec(AccessRules::default())
    };
    let server = bed.server_for_entry("acme", &name, login(60));
    let client = server.register_public();
    let sold = server.redeem(&server.issue_code(&client, None).await, &client).await;
    assert_eq!(sold.body["expires_in"], 3600);
    let long = sold.text("access_token");
    let server = bed.server_for_entry("acme", &name, login(5));
    let sold = server.redeem(&server.issue_code(&client, None).await, &client).await;
    assert_eq!(sold.body["expires_in"], 300);
    bed.clock.advance(5 * MINUTE - Duration::from_secs(1));
    for token in [long, sold.text("access_token")] {
        assert!(server.is_access_token_valid(token).await);
    }
    bed.clock.advance(Duration::from_secs(1));
    for token in [long, sold.text("access_token")] {
        assert!(!server.is_access_token_valid(token).await);
    }
}

#[tokio::test]
async fn a_forged_token_revokes_nothing() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let first = server.redeem(&code, &client).await;
    let good = first.text("refresh_token");
    let id = good.split('.').nth(1).expect("an id");
    let proof = good.rsplit('.').next().expect("a proof");
    let other = if good.ends_with('A') { 'Q' } else { 'A' };
    let twisted = format!("{}{other}", &good[..good.len() - 1]);
    for forged in [
        format!("rt.{id}.0.{proof}"),
        format!("rt.{id}.2.{proof}"),
        format!("rt.{id}.01.{proof}"),
        format!("c.{id}.0.{proof}"),
        format!("c.{id}.1.{proof}"),
        format!("rt.{id}.1."),
        format!("rt.{}.1.{proof}", "0".repeat(32)),
        twisted,
        code.clone(),
        String::from("x"),
        "é".repeat(200),
    ] {
        assert_eq!(server.refresh(&forged, &client).await.error(), (400, "invalid_grant"), "{forged}");
    }
    // A refresh token is not accepted as a code either.
    assert_eq!(server.redeem(good, &client).await.error(), (400, "invalid_grant"));
    let other = server.register_public();
    assert_eq!(server.refresh(good, &other).await.error(), (400, "invalid_grant"), "another client's");
    assert_eq!(server.refresh(good, &client).await.status, 200);
}

#[tokio::test]
async fn an_outage_at_entra_uses_nothing_up() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let first = server.redeem(&code, &client).await;
    let token = first.text("refresh_token");
    for fault in [Fault::Answer(503, "down"), Fault::Refusal("invalid_client", 7_000_222)] {
        bed.entra.fault(Endpoint::Token, fault);
        let answer = server.refresh(token, &client).await;
        assert_eq!(answer.error(), (503, "temporarily_unavailable"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    bed.entra.fault(Endpoint::Token, None);
    assert_eq!(server.refresh(token, &client).await.status, 200);
    assert!(server.is_access_token_valid(first.text("access_token")).await);
}

#[tokio::test]
async fn a_disabled_account_loses_access_at_its_next_refresh() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let first = server.redeem(&code, &client).await;
    bed.entra.revoke_sessions();
    let answer = server.refresh(first.text("refresh_token"), &client).await;
    assert_eq!(answer.error(), (400, "invalid_grant"));
    assert!(!server.is_access_token_valid(first.text("access_token")).await);
}

#[tokio::test]
async fn a_login_without_entras_token_cannot_be_renewed() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, None).await;
    let first = server.redeem(&code, &client).await;
    assert_eq!(server.refresh(first.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
}

#[tokio::test]
async fn a_refresh_token_may_idle_for_thirty_days_and_its_grant_lasts_ninety() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let idle = server.redeem(&code, &client).await;
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let mut used = server.redeem(&code, &client).await;
    for _ in 0..3 {
        bed.clock.advance(DAY * 29);
        used = server.refresh(used.text("refresh_token"), &client).await;
        assert_eq!(used.status, 200);
    }
    assert_eq!(server.refresh(idle.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
    bed.clock.advance(DAY * 3);
    assert_eq!(server.refresh(used.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
}

#[tokio::test]
async fn logins_revocations_and_keys_survive_a_restart() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let kept = server.redeem(&code, &client).await;
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let ended = server.redeem(&code, &client).await;
    assert_eq!(server.revoke(ended.text("refresh_token"), &client).await.status, 200);
    let unused = server.issue_code(&client, None).await;
    drop(server);
    let bed = bed.restart().await;
    let server = bed.server("acme");
    assert!(server.is_access_token_valid(kept.text("access_token")).await);
    assert!(!server.is_access_token_valid(ended.text("access_token")).await);
    assert_eq!(server.redeem(&unused, &client).await.status, 200);
    assert_eq!(server.refresh(kept.text("refresh_token"), &client).await.status, 200);
    assert_eq!(server.refresh(ended.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
}

#[tokio::test]
async fn nothing_of_a_login_is_in_clear_text_on_disk() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let upstream = bed.provider_refresh_token().await;
    let code = server.issue_code(&client, Some(upstream.clone())).await;
    let tokens = server.redeem(&code, &client).await;
    let proof = |token: &str| token.rsplit('.').next().expect("a proof").to_owned();
    let secrets = [
        proof(&code),
        proof(tokens.text("refresh_token")),
        proof(tokens.text("access_token")),
        upstream.expose().to_owned(),
        "ada@contoso.com".to_owned(),
    ];
    for entry in std::fs::read_dir(bed.folder.path()).expect("listed").flatten() {
        let bytes = std::fs::read(entry.path()).expect("read");
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {:?}", entry.file_name());
        }
    }
}

#[tokio::test]
async fn a_tampered_revocation_revokes_all_earlier_access_tokens() {
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let kept = server.redeem(&code, &client).await;
    let code = server.issue_code(&client, None).await;
    let ended = server.redeem(&code, &client).await;
    assert_eq!(server.revoke(ended.text("refresh_token"), &client).await.status, 200);
    drop(server);
    let bed = bed.restart_after("UPDATE revoked SET issued_until = 0").await;
    let server = bed.server("acme");
    for tokens in [&ended, &kept] {
        assert!(!server.is_access_token_valid(tokens.text("access_token")).await);
    }
    bed.clock.advance(Duration::from_secs(1));
    let renewed = server.refresh(kept.text("refresh_token"), &client).await;
    assert!(server.is_access_token_valid(renewed.text("access_token")).await, "{renewed:?}");
}

#[tokio::test]
async fn a_tampered_denial_refuses_all_registered_clients_of_the_tenant() {
    let bed = TestGateway::new().await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    let (client, removed, other) = (acme.register_public(), acme.register_public(), beta.register_public());
    acme.inner.clients.remove(&removed, bed.now()).await.expect("removed");
    drop((acme, beta));
    let bed = bed.restart_after("UPDATE denied_clients SET client = zeroblob(32)").await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    for id in [&client, &removed] {
        assert_eq!(acme.refresh("rt.x", id).await.status, 503);
    }
    assert_eq!(beta.refresh("rt.x", &other).await.error(), (400, "invalid_grant"), "its neighbour goes on");
}

#[tokio::test]
async fn tokens_of_an_earlier_incarnation_are_invalid() {
    use crate::oauth::testkit::{MACHINE, MACHINE_SECRET, form_request, login_spec, with_basic_auth};
    use crate::spec::{AccessRules, TenantName};
    let bed = TestGateway::new().await;
    let server = bed.server("acme");
    let client = server.register_public();
    let code = server.issue_code(&client, None).await;
    let sold = server.redeem(&code, &client).await;
    let request =
        with_basic_auth(form_request(&[("grant_type", "client_credentials")]), MACHINE, MACHINE_SECRET);
    let machines = server.request_token(request).await;
    let tokens = [sold.text("access_token"), machines.text("access_token")];
    for token in tokens {
        assert!(server.is_access_token_valid(token).await);
    }
    // The server of a new holder knows none of them.
    let acme = TenantName::parse("acme").expect("a name");
    let taken = bed.server_for_entry("zz", &acme, login_spec(AccessRules::default()));
    for token in tokens {
        assert!(!taken.is_access_token_valid(token).await);
    }
    assert_eq!(taken.refresh(sold.text("refresh_token"), &client).await.error(), (401, "invalid_client"));
}
