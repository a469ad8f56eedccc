//! Parses, starts, and decides the exit code.
fn main() {}
