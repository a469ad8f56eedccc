//! What callers send, and what they do not read, takes no room from others.
