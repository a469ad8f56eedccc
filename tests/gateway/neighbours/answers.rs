//! What a backend answers takes no memory and no time from others.
