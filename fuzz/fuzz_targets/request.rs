//! Runs `tenantd::fuzzing`'s target `request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("request", bytes));
