//! Runs `tenantd::fuzzing`'s target `redirect_uri`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("redirect_uri", bytes));
