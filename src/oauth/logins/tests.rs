use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::testkit::{
    MACHINE, MACHINE_SECRET, TestAuthServer, TestGateway, ada, form_request, with_basic_auth,
};
use super::block::MAX_BLOCKS;
use super::*;
use crate::base::digest::Digest;
use crate::oauth::blocks::{Block, PersonRef};
use crate::oauth::grants::NewGrant;
use crate::oauth::revocations::GrantHolder;
use crate::store::{BlockId, StoredBlocks};
use crate::telemetry::audit::Operator;

static OPERATOR: Operator = Operator { name: None, uid: Some(1), address: None };
const ORDER: Initiator<'_> = Initiator::Operator { order: "end_logins", operator: &OPERATOR };

fn by(tenant: &str, person: &str, client: &str) -> LoginFilter {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    LoginFilter {
        tenant: given(tenant).map(Into::into),
        person: PersonName::parse(person),
        client: given(client),
        ..LoginFilter::default()
    }
}

#[tokio::test]
async fn logins_are_listed_page_by_page_and_filtered() {
    let bed = TestGateway::new().await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    let client = acme.register_public();
    let began = bed.now();
    for server in [&acme, &acme, &beta] {
        let client =
            if server.inner.tenant.as_str() == "acme" { client.clone() } else { beta.register_public() };
        let code = server.issue_code(&client, None).await;
        assert_eq!(server.redeem(&code, &client).await.status, 200);
    }
    acme.issue_code(&client, None).await;
    let logins = bed.logins();
    let count = async |filter: LoginFilter| logins.list(&filter, None, 10).await.expect("read").logins.len();
    assert_eq!(count(by("", "", "")).await, 3, "a code that was not redeemed is no login");
    let summary = logins.summarize().await.expect("read");
    assert_eq!((summary.in_force, summary.is_complete), (3, true));
    assert_eq!(count(by("acme", "", "")).await, 2);
    assert_eq!(count(by("", "", &client)).await, 2);
    let oid = ada().subject;
    for (person, expected) in [
        ("ADA@contoso.com", 3),
        (&*oid.to_uppercase(), 3),
        (&*format!("{}/{oid}", ada().issuer), 3),
        ("bob@contoso.com", 0),
    ] {
        assert_eq!(count(by("", person, "")).await, expected, "{person}");
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = logins.list(&by("", "", ""), after.as_deref(), 2).await.expect("read");
        seen.extend(page.logins);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.iter().map(|login| &*login.tenant).collect::<Vec<_>>(), ["acme", "acme", "beta"]);
    let first = &seen[0];
    assert_eq!(first.person, Some(Person::from(&ada())));
    assert!(first.since.duration_since(began).as_secs() <= 1 && first.last_used == first.renewed_at);
}

#[tokio::test]
async fn ended_logins_are_over_at_once_and_after_a_restart_and_others_are_not() {
    let bed = TestGateway::new().await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    let mut tokens = Vec::new();
    for server in [&acme, &beta] {
        let client = server.register_public();
        let code = server.issue_code(&client, None).await;
        let sold = server.redeem(&code, &client).await;
        tokens.push((sold.text("access_token").to_owned(), sold.text("refresh_token").to_owned(), client));
    }
    let logins = bed.logins();
    assert_eq!(logins.end(&by("acme", "ada@contoso.com", ""), ORDER).await, Ok(EndedLogins { ended: 1 }));
    let (access, refresh, client) = &tokens[0];
    assert!(!acme.is_access_token_valid(access).await);
    assert_eq!(acme.refresh(refresh, client).await.error(), (400, "invalid_grant"));
    assert!(beta.is_access_token_valid(&tokens[1].0).await);
    assert_eq!(logins.end(&by("acme", "", ""), ORDER).await, Ok(EndedLogins { ended: 0 }));
    drop((acme, beta, logins));
    let bed = bed.restart().await;
    assert!(!bed.server("acme").is_access_token_valid(access).await);
    assert!(bed.server("beta").is_access_token_valid(&tokens[1].0).await);
    assert_eq!(bed.logins().list(&by("", "", ""), None, 9).await.expect("read").logins.len(), 1);
}

