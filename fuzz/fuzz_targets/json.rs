//! Runs `tenantd::fuzzing`'s target `json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("json", bytes));
