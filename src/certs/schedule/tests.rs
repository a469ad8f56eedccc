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

fn held(now: Timestamp, life: i64) -> Held {
    Held { from: now, until: now + seconds(life) }
}

fn failure(fault: Fault) -> Failure {
    Failure::new(fault, "it failed")
}

/// Lifetimes from an hour to 398 days. `windows` also yields windows that no sane CA would send.
fn lives() -> impl Strategy<Value = i64> {
    3600..398 * 86_400_i64
}

fn windows() -> impl Strategy<Value = Option<Window>> {
    let moment = (-FAR..FAR).prop_map(|offset| start() + seconds(offset));
    proptest::option::of((moment.clone(), moment).prop_map(|(start, end)| Window { start, end }))
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Unreachable),
        Just(Fault::Validation),
        Just(Fault::RateLimited),
        Just(Fault::Refused),
        Just(Fault::BadAnswer),
    ]
}

proptest! {
    #[test]
    fn a_renewal_is_due_before_the_last_twentieth_whatever_the_ca_suggests(
        life in lives(), window in windows(), chance in 0.0..1.0_f64
    ) {
        let now = start();
        let held = held(now, life);
        let mut memory = Memory::default();
        memory.succeeded(held, Challenge::TlsAlpn, now, chance);
        memory.told(held, window, seconds(60), now, chance);
        memory.ask_at = None;
        let next = next(Some(held), &memory, now);
        prop_assert_eq!(next.step, Step::Order);
        prop_assert!(next.at <= held.until - held.life() / 20, "{next:?} of {held:?}");
        prop_assert!(next.at >= now + held.life() / 20, "{next:?} of {held:?} follows too soon");
    }

    #[test]
    fn a_ca_that_always_fails_gets_no_more_orders_than_the_caps(
        fault in faults(), life in proptest::option::of(lives()), chances in proptest::collection::vec(0.0..1.0_f64, 8)
    ) {
        let mut now = start();
        let end = now + seconds(3 * 86_400);
        let held = life.map(|life| held(now - seconds(life * 9 / 10), life));
        let mut memory = Memory { renew_at: Some(now), ..Memory::default() };
        let mut orders: Vec<Timestamp> = Vec::new();
        let mut rehearsals: Vec<Timestamp> = Vec::new();
        for round in 0..10_000 {
            let next = next(held, &memory, now);
            prop_assert!(next.at <= now + seconds(86_400 + 3600 * 3), "it sleeps too long: {next:?}");
            now = now.max(next.at);
            if now > end { break }
            // As an attempt does it with a staging directory: both challenge types there, or both
            // at the CA.
            let (staging, placed) = match memory.unproved {
                true => (true, &mut rehearsals),
                false => (false, &mut orders),
            };
            for _ in 0..2 {
                if memory.may_order(now) {
                    memory.ordering(staging, now);
                    placed.push(now);
                }
            }
            memory.failed(failure(fault), held, 1, now, chances[round % 8]);
            memory.mend(now, 1);
        }
        for (placed, caps) in [(&orders, ORDERS), (&rehearsals, REHEARSALS)] {
            for (index, &order) in placed.iter().enumerate() {
                let within = |span: i64| placed[index..].iter().filter(|&&at| at < order + seconds(span)).count();
                prop_assert!(within(3600) <= caps.an_hour, "an hour had {}", within(3600));
                prop_assert!(within(86_400) <= caps.a_day, "a day had {}", within(86_400));
            }
        }
        prop_assert!(orders.len() + rehearsals.len() >= 4, "it gave up: {orders:?} {rehearsals:?}");
        prop_assert!(fault != Fault::Validation || orders.len() == 2, "the CA saw {orders:?}");
    }

    #[test]
    fn a_ca_that_fails_for_most_of_a_life_still_brings_a_renewal(
        life in 36_000..398 * 86_400_i64, outage in 0.0..0.6_f64, chance in 0.0..1.0_f64
    ) {
        let mut now = start();
        let held = held(now, life);
        let mut memory = Memory::default();
        memory.succeeded(held, Challenge::Http, now, chance);
        memory.ask_at = None;
        let well_again = held.until - seconds((life as f64 * 0.4 * (1.0 - outage)) as i64);
        for _ in 0..10_000 {
            now = now.max(next(Some(held), &memory, now).at);
            if now >= well_again { break }
            memory.failed(failure(Fault::Unreachable), Some(held), 1, now, chance);
        }
        prop_assert!(now < held.until, "renewed at {now}, after {}", held.until);
    }

    #[test]
    fn no_jump_of_the_clock_leaves_a_certificate_alone_for_ever(
        life in lives(), jump in -FAR..FAR, chance in 0.0..1.0_f64, failures in 0..12_usize
    ) {
        let mut memory = Memory::default();
        let before = start();
        let held = held(before, life);
        memory.succeeded(held, Challenge::TlsAlpn, before, chance);
        for _ in 0..failures {
            memory.ordering(false, before);
            memory.failed(failure(Fault::Validation), Some(held), 2, before, chance);
        }
        let now = before + seconds(jump);
        memory.mend(now, 2);
        let next = next(Some(held), &memory, now);
        let latest = held.emergency().max(now + seconds(27 * 3600));
        prop_assert!(next.at <= latest, "{next:?} is after {latest}");
    }
}

