//! Runs `tenantd::fuzzing`'s target `parameters`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("parameters", bytes));
