//! Runs `tenantd::fuzzing`'s target `forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("forwarded", bytes));