#[test]
fn a_restart_does_not_choose_again() {
    let now = start();
    let held = held(now, 90 * 86_400);
    let mut memory = Memory::default();
    memory.succeeded(held, Challenge::TlsAlpn, now, 0.3);
    let text = serde_json::to_string(&memory).expect("plain data");
    let read: Memory = serde_json::from_str(&text).expect("what was written");
    assert_eq!(read, memory);
    assert_eq!(serde_json::from_str::<Memory>("{}").expect("an older file"), Memory::default());
}

#[test]
fn short_lives_are_renewed_at_half_and_long_ones_with_a_third_left() {
    let now = start();
    let six_days = held(now, 160 * 3600);
    assert_eq!(choose(six_days, None, now, 0.0), now + seconds(80 * 3600));
    let ninety = held(now, 90 * 86_400);
    assert_eq!(choose(ninety, None, now, 0.0), now + seconds(60 * 86_400));
}

#[test]
fn a_window_that_has_passed_means_soon_unless_the_certificate_is_newer() {
    let issued = start();
    let held = held(issued, 90 * 86_400);
    let later = issued + seconds(20 * 86_400);
    let passed = Window { start: later - seconds(7200), end: later - seconds(3600) };
    let chosen = choose(held, Some(passed), later, 0.5);
    assert!(chosen > later && chosen <= later + seconds(3600), "{chosen}");
    let before = Window { start: issued - seconds(7200), end: issued - seconds(3600) };
    assert_eq!(choose(held, Some(before), later, 0.0), issued + seconds(60 * 86_400));
}

#[test]
fn a_window_that_is_moved_moves_the_renewal_and_one_that_is_not_does_not() {
    let issued = start();
    let held = held(issued, 90 * 86_400);
    let mut memory = Memory::default();
    memory.succeeded(held, Challenge::TlsAlpn, issued, 0.5);
    let day = |day: i64| issued + seconds(day * 86_400);
    let window = |from, until| Some(Window { start: day(from), end: day(until) });
    memory.told(held, window(60, 62), seconds(3600), day(1), 0.5);
    assert_eq!(memory.renew_at, Some(day(61)));
    memory.told(held, window(60, 62), seconds(3600), day(2), 0.1);
    assert_eq!(memory.renew_at, Some(day(61)), "the dice were rolled again");
    memory.told(held, window(10, 12), seconds(3600), day(3), 0.5);
    assert_eq!(memory.renew_at, Some(day(11)));
    memory.told(held, None, seconds(3600), day(4), 0.0);
    assert_eq!(memory.renew_at, Some(day(60)), "the CA has taken its window back");
}

#[test]
fn what_a_ca_asks_for_is_done_to_the_second_and_not_sooner() {
    let now = start();
    let mut memory = Memory::default();
    let asked = Failure { retry_after: Some(seconds(7200)), ..failure(Fault::RateLimited) };
    memory.failed(asked, None, 1, now, 0.5);
    let at = next(None, &memory, now).at;
    assert!(at >= now + seconds(7200) && at <= now + seconds(7920), "{at}");
}

#[test]
fn a_ca_that_refuses_is_left_for_the_next_at_once_and_comes_round_slowly() {
    let now = start();
    let mut memory = Memory::default();
    memory.failed(failure(Fault::Refused), None, 2, now, 0.5);
    assert_eq!(memory.ca, 1);
    assert!(memory.not_before.expect("a pause") <= now + seconds(2));
    memory.failed(failure(Fault::Refused), None, 2, now, 0.5);
    assert_eq!(memory.ca, 0);
    assert!(memory.not_before.expect("a pause") > now + seconds(5 * 3600));
}

#[test]
fn only_a_name_that_was_not_seen_to_be_ours_is_proved_first() {
    let now = start();
    for fault in [Fault::Unreachable, Fault::RateLimited, Fault::Refused, Fault::BadAnswer] {
        let mut memory = Memory::default();
        memory.failed(failure(fault), None, 1, now, 0.5);
        assert!(!memory.unproved, "{fault:?}");
    }
    let mut memory = Memory::default();
    memory.failed(failure(Fault::Validation), None, 1, now, 0.5);
    memory.failed(failure(Fault::Unreachable), None, 1, now, 0.5);
    memory.renew_now(now);
    assert!(memory.unproved, "nobody has seen it since");
    memory.ordering(true, now);
    memory.proved(Challenge::Http);
    assert_eq!((memory.unproved, memory.challenge), (false, Some(Challenge::Http)));
    assert_eq!((memory.fruitless, memory.rehearsals), (Fruitless::default(), Fruitless::default()));
}

#[test]
fn an_order_that_bears_fruit_is_not_counted() {
    let now = start();
    let mut memory = Memory::default();
    for _ in 0..30 {
        assert!(memory.may_order(now));
        memory.ordering(false, now);
        memory.succeeded(held(now, 3600), Challenge::TlsAlpn, now, 0.0);
    }
    for _ in 0..ORDERS.an_hour {
        memory.ordering(false, now);
    }
    assert!(!memory.may_order(now));
}