#[tokio::test]
async fn a_use_is_remembered() {
    let bed = TestGateway::new().await;
    let acme = bed.server("acme");
    let client = acme.register_public();
    let code = acme.issue_code(&client, None).await;
    let sold = acme.redeem(&code, &client).await;
    bed.clock.advance(Duration::from_secs(600));
    let token = acme.grants.verify_access_token(sold.text("access_token").as_bytes()).await.expect("valid");
    acme.grants.record_use(&token);
    let page = bed.logins().list(&LoginFilter::default(), None, 9).await.expect("read");
    assert_eq!(page.logins[0].last_used.duration_since(page.logins[0].renewed_at).as_secs(), 600);
}

/// Returns a token that the program of the tenant's file gets for itself.
async fn program_token(server: &TestAuthServer) -> String {
    let form = form_request(&[("grant_type", "client_credentials")]);
    let sold = server.request_token(with_basic_auth(form, MACHINE, MACHINE_SECRET)).await;
    assert_eq!(sold.status, 200);
    sold.text("access_token").to_owned()
}

async fn programs(bed: &TestGateway, filter: LoginFilter) -> Vec<ProgramToken> {
    bed.logins().list(&filter, None, 9).await.expect("read").programs
}

#[tokio::test]
async fn tokens_of_programs_are_listed_and_end_alone_or_together() {
    let bed = TestGateway::new().await;
    let (acme, beta) = (bed.server("acme"), bed.server("beta"));
    let (first, second) = (program_token(&acme).await, program_token(&acme).await);
    let other = program_token(&beta).await;
    let token = acme.grants.verify_access_token(first.as_bytes()).await.expect("valid");
    acme.grants.record_use(&token);
    let listed = programs(&bed, by("acme", "", "")).await;
    assert_eq!(listed.iter().filter(|program| program.last_used.is_some()).count(), 1, "{listed:?}");
    assert!(listed.len() == 2 && listed.iter().all(|program| *program.client_id == *MACHINE));
    assert_eq!(programs(&bed, by("", "", &listed[0].label.to_uppercase())).await.len(), 3);
    assert!(programs(&bed, by("", "ada@contoso.com", "")).await.is_empty(), "a program is no person");

    let alone = LoginFilter { id: Some(token.grant_id), ..LoginFilter::default() };
    assert_eq!(bed.logins().end(&alone, ORDER).await, Ok(EndedLogins { ended: 1 }));
    assert!(!acme.is_access_token_valid(&first).await && acme.is_access_token_valid(&second).await);
    assert_eq!(programs(&bed, by("acme", "", "")).await.len(), 1);
    assert_eq!(bed.logins().end(&by("acme", "", ""), ORDER).await, Ok(EndedLogins { ended: 1 }));
    assert!(!acme.is_access_token_valid(&second).await && beta.is_access_token_valid(&other).await);
    assert!(programs(&bed, by("acme", "", "")).await.is_empty());
}

#[tokio::test]
async fn a_programs_token_from_before_a_restart_is_listed_once_it_is_used_and_ends_in_any_case() {
    let bed = TestGateway::new().await;
    let token = program_token(&bed.server("acme")).await;
    let bed = bed.restart().await;
    let acme = bed.server("acme");
    assert!(programs(&bed, LoginFilter::default()).await.is_empty());
    let access = acme.grants.verify_access_token(token.as_bytes()).await.expect("valid");
    acme.grants.record_use(&access);
    assert_eq!(programs(&bed, LoginFilter::default()).await.len(), 1);

    drop(acme);
    let bed = bed.restart().await;
    let acme = bed.server("acme");
    assert_eq!(bed.logins().end(&by("acme", "", MACHINE), ORDER).await, Ok(EndedLogins { ended: 0 }));
    assert!(!acme.is_access_token_valid(&token).await);
}

fn everywhere(person: &str) -> NewBlock {
    NewBlock { person: person.into(), tenant: None, all_tenants: true, reason: None, until: None }
}

