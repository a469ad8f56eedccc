//! Runs `tenantd::fuzzing`'s target `archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("archive", bytes));
