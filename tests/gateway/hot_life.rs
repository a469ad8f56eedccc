//! The life of tenants while files and folders change: whatever an operator, an editor, a mount or
//! a full disk does, the gateway ends in the state of a cold start, and other tenants are not
//! affected.

#[path = "hot_life/clock.rs"]
mod clock;
#[path = "hot_life/drained.rs"]
mod drained;
#[path = "hot_life/folder.rs"]
mod folder;
#[path = "hot_life/killed.rs"]
mod killed;
#[path = "hot_life/life.rs"]
mod life;
#[path = "hot_life/load.rs"]
mod load;
#[path = "hot_life/property.rs"]
mod property;
#[path = "hot_life/revocation.rs"]
mod revocation;
#[path = "hot_life/rotation.rs"]
mod rotation;
#[path = "hot_life/scarce.rs"]
mod scarce;
