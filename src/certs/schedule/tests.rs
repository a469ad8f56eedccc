//! The scheduler over years of simulated time, with hostile CAs and clocks that jump.

use proptest::prelude::*;

use super::*;

const FAR: i64 = 400 * 86_400;

fn start() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().expect("a time")
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn lifetime(now: Timestamp, life: i64) -> CertificateLifetime {
    CertificateLifetime { not_before: now, not_after: now + seconds(life) }
}

fn failure(fault: FailureKind) -> IssuanceFailure {
    IssuanceFailure::new(fault, "it failed")
}

/// Lifetimes from an hour to 398 days. `windows` also yields windows that no sane CA would send.
fn any_lifetime() -> impl Strategy<Value = i64> {
    3600..398 * 86_400_i64
}

fn any_window() -> impl Strategy<Value = Option<RenewalWindow>> {
    let moment = (-FAR..FAR).prop_map(|offset| start() + seconds(offset));
    proptest::option::of((moment.clone(), moment).prop_map(|(start, end)| RenewalWindow { start, end }))
}

fn any_failure_kind() -> impl Strategy<Value = FailureKind> {
    prop_oneof![
        Just(FailureKind::Unreachable),
        Just(FailureKind::Validation),
        Just(FailureKind::RateLimited),
        Just(FailureKind::Refused),
        Just(FailureKind::BadAnswer),
    ]
}

proptest! {
    #[test]
    fn a_renewal_is_due_before_the_last_twentieth_whatever_the_ca_suggests(
        life in any_lifetime(), window in any_window(), chance in 0.0..1.0_f64
    ) {
        let now = start();
        let held = lifetime(now, life);
        let mut renewal = RenewalState::default();
        renewal.apply_success(held, ChallengeKind::TlsAlpn, now, chance);
        renewal.apply_renewal_info(held, window, seconds(60), now, chance);
        renewal.fetch_info_at = None;
        let next = next_step(Some(held), &renewal, now);
        prop_assert_eq!(next.step, RenewalStep::Order);
        prop_assert!(next.at <= held.not_after - held.duration() / 20, "{next:?} of {held:?}");
        prop_assert!(next.at >= now + held.duration() / 20, "{next:?} of {held:?} follows too soon");
    }

    #[test]
    fn a_ca_that_always_fails_gets_no_more_orders_than_the_caps(
        fault in any_failure_kind(), life in proptest::option::of(any_lifetime()), chances in proptest::collection::vec(0.0..1.0_f64, 8)
    ) {
        let mut now = start();
        let end = now + seconds(3 * 86_400);
        let held = life.map(|life| lifetime(now - seconds(life * 9 / 10), life));
        let mut renewal = RenewalState { renew_at: Some(now), ..RenewalState::default() };
        let mut orders: Vec<Timestamp> = Vec::new();
        let mut failed_staging_orders: Vec<Timestamp> = Vec::new();
        for round in 0..10_000 {
            let next = next_step(held, &renewal, now);
            prop_assert!(next.at <= now + seconds(86_400 + 3600 * 3), "it sleeps too long: {next:?}");
            now = now.max(next.at);
            if now > end { break }
            // As an attempt does it with a staging directory: both challenge types there, or both
            // at the CA.
            let (staging, placed) = match renewal.needs_staging {
                true => (true, &mut failed_staging_orders),
                false => (false, &mut orders),
            };
            for _ in 0..2 {
                if renewal.is_order_allowed(now) {
                    renewal.count_order(staging, now);
                    placed.push(now);
                }
            }
            renewal.apply_failure(failure(fault), held, 1, now, chances[round % 8]);
            renewal.repair(now, 1);
        }
        for (placed, caps) in [(&orders, ORDER_CAPS), (&failed_staging_orders, STAGING_ORDER_CAPS)] {
            for (index, &order) in placed.iter().enumerate() {
                let within = |lifetime: i64| placed[index..].iter().filter(|&&at| at < order + seconds(lifetime)).count();
                prop_assert!(within(3600) <= caps.per_hour, "an hour had {}", within(3600));
                prop_assert!(within(86_400) <= caps.per_day, "a day had {}", within(86_400));
            }
        }
        prop_assert!(orders.len() + failed_staging_orders.len() >= 4, "it gave up: {orders:?} {failed_staging_orders:?}");
        prop_assert!(fault != FailureKind::Validation || orders.len() == 2, "the CA saw {orders:?}");
    }

    #[test]
    fn a_ca_that_fails_for_most_of_a_life_still_brings_a_renewal(
        life in 36_000..398 * 86_400_i64, outage in 0.0..0.6_f64, chance in 0.0..1.0_f64
    ) {
        let mut now = start();
        let held = lifetime(now, life);
        let mut renewal = RenewalState::default();
        renewal.apply_success(held, ChallengeKind::Http, now, chance);
        renewal.fetch_info_at = None;
        let well_again = held.not_after - seconds((life as f64 * 0.4 * (1.0 - outage)) as i64);
        for _ in 0..10_000 {
            now = now.max(next_step(Some(held), &renewal, now).at);
            if now >= well_again { break }
            renewal.apply_failure(failure(FailureKind::Unreachable), Some(held), 1, now, chance);
        }
        prop_assert!(now < held.not_after, "renewed at {now}, after {}", held.not_after);
    }

    #[test]
    fn no_jump_of_the_clock_leaves_a_certificate_alone_for_ever(
        life in any_lifetime(), jump in -FAR..FAR, chance in 0.0..1.0_f64, failures in 0..12_usize
    ) {
        let mut renewal = RenewalState::default();
        let before = start();
        let held = lifetime(before, life);
        renewal.apply_success(held, ChallengeKind::TlsAlpn, before, chance);
        for _ in 0..failures {
            renewal.count_order(false, before);
            renewal.apply_failure(failure(FailureKind::Validation), Some(held), 2, before, chance);
        }
        let now = before + seconds(jump);
        renewal.repair(now, 2);
        let next = next_step(Some(held), &renewal, now);
        let latest = held.emergency_at().max(now + seconds(27 * 3600));
        prop_assert!(next.at <= latest, "{next:?} is after {latest}");
    }
}

