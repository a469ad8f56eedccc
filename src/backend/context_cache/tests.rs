use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::clock::SystemClock;

fn cache(bytes: u64) -> ContextCache {
    ContextCache::new(Budget::new(bytes), SystemClock::shared(), Arc::new(Metrics::new()))
}

/// Returns a context that weighs this much.
fn context(weight: u64) -> FetchedContext {
    let text = "x".repeat((weight - OVERHEAD_BYTES) as usize - 2);
    FetchedContext {
        backend: Digest::of(b"backend"),
        document: JsonDocument::from_value(&json!(text)).into_shrunk(),
        fetched_at: None,
        reservation: None,
    }
}

fn kib(count: u64) -> u64 {
    count << 10
}

fn slots<const COUNT: usize>() -> [ContextSlot; COUNT] {
    std::array::from_fn(|_| ContextSlot::default())
}

fn is_kept(slot: &ContextSlot) -> bool {
    slot.cached_context(Digest::of(b"backend")).is_some()
}

fn held_bytes(cache: &ContextCache) -> u64 {
    cache.0.budget.held()
}

#[test]
fn the_largest_context_goes_first_and_only_for_a_smaller_one() {
    let cache = cache(kib(100));
    let [large, small, newcomer, largest] = slots();
    cache.keep(&large, context(kib(50)), None);
    cache.keep(&small, context(kib(30)), None);
    assert!(cache.keep(&newcomer, context(kib(40)), None).was_kept());
    assert_eq!((is_kept(&large), is_kept(&small), is_kept(&newcomer)), (false, true, true));
    assert!(!cache.keep(&largest, context(kib(45)), None).was_kept());
    assert_eq!((is_kept(&small), is_kept(&newcomer), is_kept(&largest)), (true, true, false));
    assert_eq!(held_bytes(&cache), kib(70));
}

#[test]
fn a_lower_limit_drops_the_largest_contexts_and_a_higher_one_has_room_again() {
    let cache = cache(kib(4 << 10));
    let [small, large, larger] = slots();
    cache.keep(&small, context(kib(400)), None);
    cache.keep(&large, context(kib(700)), None);
    cache.keep(&larger, context(kib(800)), None);
    cache.set_mib(1);
    assert_eq!((is_kept(&small), is_kept(&large), is_kept(&larger)), (true, false, false));
    assert_eq!(held_bytes(&cache), kib(400));
    assert!(!cache.has_room_again(&large));
    cache.set_mib(2);
    assert!(cache.has_room_again(&large) && cache.keep(&large, context(kib(700)), None).was_kept());
    assert!(is_kept(&small));
}

#[test]
fn nothing_is_dropped_for_a_context_that_has_no_room_even_so() {
    let cache = cache(kib(100));
    let [small, large, newcomer] = slots();
    cache.keep(&small, context(kib(60)), None);
    cache.keep(&large, context(kib(40)), None);
    assert!(!cache.keep(&newcomer, context(kib(61)), None).was_kept());
    assert!(is_kept(&small) && is_kept(&large));
}

#[test]
fn a_slot_that_goes_or_is_cleared_gives_its_room_back() {
    let cache = cache(kib(100));
    let [one, two, other] = slots();
    cache.keep(&one, context(kib(50)), None);
    cache.keep(&two, context(kib(50)), None);
    assert!(!cache.keep(&other, context(kib(60)), None).was_kept());
    assert!(!cache.has_room_again(&other));
    drop(one);
    assert!(!cache.has_room_again(&other), "it needs more than one of them had");
    two.clear();
    assert_eq!((is_kept(&two), held_bytes(&cache)), (false, 0));
    assert!(cache.has_room_again(&other));
    assert!(cache.keep(&other, context(kib(60)), None).was_kept());
    assert!(!cache.has_room_again(&other) && !cache.has_room_again(&two), "neither lacks anything");
}

#[test]
fn a_new_context_takes_the_room_of_the_one_it_replaces() {
    let cache = cache(kib(100));
    let [slot, other] = slots();
    cache.keep(&other, context(kib(40)), None);
    let before = cache.keep(&slot, context(kib(60)), None);
    assert!(cache.keep(&slot, context(kib(55)), None).was_kept());
    assert_eq!(held_bytes(&cache), kib(95));
    assert!(!before.reserve_derived(1), "it is not kept any more");
    assert!(!cache.keep(&slot, context(kib(61)), None).was_kept());
    assert_eq!(
        (is_kept(&slot), held_bytes(&cache)),
        (false, kib(40)),
        "a stale context is not served for good"
    );
}

