//! Chance, for times that many certificates must not share.

use crate::base::random;

/// Returns a random number that is at least 0 and below 1.
pub(super) fn jitter() -> f64 {
    f64::from(u32::from_be_bytes(random::bytes::<4>())) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_in_its_bounds() {
        assert!((0..1000).map(|_| jitter()).all(|chance| (0.0..1.0).contains(&chance)));
    }
}