#[test]
fn a_restart_does_not_choose_again() {
    let now = start();
    let held = lifetime(now, 90 * 86_400);
    let mut renewal = RenewalState::default();
    renewal.apply_success(held, ChallengeKind::TlsAlpn, now, 0.3);
    let text = serde_json::to_string(&renewal).expect("plain data");
    let read: RenewalState = serde_json::from_str(&text).expect("what was written");
    assert_eq!(read, renewal);
    assert_eq!(serde_json::from_str::<RenewalState>("{}").expect("an older file"), RenewalState::default());
}

#[test]
fn short_lives_are_renewed_at_half_and_long_ones_with_a_third_left() {
    let now = start();
    let six_days = lifetime(now, 160 * 3600);
    assert_eq!(choose_renewal_time(six_days, None, now, 0.0), now + seconds(80 * 3600));
    let ninety = lifetime(now, 90 * 86_400);
    assert_eq!(choose_renewal_time(ninety, None, now, 0.0), now + seconds(60 * 86_400));
}

#[test]
fn a_window_that_has_passed_means_soon_unless_the_certificate_is_newer() {
    let issued = start();
    let held = lifetime(issued, 90 * 86_400);
    let later = issued + seconds(20 * 86_400);
    let passed = RenewalWindow { start: later - seconds(7200), end: later - seconds(3600) };
    let chosen = choose_renewal_time(held, Some(passed), later, 0.5);
    assert!(chosen > later && chosen <= later + seconds(3600), "{chosen}");
    let before = RenewalWindow { start: issued - seconds(7200), end: issued - seconds(3600) };
    assert_eq!(choose_renewal_time(held, Some(before), later, 0.0), issued + seconds(60 * 86_400));
}

#[test]
fn a_window_that_is_moved_moves_the_renewal_and_one_that_is_not_does_not() {
    let issued = start();
    let held = lifetime(issued, 90 * 86_400);
    let mut renewal = RenewalState::default();
    renewal.apply_success(held, ChallengeKind::TlsAlpn, issued, 0.5);
    let day = |day: i64| issued + seconds(day * 86_400);
    let window = |from, until| Some(RenewalWindow { start: day(from), end: day(until) });
    renewal.apply_renewal_info(held, window(60, 62), seconds(3600), day(1), 0.5);
    assert_eq!(renewal.renew_at, Some(day(61)));
    renewal.apply_renewal_info(held, window(60, 62), seconds(3600), day(2), 0.1);
    assert_eq!(renewal.renew_at, Some(day(61)), "the dice were rolled again");
    renewal.apply_renewal_info(held, window(10, 12), seconds(3600), day(3), 0.5);
    assert_eq!(renewal.renew_at, Some(day(11)));
    renewal.apply_renewal_info(held, None, seconds(3600), day(4), 0.0);
    assert_eq!(renewal.renew_at, Some(day(60)), "the CA has taken its window back");
}