#[tokio::test]
async fn a_block_is_of_the_account_that_logged_in_under_the_name() {
    let bed = TestGateway::new().await;
    let acme = bed.server("acme");
    let client = acme.register_public();
    let code = acme.issue_code(&client, Some(bed.provider_refresh_token().await)).await;
    let sold = acme.redeem(&code, &client).await;
    let logins = bed.logins();
    let blocked = logins.block(&everywhere("ADA@contoso.com"), ORDER).await.expect("blocked");
    assert_eq!((blocked.logins_ended, blocked.notice), (1, None));
    let PersonRef::Account { oid, tid, .. } = blocked.block.block.expect("readable").subject else {
        panic!("a name was blocked")
    };
    assert_eq!((oid, tid), (ada().subject, Some(ada().issuer)));
    assert_eq!(acme.refresh(sold.text("refresh_token"), &client).await.error(), (400, "invalid_grant"));
    let code = acme.issue_code(&client, None).await;
    assert_eq!(acme.redeem(&code, &client).await.error(), (400, "invalid_grant"), "a code in flight");
    assert_eq!(logins.unblock("x", ORDER).await, Err(BlockError::Unknown));
    logins.unblock(&blocked.block.id, ORDER).await.expect("lifted");
    let code = acme.issue_code(&client, None).await;
    assert_eq!(acme.redeem(&code, &client).await.status, 200);
    drop((acme, logins));
    assert_eq!(bed.restart().await.logins().blocks(), [], "the store has lifted it, too");
}

#[tokio::test]
async fn a_block_ends_calls_whose_login_the_store_does_not_have() {
    let bed = TestGateway::new().await;
    let logins = bed.logins();
    let parent = CancellationToken::new();
    let call_of = |tenant: &str, account: Account| {
        let client = Digest::of(b"client");
        let holder = || GrantHolder { tenant: tenant.into(), client, account: Some(Arc::new(account)) };
        logins.context.revocations.token_for(GrantId::random(), holder, &parent)
    };
    let bob = Account { username: Some("bob@contoso.com".into()), subject: "bob".into(), ..ada() };
    let (hers, elsewhere, his) = (call_of("acme", ada()), call_of("beta", ada()), call_of("acme", bob));
    let here = NewBlock { tenant: Some("acme".into()), all_tenants: false, ..everywhere("ada@contoso.com") };
    logins.block(&here, ORDER).await.expect("blocked");
    assert_eq!([&hers, &elsewhere, &his].map(|call| call.is_cancelled()), [true, false, false]);
}

#[tokio::test]
async fn a_block_that_somebody_changed_lets_nobody_in_until_it_is_lifted() {
    let bed = TestGateway::new().await;
    bed.logins().block(&everywhere("bob@contoso.com"), ORDER).await.expect("blocked");
    let bed = bed.restart_after("UPDATE blocks SET details = x'00'").await;
    let acme = bed.server("acme");
    let client = acme.register_public();
    let code = acme.issue_code(&client, None).await;
    assert_eq!(acme.redeem(&code, &client).await.status, 503);
    let listed = bed.logins().blocks();
    assert!(listed.len() == 1 && listed[0].block.is_none(), "{listed:?}");
    bed.logins().unblock(&listed[0].id, ORDER).await.expect("lifted");
    let code = acme.issue_code(&client, None).await;
    assert_eq!(acme.redeem(&code, &client).await.status, 200);
}

#[tokio::test]
async fn a_block_ends_by_itself() {
    let bed = TestGateway::new().await;
    let until = Some(bed.now() + jiff::SignedDuration::from_mins(10));
    let order = NewBlock { until, ..everywhere("ada@contoso.com") };
    bed.logins().block(&order, ORDER).await.expect("blocked");
    let acme = bed.server("acme");
    let client = acme.register_public();
    let code = acme.issue_code(&client, None).await;
    assert_eq!(acme.redeem(&code, &client).await.error(), (400, "invalid_grant"));
    bed.clock.advance(Duration::from_secs(600));
    let code = acme.issue_code(&client, None).await;
    assert_eq!(acme.redeem(&code, &client).await.status, 200);
    let past = NewBlock { until, ..everywhere("ada@contoso.com") };
    assert!(matches!(bed.logins().block(&past, ORDER).await, Err(BlockError::Past(_))));
}

