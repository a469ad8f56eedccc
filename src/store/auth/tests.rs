//! What every engine of the auth store promises: each fact of [`suite`] is a test of each engine.

mod database;
mod grants;
mod postgres_failures;
mod postgres_only;
mod postgres_outcomes;
mod suite;

use jiff::{SignedDuration, ToSpan};

use self::database::TestDatabase;
use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Makes every fact a test of every engine.
macro_rules! test_engines {
    ($($fact:ident),* $(,)?) => {
        mod sqlite {
            use super::{database::TestDatabase, suite};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                suite::$fact(TestDatabase::in_file().await).await;
            })*
        }

        mod postgres {
            use super::{database::TestDatabase, suite};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                suite::$fact(TestDatabase::in_postgres().await).await;
            })*
        }
    };
}

test_engines![
    a_code_is_redeemed_once_by_concurrent_requests,
    a_grant_is_sealed_and_exists_for_its_tenant_only,
    a_token_rotates_once_and_only_before_it_expires,
    who_loses_a_race_finds_what_won_it,
    a_revocation_survives_a_restart,
    several_revocations_are_written_together,
    expired_rows_are_deleted_in_batches,
    all_grants_of_a_client_are_deleted,
    grants_are_listed_page_by_page,
    only_the_first_signing_key_is_inserted,
    signing_keys_are_replaced_together,
    a_block_is_sealed_and_one_that_was_changed_is_reported,
    clients_are_entered_once_and_removed,
    a_removed_client_stays_removed,
    rows_of_an_incarnation_exist_for_it_only_and_are_deleted_when_it_ends,
    several_changes_of_incarnations_act_in_order,
    errors_have_the_kind_of_their_cause,
    a_probe_shows_that_the_store_can_be_written,
];

#[test]
fn an_id_parses_from_its_text() {
    let id = GrantId::random();
    assert_eq!(GrantId::parse(&id.to_string()), Some(id));
    for bad in ["", "ab", &"g".repeat(32), &"A".repeat(32), &"é".repeat(16)] {
        assert_eq!(GrantId::parse(bad), None, "{bad}");
    }
}