#[test]
fn retry_after_of_a_ca_is_honored_to_the_second() {
    let now = start();
    let mut renewal = RenewalState::default();
    let asked = IssuanceFailure { retry_after: Some(seconds(7200)), ..failure(FailureKind::RateLimited) };
    renewal.apply_failure(asked, None, 1, now, 0.5);
    let at = next_step(None, &renewal, now).at;
    assert!(at >= now + seconds(7200) && at <= now + seconds(7920), "{at}");
}

#[test]
fn a_refusing_ca_is_replaced_by_the_next_at_once() {
    let now = start();
    let mut renewal = RenewalState::default();
    renewal.apply_failure(failure(FailureKind::Refused), None, 2, now, 0.5);
    assert_eq!(renewal.ca, 1);
    assert!(renewal.not_before.expect("a pause") <= now + seconds(2));
    renewal.apply_failure(failure(FailureKind::Refused), None, 2, now, 0.5);
    assert_eq!(renewal.ca, 0);
    assert!(renewal.not_before.expect("a pause") > now + seconds(5 * 3600));
}

#[test]
fn only_names_with_a_failed_validation_are_staged() {
    let now = start();
    for fault in
        [FailureKind::Unreachable, FailureKind::RateLimited, FailureKind::Refused, FailureKind::BadAnswer]
    {
        let mut renewal = RenewalState::default();
        renewal.apply_failure(failure(fault), None, 1, now, 0.5);
        assert!(!renewal.needs_staging, "{fault:?}");
    }
    let mut renewal = RenewalState::default();
    renewal.apply_failure(failure(FailureKind::Validation), None, 1, now, 0.5);
    renewal.apply_failure(failure(FailureKind::Unreachable), None, 1, now, 0.5);
    renewal.request_renewal(now);
    assert!(renewal.needs_staging, "nobody has seen it since");
    renewal.count_order(true, now);
    renewal.apply_staging_success(ChallengeKind::Http);
    assert_eq!((renewal.needs_staging, renewal.challenge), (false, Some(ChallengeKind::Http)));
    assert_eq!(
        (renewal.failed_orders, renewal.failed_staging_orders),
        (FailedOrders::default(), FailedOrders::default())
    );
}

#[test]
fn successful_orders_are_not_counted() {
    let now = start();
    let mut renewal = RenewalState::default();
    for _ in 0..30 {
        assert!(renewal.is_order_allowed(now));
        renewal.count_order(false, now);
        renewal.apply_success(lifetime(now, 3600), ChallengeKind::TlsAlpn, now, 0.0);
    }
    for _ in 0..ORDER_CAPS.per_hour {
        renewal.count_order(false, now);
    }
    assert!(!renewal.is_order_allowed(now));
}

/// A gateway that was killed, or whose database went away, between the certificate and what follows.
#[test]
fn a_certificate_whose_state_was_not_stored_is_not_ordered_again() {
    let (now, later) = (start(), start() + seconds(1800));
    let first = lifetime(now, 3600);
    let mut stored = RenewalState::default();
    stored.apply_success(first, ChallengeKind::Http, now, 0.0);
    stored.apply_renewal_info(first, None, seconds(3600), now, 0.0);
    stored.request_renewal(later);
    stored.count_order(false, later);
    let successor = lifetime(later, 3600);
    stored.fit(first, later, || 0.5);
    assert_eq!(next_step(Some(first), &stored, later).step, RenewalStep::Order, "the order is under way");
    stored.fit(successor, later, || 0.5);
    assert_eq!(next_step(Some(successor), &stored, later).step, RenewalStep::FetchRenewalInfo);
    stored.apply_renewal_info(successor, None, seconds(3600), later, 0.5);
    assert!(next_step(Some(successor), &stored, later).at > later + seconds(1000), "{stored:?}");
    assert_eq!(stored.failed_orders, FailedOrders::default(), "it led to a certificate");
    // A state of an earlier version fits whatever it was stored with.
    let mut earlier = RenewalState { renew_at: Some(later), ..RenewalState::default() };
    earlier.fit(successor, later, || 0.5);
    assert_eq!(earlier.renew_at, Some(later));
}

/// A renamed member would be lost at the next start, and an order with it.
#[test]
fn member_names_of_the_state_file_stay() {
    let state = serde_json::to_value(RenewalState::default()).expect("plain data");
    let mut names: Vec<&str> = state.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut expected = [
        "renew_at",
        "valid_from",
        "window",
        "ask_at",
        "failures",
        "last_failure",
        "not_before",
        "fruitless",
        "unproved",
        "rehearsals",
        "ca",
        "ca_failures",
        "challenge",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}