#[tokio::test]
async fn a_name_of_several_accounts_blocks_none_of_them() {
    let bed = TestGateway::new().await;
    let acme = bed.server("acme");
    let client = acme.register_public();
    for account in [ada(), Account { subject: "another".into(), ..ada() }] {
        let new = NewGrant {
            client_id: client.clone(),
            client_name: None,
            redirect_uri: None,
            code_challenge: None,
            scope: "mcp:use".to_owned(),
            account,
            provider_refresh_token: None,
        };
        let code = acme.grants.create(new).await.expect("begun");
        acme.grants.redeem_code(code.expose(), &client, None, bed.now()).await.expect("redeemed");
    }
    let refused = bed.logins().block(&everywhere("ada@contoso.com"), ORDER).await;
    let Err(BlockError::Ambiguous(ids)) = refused else { panic!("{refused:?}") };
    assert!(ids.contains("another") && ids.contains(&*ada().subject), "{ids}");
    assert!(bed.logins().blocks().is_empty());
    let one = bed.logins().block(&everywhere("another"), ORDER).await.expect("blocked");
    assert_eq!((one.logins_ended, bed.logins().blocks().len()), (1, 1));
    assert_eq!(bed.logins().list(&LoginFilter::default(), None, 9).await.expect("read").logins.len(), 1);
}

#[tokio::test]
async fn a_block_that_has_ended_is_forgotten_by_the_store_too() {
    let bed = TestGateway::new().await;
    let until = Some(bed.now() + jiff::SignedDuration::from_mins(10));
    let order = NewBlock { until, ..everywhere("ada@contoso.com") };
    bed.logins().block(&order, ORDER).await.expect("blocked");
    bed.logins().context.remove_expired().await;
    assert_eq!(bed.logins().blocks().len(), 1);
    bed.clock.advance(Duration::from_secs(600));
    bed.logins().context.remove_expired().await;
    assert_eq!(bed.logins().blocks(), []);
    let bed = bed.restart().await;
    assert_eq!(bed.logins().blocks(), []);
}

#[tokio::test]
async fn an_order_that_cannot_be_meant_blocks_nobody() {
    let bed = TestGateway::new().await;
    let ada = || everywhere("ada@contoso.com");
    for (order, expected) in [
        (NewBlock { all_tenants: false, ..ada() }, BlockError::Place),
        (NewBlock { tenant: Some("acme".into()), ..ada() }, BlockError::Place),
        (NewBlock { tenant: Some(String::new()), all_tenants: false, ..ada() }, BlockError::Place),
        (NewBlock { reason: Some("x".repeat(501)), ..ada() }, BlockError::LongReason),
        (everywhere(" "), BlockError::Nobody),
    ] {
        assert_eq!(bed.logins().block(&order, ORDER).await, Err(expected), "{order:?}");
    }
    assert_eq!(bed.logins().blocks(), []);
}

#[tokio::test]
async fn no_block_comes_beyond_the_most_that_are_kept_until_one_is_lifted() {
    let bed = TestGateway::new().await;
    let logins = bed.logins();
    let at = bed.now();
    let details = |number: usize| {
        let user = format!("person-{number}@contoso.com").into();
        let block =
            Block { tenant: None, subject: PersonRef::Name { user }, reason: None, since: at, until: None };
        serde_json::to_vec(&block).expect("plain data")
    };
    let known = (0..MAX_BLOCKS).map(|number| (BlockId::random(), details(number))).collect();
    logins.context.blocks.adopt(None, StoredBlocks { known, unreadable: Vec::new() });
    assert_eq!(logins.block(&everywhere("ada@contoso.com"), ORDER).await, Err(BlockError::TooMany));
    let all = logins.blocks();
    assert_eq!(all.len(), MAX_BLOCKS);
    logins.unblock(&all[0].id, ORDER).await.expect("lifted");
    logins.block(&everywhere("ada@contoso.com"), ORDER).await.expect("blocked");
    assert_eq!(logins.blocks().len(), MAX_BLOCKS);
}

#[tokio::test]
async fn a_block_that_the_store_could_not_take_is_written_without_another_order() {
    let bed = TestGateway::new().await;
    let logins = bed.logins();
    let subject = PersonRef::Name { user: "ada@contoso.com".into() };
    let block = Block { tenant: None, subject, reason: None, since: bed.now(), until: None };
    // As an order leaves it whose write has failed.
    logins.context.blocks.insert(block.clone());
    logins.context.retry_unpersisted().await;
    drop(logins);
    let kept = bed.restart().await.logins().blocks();
    assert_eq!(kept.iter().map(|kept| kept.block.clone()).collect::<Vec<_>>(), [Some(block)]);
}
