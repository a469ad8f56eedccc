//! Floor 3: who is calling. Today the bearer check with static keys; the authorization server moves in here.

pub mod bearer;