#[test]
fn derived_values_count_with_their_context() {
    let cache = cache(kib(100));
    let [slot, larger, smaller] = slots();
    let context_of_slot = cache.keep(&slot, context(kib(20)), None);
    cache.keep(&larger, context(kib(50)), None);
    assert!(context_of_slot.reserve_derived(10 << 10));
    assert_eq!(held_bytes(&cache), kib(80));
    assert!(context_of_slot.reserve_derived(5 << 10), "in place of the 10 KiB before");
    assert_eq!(held_bytes(&cache), kib(75));
    cache.keep(&smaller, context(kib(25)), None);
    assert!(context_of_slot.reserve_derived(15 << 10), "the larger context gives way");
    assert_eq!((is_kept(&larger), held_bytes(&cache)), (false, kib(60)));
    assert!(!context_of_slot.reserve_derived(80 << 10), "that is more than all the rest");
    assert_eq!((is_kept(&slot), held_bytes(&cache)), (true, kib(60)), "it stays as it was");
    assert!(!cache.keep(&larger, context(kib(90)), None).reserve_derived(1), "it is not kept");
}

#[test]
fn a_context_belongs_to_its_backend() {
    let cache = cache(kib(100));
    let [slot] = slots();
    cache.keep(&slot, context(kib(10)), None);
    assert!(slot.cached_context(Digest::of(b"another")).is_none() && is_kept(&slot));
}

#[test]
fn derived_values_are_made_once() {
    let cache = cache(kib(100));
    let [slot] = slots();
    let context = cache.keep(&slot, context(kib(10)), None);
    context.derived::<OnceLock<u32>>().get_or_init(|| 7);
    assert_eq!(context.derived::<OnceLock<u32>>().get(), Some(&7));
}

#[derive(Debug, Clone)]
enum Step {
    Keep { tenant: usize, kib: u64 },
    Derive { tenant: usize, kib: u64 },
    Remove { tenant: usize },
}

const TENANTS: usize = 8;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..TENANTS, 4_u64..60).prop_map(|(tenant, kib)| Step::Keep { tenant, kib }),
        2 => (0..TENANTS, 0_u64..30).prop_map(|(tenant, kib)| Step::Derive { tenant, kib }),
        1 => (0..TENANTS).prop_map(|tenant| Step::Remove { tenant }),
    ]
}

proptest! {
    #[test]
    fn a_context_of_an_even_share_is_always_kept(steps in proptest::collection::vec(step(), 1..60)) {
        let cache = cache(kib(100));
        let mut tenants: [ContextSlot; TENANTS] = slots();
        // What each tenant last asked for, kept or not.
        let mut asked = [0_u64; TENANTS];
        for step in steps {
            match step {
                Step::Keep { tenant, kib: size } => {
                    cache.keep(&tenants[tenant], context(kib(size)), None);
                    asked[tenant] = kib(size);
                }
                Step::Derive { tenant, kib: size } => {
                    let Some(known) = tenants[tenant].cached_context(Digest::of(b"backend")) else { continue };
                    if known.context.reserve_derived(kib(size) as usize) {
                        asked[tenant] = known.context.weight() + kib(size);
                    }
                }
                Step::Remove { tenant } => {
                    tenants[tenant] = ContextSlot::default();
                    asked[tenant] = 0;
                }
            }
            // The next call of each tenant without a context fetches it again.
            for (slot, weight) in tenants.iter().zip(asked).filter(|(slot, weight)| *weight > 0 && !is_kept(slot)) {
                cache.keep(slot, context(weight), None);
            }
            let count = asked.iter().filter(|weight| **weight > 0).count() as u64;
            let even = cache.0.budget.limit() / count.max(1);
            let index = cache.index();
            let listed: u64 = index.slots.keys().map(|rank| rank.weight).sum();
            prop_assert_eq!((held_bytes(&cache), index.memory.weight()), (listed, listed));
            prop_assert!(held_bytes(&cache) <= cache.0.budget.limit());
            for (slot, weight) in tenants.iter().zip(asked) {
                prop_assert_eq!(is_kept(slot), index.slots.contains_key(&Rank::new(&slot.0, slot.0.content().weight)));
                prop_assert!(is_kept(slot) || weight == 0 || weight > even, "{weight} of {even}");
            }
        }
    }
}
