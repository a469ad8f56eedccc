//! Runs `tenantd::fuzzing`'s target `yaml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("yaml", bytes));
