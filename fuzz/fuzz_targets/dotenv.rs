//! Runs `tenantd::fuzzing`'s target `dotenv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantd_fuzz::check("dotenv", bytes));
